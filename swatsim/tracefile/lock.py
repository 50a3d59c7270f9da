"""One run at a time writes a trace: a lock that goes when its process does, however that ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from swatsim.errors import TraceError

#: In the trace's directory. Only that it is locked means anything, not that it is there.
LOCK = ".lock"


class TraceLock:
    """Holds a trace's directory, which is made, for this process alone.

    A forked child does not hold it, and does not keep it from being released: filelock closes
    the child's descriptor.

    Parameters
    ----------
    folder : pathlib.Path

    Raises
    ------
    TraceError
        If another run holds it, in this process or another, or the directory can't be written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout  # who only reads does not wait for it

        self._path = folder / LOCK
        self._is_ours = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # any thread may release it; a soft lock would outlive a process that is killed
            self._lock = FileLock(self._path, thread_local=False, fallback_to_soft=False)
            self._lock.acquire(blocking=False)
            self._holder: int | None = os.getpid()
        except Timeout:
            raise TraceError(
                f"another run is writing {folder}: choose another path, or wait until it ends"
            ) from None
        except (OSError, NotImplementedError) as error:
            why = getattr(error, "strerror", None) or error
            raise TraceError(f"can't write to {folder}: {why}; choose another path") from None

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._holder == os.getpid()

    def release(self) -> None:
        """Release the lock, and leave nothing behind; a second time does nothing.

        A directory that was made for it, and is empty, goes too.
        """
        if not self.held:
            return
        # While it is held, and last of all: whoever opened the file before gets a lock on a file
        # without a name, which filelock notices. A platform that keeps open files keeps this one.
        self._holder = None
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):  # then it goes with the process
            self._lock.release()
        if self._is_ours:
            with suppress(OSError):  # it holds a trace
                self._path.parent.rmdir()
