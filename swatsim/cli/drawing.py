"""Drawing plots in a process of its own, so that matplotlib loads while the simulation runs.

Loading it takes as long as simulating a small trace, and drawing as long again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from swatsim.signals import undisturbed

if TYPE_CHECKING:
    from swatsim.results import Results


#: All of them take longer to draw than a small trace to simulate.
CHOICES: Mapping[str, Sequence[str]] = {
    "none": (),
    "main": ("speed_up", "pe_cycles"),
    "all": ("speed_up", "pe_cycles", "energy", "roofline"),
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

    def finish(self) -> dict[str, bytes]:
        """Wait for the plots: file name to PNG; none if none are wanted."""
        if not self._wanted or self._results is None:
            return {}
        try:
            drawn: dict[str, bytes] = self._ours.recv()
        except (EOFError, OSError):  # it was killed, or could not start: draw here
            return draw(self._results, self._names)
        return drawn


def _serve(connection: Connection, names: Sequence[str]) -> None:
    os.environ["MPLBACKEND"] = "agg"
    from swatsim.reports import plots, roofline  # noqa: F401  (loaded before they are needed)

    plots.warm_up()
    connection.send(draw(connection.recv(), names))


def draw(results: Results, names: Sequence[str] = CHOICES["all"]) -> dict[str, bytes]:
    """Draw some of the plots of a simulation: those for which there is something to show."""
    os.environ["MPLBACKEND"] = "agg"  # whatever a user's shell says: matplotlib would fail on it
    from swatsim.reports import plots
    from swatsim.reports.roofline import roofline

    drawable = {"speed_up": plots.speed_up, "pe_cycles": plots.pe_cycles}
    if all(row["energy_pj"] is not None for row in results.rows):
        drawable["energy"] = plots.energy
    if any(row["blocks"] for row in results.rows):
        drawable["roofline"] = roofline
    return {
        f"{name}.png": plots.as_png(drawable[name](results)) for name in names if name in drawable
    }
