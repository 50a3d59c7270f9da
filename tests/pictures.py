"""Pages without the paint: for tests of what lies around their pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from matplotlib.figure import Figure

_save = Figure.savefig


@contextmanager
def unpainted() -> Iterator[None]:
    """Save a blank in place of each figure, which is put together all the same.

    Most of the time of a page is their painting, and one or two tests of each kind of page wait.
    """
    with patch.object(Figure, "savefig", _save_blank):
        yield


def _save_blank(figure: Figure, to: str | Path | IO[bytes], **options: Any) -> None:
    content = _blank(options.get("format", "png"))
    if isinstance(to, str | Path):
        Path(to).write_bytes(content)
    else:
        to.write(content)


@cache
def _blank(format: str) -> bytes:
    sink = io.BytesIO()
    _save(Figure(figsize=(0.1, 0.1)), sink, format=format)
    return sink.getvalue()
