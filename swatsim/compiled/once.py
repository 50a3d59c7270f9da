"""A kernel is compiled by one process: another that wants it meanwhile waits, and loads it then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numba.core.compiler_lock import global_compiler_lock

#: Nobody waits longer (seconds): who compiles takes less, unless it was stopped.
LONGEST = 60.0
#: So often is looked (seconds).
OFTEN = 0.02


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is made in the block; wait for who else holds it.

    A thread that is compiling what calls this one holds Numba's own lock, and waits for nobody: so
    no two ever wait for each other. The lock goes with its process. Where nothing can be locked, or
    written, each makes the file for itself.
    """
    from filelock import FileLock, Timeout  # not for who finds its kernels

    lock = FileLock(path.with_suffix(".lock"), thread_local=False, fallback_to_soft=False)
    longest = 0 if global_compiler_lock.is_locked() else LONGEST
    try:
        with suppress(Timeout, OSError, NotImplementedError):
            lock.acquire(timeout=longest, poll_interval=OFTEN)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is held: who opened it before tries again
            with suppress(OSError):
                lock.release()
