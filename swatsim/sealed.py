"""JSON with a digest of itself: what is read back is what was written, or it is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from swatsim.errors import ResultsError

#: The entry that holds the digest of all others.
DIGEST = "digest"


def fingerprint(value: Any, size: int = 8) -> str:
    """Return the digest of a JSON value (two hex digits a byte of `size`), whatever its order."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def seal(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return an object as JSON, with its digest as an entry; without `indent` in one line."""
    sealed = {**content, DIGEST: fingerprint(content, 16)}
    return (json.dumps(sealed, indent=indent) + "\n").encode()


def unseal(text: bytes) -> dict[str, Any]:
    """Return the object that `seal` wrote, without its digest.

    Raises
    ------
    ResultsError
        If it is no such object, or was changed after it was written.
    """
    try:
        entries = json.loads(text)
        written = entries.pop(DIGEST)
        if fingerprint(entries, 16) == written:
            return dict(entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ResultsError("it is damaged, or was not written by this version") from None
    raise ResultsError("it was changed after it was written")
