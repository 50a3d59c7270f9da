"""How people read a column: its words, its unit and how many digits, in one place.

Columns hold pJ, bytes and shares of one. A page's headings, a terminal's cells and a plot's axes
take their words, unit and scale from here; files have the columns as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, isnan
from typing import Any, NamedTuple

from swatsim.columns import COLUMNS
from swatsim.counters import BUCKETS, ENERGY_PARTS
from swatsim.reports.span import tenths
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER

RATIO, SHARE = "x", "%"
#: Before the name of a column of the baseline's.
BASELINE = "baseline_"


class Label(NamedTuple):
    """A column for people.

    Parameters
    ----------
    words : str
        What it is, without whose: a table's title says of what its rows are.
    unit : str
        That of what is shown; empty: none.
    scale : float
        What is shown, by what the column holds.
    """

    words: str
    unit: str = ""
    scale: float = 1.0

    @property
    def heading(self) -> str:
        """The words and the unit: "time, ms"; a ratio's "x" stands behind its numbers alone."""
        return f"{self.words}, {self.unit}" if self.unit not in ("", RATIO) else self.words


#: What a zero says in a column where it is no amount.
OF_NOTHING = {"dram_mb_per_s": "endless", "clock_mhz": "none"}


def _energy(words: str) -> Label:
    return Label(words, "mJ", 1e-9)


def _share(words: str) -> Label:
    return Label(words, SHARE, 100)


#: What has words or a unit of its own for people; of other columns these follow from the name.
LABELS: Mapping[str, Label] = {
    "time_ms": Label("time", "ms"),
    "ms_per_image": Label("time an image", "ms"),
    "images_per_s": Label("throughput", "images/s"),
    "energy_pj": _energy("energy without leakage"),
    "energy_pj_per_image": _energy("energy an image, without leakage"),
    "leakage_pj": _energy("leakage"),
    "energy_with_leakage_pj": _energy("energy with leakage"),
    "power_dynamic_w": Label("power without leakage", "W"),
    "power_w": Label("power with leakage", "W"),
    "leakage_mw": Label("leakage", "W", 1e-3),
    "area_mm2": Label("area", "mm2"),
    **{
        f"tops{by}_{name}": Label(of, f"TOPS{unit}")
        for by, unit in (("", ""), ("_per_w", "/W"), ("_per_mm2", "/mm2"))
        for name, of in {"dense": "dense step", "effectual": "effectual"}.items()
    },
    "speed_up": Label("speed-up", RATIO),
    "energy_efficiency": Label("energy efficiency", RATIO),
    "own_speed_up": Label("own speed-up", RATIO),
    "dram_bytes": Label("DRAM", "MB", 1e-6),
    "dram_mb_per_s": Label("DRAM", "GB/s", 1e-3),
    "clock_mhz": Label("clock", "MHz"),
    "buffer_kib": Label("buffers", "KiB"),
    "dtype": Label("value type"),
    "of_ideal": _share("of the ideal"),
    "of_ideal_compute": _share("of the ideal, compute cycles"),
    "utilisation": _share("utilisation"),
    "elsewhere": _share("elsewhere"),
    "policy": _share("the method itself"),
    "zero_share": _share("MACs with a zero"),
    "share": _share("share of the multiplications"),
    "sparsity": _share("sparsity"),
    "reduction": _share("reduction"),
    "macs_share": _share("share of the MACs"),
    "obeying_share": _share("obey"),
    "share_of_time": _share("share of the time"),
    "no_dram_wait": Label("as fast, were DRAM never waited for", RATIO),
    "ideal_pes": Label("as fast at best, with PEs that lose no cycle, on this DRAM", RATIO),
    "ideal": Label("as fast at best, with both", RATIO),
    "bound": Label("1 / (1 - sparsity)", RATIO),
    **{name: Label(f"lane-cycles: {look.label}") for name, look in BUCKETS.items()},
    **{name: _energy(f"energy: {look.label}") for name, look in ENERGY_PARTS.items()},
    "macs_per_image": Label("MACs an image, dense"),
    "macs_dense": Label("MACs, dense"),
    "macs_effectual": Label("MACs, effectual"),
}
#: What the end of a name says, of a column that is one of the above in part, or of one side.
_ENDS = {
    "_layers": "layers alone",
    "_compute": "compute cycles",
    "_dense_operands": "no zero in the operands",
    "_zeros": "by zeros",
    **{f"_{op}": op for op in (*OPS, OTHER)},
}
#: Units of the schema, in which nobody reads them, and what people do.
_UNITS = {"pJ": ("mJ", 1e-9), "bytes": ("MB", 1e-6), "1": (SHARE, 100.0)}
_OF_SCHEMA = {column.name: column for column in COLUMNS}


def labelled(column: str) -> Label:
    """Return how people read a column; of one that nobody declared, its name in words."""
    if column in LABELS:
        return LABELS[column]
    if column.startswith(BASELINE):
        of = labelled(column.removeprefix(BASELINE))
        return of._replace(words=f"{of.words} of the baseline")
    plain = column.replace("_", " ")
    if column in _OF_SCHEMA:
        return Label(plain, *_UNITS.get(_OF_SCHEMA[column].unit, ()))
    for end, words in _ENDS.items():
        part = column.removesuffix(end)
        if part != column and (whole := labelled(part)).unit:
            return whole._replace(words=f"{whole.words}, {words}")
    return Label(plain)


def label(column: str, of: str = "") -> str:
    """Return a column's heading: its words, of what it is if that is said, and its unit."""
    found = labelled(column)
    return (found._replace(words=f"{found.words} of {of}") if of else found).heading


def alike(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> tuple[list[str], str]:
    """Return the columns in which rows differ; of the others, in a sentence, what all have.

    A value that is not known, or empty, is in no sentence.
    """
    names = list(columns)
    same = [name for name in names if len({str(row.get(name)) for row in rows}) == 1]
    words = [
        f"{label(name)}: {cell(name, value)}"
        for name in same
        if (value := rows[0].get(name)) is not None and value == value and value != ""
    ]
    sentence = f"Alike in all: {'; '.join(words)}." if words else ""
    return [name for name in names if name not in same], sentence


def scaled(column: str, value: float) -> float:
    """Return a column's value in the unit that its heading names."""
    return value * labelled(column).scale


def cell(column: str, value: Any) -> str:
    """Return a value under its column's heading: without the unit; a dash where there is none."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not value and column in OF_NOTHING:
        return OF_NOTHING[column]
    found = labelled(column)
    if found.unit == RATIO:
        return times(value)
    if not isfinite(value):
        return "-"
    if found.unit == SHARE:
        return tenths(value).removesuffix(" %")
    if isinstance(value, int) and found.scale == 1:
        return f"{value:,}"
    return trimmed(value * found.scale)


def shown(column: str, value: Any) -> str:
    """Return a value with its unit, as it stands in a sentence or a tile: "0.321 ms"."""
    text, unit = cell(column, value), labelled(column).unit
    wordy = text in ("-", "no cycles", *OF_NOTHING.values())
    return text if unit in ("", RATIO) or wordy else f"{text} {unit}"


def times(value: float) -> str:
    """Return a speed-up: a dash where neither side takes a cycle, or it is not known."""
    if isnan(value):
        return "-"
    return f"{value:.2f}x" if isfinite(value) else "no cycles"


def trimmed(value: float) -> str:
    """Return a number with three digits, without zeros at its end; a larger one whole."""
    rounded = float(f"{value:.3g}")
    return f"{value:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
