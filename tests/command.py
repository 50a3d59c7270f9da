"""The command line for tests: in this process, or, where the process is what is tested, in its own.

Loading what a verb needs takes a process half a second to two, and the suite runs some two hundred.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from swatsim.cli.main import run


def swatsim(*arguments: object) -> tuple[int, str, str]:
    """Run a command here: its exit code, and what it writes to the two standard files."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    words = [os.fsdecode(it) if isinstance(it, bytes) else str(it) for it in arguments]
    with redirect_stdout(out), redirect_stderr(errors), _logging_as_in_a_process():
        code = run(words)
    return code, _text(out), _text(errors)


@contextmanager
def written() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Catch what a script prints and logs in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), _logging_as_in_a_process():
        yield out, errors


def process(
    *arguments: object, before: Callable[[], None] | None = None, **environment: str
) -> tuple[int, str, str]:
    """Run a command in a process of its own, as a user does; `before` runs in it first."""
    words = [it if isinstance(it, bytes) else str(it) for it in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "swatsim", *words],
        capture_output=True,
        preexec_fn=before,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(*arguments: object, before: Callable[[], None] | None = None) -> str:
    """Run a command that must be refused: one line on standard error and exit code 2."""
    ran = swatsim(*arguments) if before is None else process(*arguments, before=before)
    return refusal(*ran)


def refusal(code: int, out: str, errors: str) -> str:
    """Give the one line with which a command was refused."""
    lines = errors.splitlines()
    assert code == 2, errors
    assert "Traceback" not in errors
    assert len(lines) == 1, errors
    assert lines[0].startswith("swatsim: error: ")
    return lines[0]


@contextmanager
def _logging_as_in_a_process() -> Iterator[None]:
    """Take pytest's handlers away: with them there, a command would add none of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
