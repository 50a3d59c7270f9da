"""Starting processes that leave Ctrl-C to the one that started them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.resource_tracker import ensure_running


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes in the block with Ctrl-C blocked from their first moment on.

    A signal that comes meanwhile comes afterwards: a process that is half started would complain.
    """
    came: list[int] = []
    ensure_running()  # starting that one unblocks Ctrl-C
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, lambda number, _: came.append(number))
                stack.callback(signal.signal, number, before or signal.SIG_DFL)
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        yield
    for first in came[:1]:
        signal.raise_signal(first)
