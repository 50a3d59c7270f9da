"""Kinds of DRAM: a file each, those that ship in `drams/`, and users' own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from swatsim.errors import ConfigError, unknown
from swatsim.simulator.sourced import Access, Entry, Source, content_of, entries_of
from swatsim.validation import Whole

FOLDER = Path(__file__).parent / "drams"

#: Largest bandwidth, of all channels.
MAX_MB_PER_S = 10**8
MAX_LATENCY_NS = 10**6


class Bandwidth(Entry):
    """What one channel carries, in MB/s."""

    mb_per_s: Annotated[Whole, Field(ge=1, le=MAX_MB_PER_S)]
    source: Source


class Latency(Entry):
    """From a request to its first word: activate, read and burst of a row that is closed, in ns."""

    ns: Annotated[Whole, Field(ge=0, le=MAX_LATENCY_NS)]
    source: Source


class Dram(Entry):
    """A kind of DRAM.

    Parameters
    ----------
    name : str
        How it is chosen: a name of those that ship, or the path of its file.
    bandwidth : Bandwidth
        Of one channel.
    latency : Latency
    energy : mapping of str to Access
        By node, as the energy tables call theirs: "45nm".

    Raises
    ------
    ConfigError
        If an entry is unknown, missing or not allowed.
    """

    name: Source
    bandwidth: Bandwidth
    latency: Latency
    energy: Mapping[str, Access] = {}

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what errors call it."""
        return f"DRAM {data.get('name', '?')!r}"

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash((self.name, self.bandwidth, self.latency))

    @property
    def ideal(self) -> bool:
        """Whether transfers take neither time nor energy."""
        return self == IDEAL

    def pj_of_bit(self, node: str) -> float | None:
        """Return the energy of a bit at a node, in pJ; None if it is not known."""
        if self.ideal:
            return 0.0
        entry = self.energy.get(node)
        return None if entry is None else float(entry.pj) / int(entry.bits)


#: Not a file: there is no such device, so nothing of it has a source or a number.
IDEAL = Dram(
    name="ideal",
    bandwidth=Bandwidth(mb_per_s=MAX_MB_PER_S, source="none: bytes take no time"),
    latency=Latency(ns=0, source="none"),
)


def shipped() -> list[str]:
    """Return the names of the kinds that there are."""
    return sorted([IDEAL.name, *(path.stem for path in FOLDER.glob("*.toml"))])


def dram(kind: str | os.PathLike[str] | Dram) -> Dram:
    """Return a kind of DRAM as it is, or read it: a name of those that ship, or a TOML file.

    Raises
    ------
    ConfigError
        If there is none of that name, or its file can't be read or is not allowed.
    """
    if isinstance(kind, Dram):
        return kind
    name = os.fspath(kind)
    if name == IDEAL.name:
        return IDEAL
    if not name.endswith(".toml"):
        return _shipped(name)
    if not name.isprintable() or name != name.strip() or set(name) & set(",[]"):
        raise ConfigError(
            f"DRAM {name!r}: a path with a comma, a bracket or a space at an end can't stand in a "
            "machine's name: rename it, or give a path relative to where you are"
        )
    return _read(Path(name), name)


def words() -> str:
    """Return what `dram` takes, for people."""
    return f"{', '.join(shipped())}, or a path that ends in .toml"


def _shipped(name: str) -> Dram:
    if name not in shipped():
        raise ConfigError(f"{unknown('DRAM', name, shipped())}, or a path that ends in .toml")
    return _read(FOLDER / f"{name}.toml", name)


def _read(path: Path, name: str) -> Dram:
    return _parsed(content_of(path, "DRAM"), name)


@lru_cache(maxsize=64)
def _parsed(content: bytes, name: str) -> Dram:
    """Return a device of its file's content; a sweep asks for the same one over and over."""
    entries = entries_of(content, name)
    if "name" in entries:
        raise ConfigError(
            f"DRAM {name!r}: name is not allowed: it is called as its file is; leave it out"
        )
    try:
        return Dram(name=name, **entries)
    except ConfigError as error:
        words, subject = str(error), f"DRAM {name!r}"
        raise ConfigError(words if words.startswith(subject) else f"{subject}, {words}") from None
