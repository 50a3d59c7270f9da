"""Types of values: their bits, what a run's types are called here, and which is the wider.

And the bits of an index beside a value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from swatsim.errors import WorkloadError

#: Value type -> bits that it is stored in; the later one needs the wider multiplier: int8 none for
#: an exponent, bf16 a significand of 8 bits, fp16 of 11, tf32 too, which is stored as fp32 is.
DTYPES: Mapping[str, int] = {
    "int8": 8,
    "fp8_e5m2": 8,
    "fp8_e4m3": 8,
    "bf16": 16,
    "fp16": 16,
    "tf32": 32,
    "fp32": 32,
    "fp64": 64,
}

#: What torch calls them, as traces do.
_OF_TORCH: Mapping[str, str] = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8_e4m3",
    "float8_e4m3fnuz": "fp8_e4m3",
    "float8_e5m2": "fp8_e5m2",
    "float8_e5m2fnuz": "fp8_e5m2",
    "int8": "int8",
    "uint8": "int8",
    "qint8": "int8",
    "quint8": "int8",
}


def of_recorded(name: str | None) -> str | None:
    """Return the value type that torch calls `name`; None if it is unknown, or none of `DTYPES`."""
    return None if name is None else _OF_TORCH.get(name)


def widest(types: Iterable[str | None]) -> str | None:
    """Return the widest of some value types, those that are known; None if none is."""
    known = [one for one in types if one is not None]
    return max(known, key=list(DTYPES).index, default=None)


def narrowest(types: Iterable[str]) -> str:
    """Return the narrowest of some value types."""
    return min(types, key=list(DTYPES).index)


def stand_in(dtype: str, known: Collection[str]) -> str | None:
    """Return which type of those that are known to take for another: itself, or the next wider.

    Where there is no wider one it is the widest there is; None: there is none at all.
    """
    order = list(DTYPES)
    there = [one for one in order if one in known]
    wider = [one for one in there if order.index(one) >= order.index(dtype)]
    return next(iter(wider), there[-1] if there else None)


def fewest_bits(largest: int) -> int:
    """Return the width of an index or a pointer: the fewest of 8, 16, 32, 64 bits that hold it.

    Raises
    ------
    WorkloadError
        If none of them does.
    """
    for bits in (8, 16, 32, 64):
        if largest < 2**bits:
            return bits
    raise WorkloadError(
        f"an index up to {largest} is needed, and has at most 64 bits: choose a smaller batch, or "
        "a format without indices"
    )
