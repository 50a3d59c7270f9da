"""Figures that come from somewhere, in TOML files: what energy tables and DRAMs are made of."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from swatsim.errors import ConfigError, SwatsimError, shown
from swatsim.files import read_bounded
from swatsim.validation import FrozenRecord, Whole

#: A table takes some kilobytes.
MAX_BYTES = 2**20
#: No event takes more: a second of a megawatt.
MAX_PJ = 1e18


def _number(value: Any) -> Any:
    """Refuse what only looks like a number: a text, a bool."""
    if isinstance(value, str | bytes | bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Energy = Annotated[Number, Field(ge=0, le=MAX_PJ)]
Bits = Annotated[Whole, Field(ge=1, le=2**20)]
Source = Annotated[str, Field(min_length=1)]


class Entry(FrozenRecord):
    """Base of what stands in such a file."""

    error_type: ClassVar[type[SwatsimError]] = ConfigError

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the entry, as errors show it."""
        return f"entry {shown(dict(data), 90)}"


class Access(Entry):
    """An access of so many bits, in pJ."""

    pj: Energy
    bits: Bits
    source: Source


def check_sizes(sizes: Sequence[float], name: str, values: Sequence[float | None]) -> None:
    """Refuse KiB of memories that don't ascend, and a value that some of them have and others not.

    Raises
    ------
    ValueError
        For a validator, which makes a refusal of it.
    """
    if sorted(set(sizes)) != list(sizes):
        raise ValueError(f"sizes of {list(sizes)} KiB must ascend, each once")
    lacking = [kib for kib, value in zip(sizes, values, strict=True) if value is None]
    if lacking and len(lacking) < len(sizes):
        raise ValueError(
            f"its size of {lacking[0]:g} KiB has no {name}, and others have: give `{name}` of "
            "each size, or of none"
        )


def content_of(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the content of such a file; `what` says what it should be: "energy table".

    Raises
    ------
    ConfigError
        If it can't be read, or is larger than a mebibyte.
    """
    try:
        return read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"can't read the {what} {path}: {error.strerror}") from None


def entries_of(content: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the entries of such a file, unchecked.

    Raises
    ------
    ConfigError
        If it is no TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
