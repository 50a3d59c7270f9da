"""A log of each point: which of its jobs ran where, how long, and what went wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

#: Of a sweep, the folder of its points' logs.
LOGS = "logs"


class Logs:
    """The folder of a sweep's logs, a file a point, which is only ever added to.

    Parameters
    ----------
    folder : pathlib.Path
        Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / LOGS

    def add(self, points: Iterable[str], text: str) -> None:
        """Add a line, or several, to the logs of points that share a computation.

        Where there is no room for it the sweep goes on: a point that can't be written says so.
        """
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text.rstrip()}\n".encode()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for point in points:
                how = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                descriptor = os.open(self._folder / f"{point}.log", how, 0o666)
                with open(descriptor, "wb", buffering=0) as file:
                    file.write(line)
