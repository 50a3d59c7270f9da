"""What a table of results may hold: columns, and how they are related."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

#: The largest whole number of a cell, and of what a column that sums adds up to.
LARGEST = 2**63 - 1

Adds = Literal["key", "shape", "sum", "mean", "same", "most", "listed", "step", "cut"]


def led_by(first: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return names of columns with some before all others, as far as they are there."""
    there = list(names)
    leading = [name for name in first if name in there]
    return [*leading, *(name for name in there if name not in leading)]


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    name : str
    dtype : {"string", "int64", "float64"}
    unit : str
    meaning : str
    adds : {"key", "shape", "sum", "mean", "same", "most", "listed", "step", "cut"}
        How it behaves when rows are put together: part of the row's name; of the layer's shape;
        it sums; it is averaged; it is the same in all rows of a machine; of those of a machine the
        largest counts; what there is is listed;
        it is the same in all rows of a step, and sums over steps; it says how the op of this row is
        cut into blocks.
    optional : bool
        Whether a cell may be empty.
    values : tuple of str
        All that a string may be; anything, if there are none.
    least : int
        The smallest number that is allowed.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    adds: Adds
    optional: bool = False
    values: tuple[str, ...] = ()
    least: int = 0

    @property
    def most(self) -> float:
        """The largest: what is averaged is a share."""
        return 1.0 if self.adds == "mean" else float("inf")


@dataclass(frozen=True)
class Form:
    """What a table is.

    Parameters
    ----------
    version : int
    columns : tuple of Column
        No two rows have the same values in all whose `adds` is "key".
    sums : mapping of str to tuple of str
        A column, and those that add up to it.
    products : mapping of str to tuple of str
        A column, and those whose product it is.
    at_most : mapping of str to str
        A column, and another that is nowhere below it.
    without_sizes : tuple of (str, str), optional
        A column, and its value in rows whose sizes, the numbers whose `adds` is "shape", are 0. In
        others none is; one with a `least` of its own keeps to that.
    upgrades : mapping of int to callable of pyarrow.Table to pyarrow.Table
        An older version that is still read, and what makes a table of it one of the next.
    """

    version: int
    columns: tuple[Column, ...]
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    at_most: Mapping[str, str] = field(default_factory=dict)
    without_sizes: tuple[str, str] | None = None
    upgrades: Mapping[int, Callable[[pa.Table], pa.Table]] = field(default_factory=dict)
