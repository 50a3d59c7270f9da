"""How a command ends: when it is done, or at once when it is told to, whatever it is at.

What it imports it imports itself: loading the command line can be interrupted too.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: A command that is told to end has so long to do it in its own way.
GRACE_SECONDS = 0.8
#: What other packages want to do at the end may take so long.
LAST_SECONDS = 0.2

#: Python looks for cycles after so many new objects: Numba makes millions that stay.
GARBAGE = 100_000

WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(KeyboardInterrupt):
    """The system, or who runs it, wants the process to end: as Ctrl-C, nothing is waited for."""


def main() -> None:
    """Run the command line and exit: 0 if all went well, 2 on bad input, 130 after Ctrl-C."""
    try:
        _open_what_is_closed()
        _obey()
        gc.set_threshold(GARBAGE)
        from swatsim.cli.main import run

        # a first run takes seconds before anything can be shown: it says why, also without -v
        logging.getLogger("swatsim.compiled").setLevel(logging.INFO)
        code = run(sys.argv[1:])
    except Terminated:
        code = _told(signal.SIGTERM)
    except KeyboardInterrupt:
        code = _told(signal.SIGINT)
    _leave(code)


def _open_what_is_closed() -> None:
    """Open closed standard files (``>&-``) on nothing: else the next file gets the output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode)  # noqa: SIM115  (for as long as the process lasts)
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)


def _obey() -> None:
    """End the process within `GRACE_SECONDS` of Ctrl-C or SIGTERM, from here on.

    They are exceptions first. But one that is raised in a callback of C code or in a destructor is
    lost, and one that can't be raised, because a library does not come back to Python, waits: so a
    thread sees the signal too, and ends the process in any case. Files are whole or absent.
    """
    for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as behind nohup, or a shell's &
            signal.signal(number, _interrupt)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours,), daemon=True).start()


def _leave(code: int) -> NoReturn:
    """End the process, and wait for nobody.

    Everything is written and closed by now; taking LLVM apart would take another quarter second.
    """
    for number in WORDS:
        signal.signal(number, lambda *_: os._exit(code))
    with suppress(OSError):
        sys.stdout.flush()
    if "multiprocessing.util" in sys.modules:
        # processes and a pool's semaphores would stay; what is joined there may never end
        last = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
        last.start()
        last.join(LAST_SECONDS)
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for one in WORDS:  # whoever asks twice does not want to wait at all
        signal.signal(one, lambda number, _: os._exit(_told(number)))
    sys.unraisablehook = lambda _: None  # where it is lost, it is no fault
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _watch(signals: int) -> None:
    while (number := os.read(signals, 1)[0]) not in WORDS:
        pass  # one that is none of ours
    threading.Event().wait(GRACE_SECONDS)
    os._exit(_told(number))


def _told(number: int) -> int:
    """Print why the process ends, and return its exit code."""
    with suppress(OSError):  # standard error is closed
        os.write(2, f"swatsim: error: {WORDS[number]}\n".encode())
    return 128 + number
