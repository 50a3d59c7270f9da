"""Drawing plots in a process of its own, so that matplotlib loads while the simulation runs.

Loading it takes as long as simulating a small trace, and drawing as long again.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swatsim.results import Results


class Drawing:
    """A context in which results can be drawn beside other work.

    Parameters
    ----------
    wanted : bool
        Otherwise nothing is started and nothing drawn.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._results: Results | None = None
        self._ours, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        if wanted:
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
            return draw(self._results)
        return drawn


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["MPLBACKEND"] = "agg"
    import swatsim.report.roofline  # noqa: F401  (loaded before it is needed)

    connection.send(draw(connection.recv()))


def draw(results: Results) -> dict[str, bytes]:
    """Draw all plots of a simulation."""
    os.environ["MPLBACKEND"] = "agg"  # whatever a user's shell says: matplotlib would fail on it
    from swatsim.report import plots
    from swatsim.report.roofline import roofline

    drawn = [plots.speed_up, plots.pe_cycles]
    drawn += [plots.energy] if results.rows[0]["energy_pj"] is not None else []
    drawn += [roofline] if any(row["blocks"] for row in results.rows) else []
    return {f"{draw.__name__}.png": plots.as_png(draw(results)) for draw in drawn}
