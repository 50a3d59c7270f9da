"""Drawing plots in a process of its own, so that matplotlib loads while the simulation runs.

Loading it takes as long as simulating a small trace, and drawing as long again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from swatsim.outputs import PLOTS
from swatsim.signals import undisturbed

if TYPE_CHECKING:
    from swatsim.reports.style import Figure
    from swatsim.results import Results


log = logging.getLogger(__name__)

Plots = dict[str, bytes]

#: All of them take longer to draw than a small trace to simulate.
CHOICES: Mapping[str, Sequence[str]] = {
    "none": (),
    "main": tuple(name for name, plot in PLOTS.items() if plot.main),
    "all": tuple(PLOTS),
}


class Drawing:
    """A context in which results can be drawn beside other work.

    Parameters
    ----------
    wanted : {"none", "main", "all"}
        With none nothing is started and nothing drawn.
    """

    def __init__(self, wanted: str) -> None:
        self._names = CHOICES[wanted]
        self._wanted = bool(self._names)
        self._results: Results | None = None
        self._ours, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(
            target=_serve, args=(theirs, self._names), daemon=True
        )
        if self._wanted:
            with undisturbed():
                self._process.start()
        theirs.close()

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._wanted:
            self._process.kill()  # it has nothing to tidy up, and would take its time
        self._ours.close()

    def start(self, results: Results) -> None:
        """Begin to draw."""
        self._results = results
        if self._wanted:
            with suppress(OSError):  # it is gone: `finish` will draw
                self._ours.send(results)

    def finish(self) -> Plots:
        """Return the plots, once drawn: file name to PNG, of those wanted that can be drawn."""
        if not self._wanted or self._results is None:
            return {}
        try:
            plots: Plots
            plots, failed = self._ours.recv()
        except (EOFError, OSError):  # it was killed, or could not start: draw here
            plots, failed = draw(self._results, self._names)
        for name, why in failed.items():
            log.warning("%s can't be drawn (%s); no number is missing for that", name, why)
        return plots


def _function(name: str) -> Callable[[Results], Figure]:
    """Return what draws a plot; its module loads matplotlib."""
    draws: Callable[[Results], Figure]
    draws = getattr(import_module(f"swatsim.reports.{PLOTS[name].module}"), name)
    return draws


def _serve(connection: Connection, names: Sequence[str]) -> None:
    os.environ["MPLBACKEND"] = "agg"
    for name in names:  # matplotlib: here, and before there is anything to draw
        _function(name)
    connection.send(draw(connection.recv(), names))


def draw(results: Results, names: Sequence[str] = CHOICES["all"]) -> tuple[Plots, dict[str, str]]:
    """Return some of a simulation's plots: those for which there is something to show.

    Returns
    -------
    dict of str to bytes
        File name to PNG.
    dict of str to str
        File name to what went wrong, of those that can't be drawn.
    """
    os.environ["MPLBACKEND"] = "agg"  # whatever a user's shell says: matplotlib would fail on it
    # matplotlib, which must not load in the process that simulates
    from swatsim.reports import style
    from swatsim.reports.tables import summarise

    results = summarise(results)
    drawn: Plots = {}
    failed: dict[str, str] = {}
    for name in (name for name in names if PLOTS[name].there(results.rows)):
        try:
            drawn[f"{name}.png"] = style.as_png(_function(name)(results))
        except Exception as error:  # noqa: BLE001  (whatever it is, the numbers are there)
            failed[f"{name}.png"] = f"{type(error).__name__}: {error}"
    return drawn, failed
