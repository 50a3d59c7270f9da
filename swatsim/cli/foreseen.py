"""How long a run of a verb will take, said before it begins where that is more than seconds."""

from __future__ import annotations

from collections.abc import Callable

import click

from swatsim.simulator.abreast import Work
from swatsim.store import Store, Where


def announcing(store: Where) -> Callable[[Work], None]:
    """Return what says how long some work will take, on standard error.

    `store` is that of the work.
    """

    def announce(work: Work) -> None:
        if not len(work):
            return
        from swatsim.sweeps.ahead import ahead  # not where nothing is left to do

        found = ahead(work, store if isinstance(store, Store) else None)
        if found is not None:
            parts = filter(None, (f"{len(work)} ops", found.kept, found.words))
            click.echo(", ".join(parts), err=True)

    return announce
