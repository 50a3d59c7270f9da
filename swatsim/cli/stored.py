"""The store of counts for a verb that simulates, and how many counts came from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from swatsim.store import Looked, Where, open_store


@contextmanager
def looking(wanted: bool) -> Iterator[Where]:
    """Yield what a function takes for its store; when it is done, say what came from it."""
    store = open_store(wanted)
    yield False if store is None else store
    if store is not None:
        show(store.looked)


def show(looked: Looked) -> None:
    """Print how many counts came from the store, if any was looked for, on standard error."""
    if looked.counts or looked.steps:
        click.echo(looked.words, err=True)
