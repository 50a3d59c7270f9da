"""JSON as a trace holds it: what it can't hold is refused before it is written, and when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

#: A manifest is nested five deep; a policy's parameters may add some.
MAX_DEPTH = 50
#: So that what a run states may lie deeper in the manifest: in the list of runs that went on.
MAX_STATED_DEPTH = 40
#: Python reads no whole number of more than 4300 digits; a float has no more bits than these.
MAX_BITS = 1024


def plain(value: Any, left: int = MAX_STATED_DEPTH) -> Any:
    """Return a copy that JSON holds and reads back as it is: NumPy's numbers become Python's.

    NaN and infinities are left: JSON as Python writes it has them.

    Parameters
    ----------
    value : object
        Mappings, lists, tuples, strings, numbers, bools, None.
    left : int
        How deep it may be nested.

    Raises
    ------
    ValueError
        If JSON can't hold it, or it is too deep.
    """
    if left == 0:
        raise ValueError("it is nested too deep")
    if isinstance(value, Mapping):
        return _plain_object(value, left)
    if isinstance(value, list | tuple):
        return [plain(item, left - 1) for item in value]
    return _plain_scalar(value)


def _plain_object(value: Mapping[Any, Any], left: int) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else json.dumps(_plain_scalar(key))
        if name in copied:
            raise ValueError(f"it has two keys {name!r}")
        copied[str.__str__(name)] = plain(item, left - 1)
    return copied


def _plain_scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | np.integer):
        if (number := int(value)).bit_length() > MAX_BITS:
            raise ValueError(f"a number of {number.bit_length()} bits is more than {MAX_BITS}")
        return number
    if isinstance(value, float | np.floating):
        return float(value)
    raise ValueError(f"Object of type {type(value).__name__} is not JSON serializable")


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ValueError
        If it is none, says something twice, or is nested too deep.
    RecursionError
        If it is nested deeper than can be read at all.
    """
    value = json.loads(text, object_pairs_hook=_each_once)
    _check_depth(value, MAX_DEPTH)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it says {twice!r} twice")
    return entries


def _check_depth(value: Any, left: int) -> None:
    """Refuse JSON so deep that writing it again would fail."""
    if left == 0:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if left == 1 or isinstance(item, dict | list):  # most are words and numbers
                _check_depth(item, left - 1)


def canonical(value: Any) -> str:
    """Return JSON in the one form that digests are of: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(text: str) -> str:
    """Return the digest of a text (16 hex digits)."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
