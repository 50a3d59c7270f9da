"""How long a run of a verb will take, said before it begins where that is more than seconds."""

from __future__ import annotations

from collections.abc import Callable

import click

from swatsim.simulator.abreast import Work
from swatsim.simulator.ahead import Ahead, ahead
from swatsim.store import Store, Where


def announcing(store: Where) -> Callable[[Work], None]:
    """Return what says how long some work will take, on standard error.

    `store` is that of the work.
    """

    def announce(work: Work) -> None:
        found = ahead(work, store if isinstance(store, Store) else None)
        if found is not None:
            click.echo(words(work, found), err=True)

    return announce


def words(work: Work, found: Ahead) -> str:
    """Return what is said of work that will take so long."""
    from swatsim.sweeps.forecast import Forecast  # what sweeps are, which short runs do without

    told = Forecast([found.seconds], work.threads, found.stored, exact=False, on="thread")
    return ", ".join(filter(None, (f"{len(work)} ops", told.kept, told.words)))
