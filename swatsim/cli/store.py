"""``swatsim store``: what is kept of what was computed."""

from __future__ import annotations

import re

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.show import console
from swatsim.errors import ConfigError
from swatsim.store import Store, open_store
from swatsim.store.opened import STORE_VARIABLE

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@click.command()
@click.argument("where", metavar="[FOLDER_OR_URL]", required=False)
@click.option("--limit", metavar="SIZE", help="Keep so much at most from now on: 512MiB, 4GiB.")
@click.option("--clear", is_flag=True, help="Remove all of it.")
@JSON
def store(where: str | None, limit: str | None, clear: bool, as_json: bool) -> None:
    """Show what is kept of what was computed, bound it, or clear it.

    What a machine counts of an op is kept, and found by whoever runs the same masks on the same
    machine again: under another memory, clock, value type, energy or name, in another sweep, in
    another process. So are whole steps and plots, for whoever runs just the same again. No figure
    depends on it; what is damaged is counted anew.

    FOLDER_OR_URL is by default the store that all verbs use: the environment variable
    SWATSIM_STORE, a folder or a URL (empty: none), or a folder in your cache.
    """
    chosen = open_store(True if where is None else where)
    if chosen is None:
        raise ConfigError(f"there is no store: set {STORE_VARIABLE} to a folder, or name one")
    try:
        _change(chosen, limit, clear)
        _print(chosen, as_json)
    except OSError as error:
        message = f"the store {chosen.place}: {error.strerror or error}"
        raise ConfigError(message, of_argument=False) from None


def _change(chosen: Store, limit: str | None, clear: bool) -> None:
    if limit is not None:  # first: one that is refused has cleared nothing
        chosen.set_limit(_bytes(limit))
    if clear:
        chosen.clear()


def _bytes(size: str) -> int:
    """Return the bytes of a size in words."""
    found = re.fullmatch(r"(\d{1,15}) *(\w*)", size.strip())
    unit = found and next((it for it in _UNITS if it.lower() == found[2].lower()), None)
    if found is None or unit is None:
        units = ", ".join(filter(None, _UNITS))
        raise ConfigError(f"--limit {size}: expected a whole number with a unit, {units}")
    return int(found[1]) * _UNITS[unit]


def _print(chosen: Store, json: bool) -> None:
    size = chosen.size()
    if json:
        as_json.write("store", {"store": chosen.place, **size._asdict(), "limit": chosen.limit})
        return
    console().print(
        f"{chosen.place}: {size.entries} entries, {_words(size.bytes)} of {_words(chosen.limit)} "
        "at most"
    )


def _words(size: int) -> str:
    unit = next(it for it in reversed(_UNITS) if size >= _UNITS[it] or not it)
    return f"{size / _UNITS[unit]:.3g} {unit or 'bytes'}"
