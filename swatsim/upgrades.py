"""How results of an older schema version become those of the next.

A file's digest is checked over what was written, then it goes through these, one version at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

Upgrade = Callable[["pa.Table"], "pa.Table"]


def _with_variants(table: pa.Table) -> pa.Table:
    """Return the table with "NAME dense" in two columns: version 3 had the variant in the name."""
    import pyarrow as pa

    pairs = list(zip(table["role"].to_pylist(), table["machine"].to_pylist(), strict=True))
    names = {machine for role, machine in pairs if role == "machine"}
    labels = [
        ("", machine) if role == "machine" else _split(machine, names) for role, machine in pairs
    ]
    place = table.column_names.index("machine")
    machines = pa.array([machine for _, machine in labels], pa.string())
    variants = pa.array([variant for variant, _ in labels], pa.string())
    table = table.set_column(place, table.schema.field("machine"), machines)
    return table.add_column(place + 1, pa.field("variant", pa.string(), nullable=False), variants)


def _split(label: str, names: Collection[str]) -> tuple[str, str]:
    """Return the variant and the machine of a label; another machine is no variant of one."""
    end = len(label)
    while (end := label.rfind(" dense", 0, end)) >= 0:  # whatever the number of names
        name, variant = label[:end], label[end + 1 :]
        if name in names and f"{variant}, ".startswith("dense, "):
            return variant, name
    return "", label


def _without_shares(table: pa.Table) -> pa.Table:
    """Return the table with two empty columns: version 4 did not say what a step multiplied."""
    return _with_empty(table, ("macs_held", "macs_seen"))


def _with_empty(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the table with columns of numbers that are not known."""
    import pyarrow as pa

    empty = pa.nulls(table.num_rows, pa.float64())
    for name in names:
        table = table.append_column(pa.field(name, pa.float64()), empty)
    return table


#: What version 6 counts that no machine of version 5 had.
_NEW_IN_6 = (
    *("lane_cycles_skew", "lane_cycles_prune", "dram_bytes_prune", "sums_written", "sums_read"),
    *("pattern_groups_a", "pattern_groups_b", "pattern_obeying_a", "pattern_obeying_b"),
)


def _without_patterns(table: pa.Table) -> pa.Table:
    """Return the table with columns of zeros: version 5 had no systolic arrays and no n:m."""
    import pyarrow as pa

    none = pa.array([0] * table.num_rows, pa.int64())
    for name in _NEW_IN_6:
        table = table.append_column(pa.field(name, pa.int64(), nullable=False), none)
    empty = pa.array([""] * table.num_rows, pa.string())
    return table.append_column(pa.field("compressed", pa.string(), nullable=False), empty)


def _of_layers(table: pa.Table) -> pa.Table:
    """Return the table with columns of what multiplies no matrices: version 6 had no such rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty, zeros = ([of] * table.num_rows for of in ("", 0))
    for name in ("function", "phase"):
        field = pa.field(name, pa.string(), nullable=False)
        table = table.append_column(field, pa.array(empty, pa.string()))
    for name in ("lane_cycles_vector", "vector_elements", "dram_bytes_vector"):
        field = pa.field(name, pa.int64(), nullable=False)
        table = table.append_column(field, pa.array(zeros, pa.int64()))
    nothing = pa.nulls(table.num_rows, pa.float64())
    table = table.append_column(pa.field("density_output", pa.float64()), nothing)
    energy = pc.if_else(pc.is_null(table["energy_pj"]), nothing, 0.0)
    return table.append_column(pa.field("energy_pj_vector", pa.float64()), energy)


def _without_area(table: pa.Table) -> pa.Table:
    """Return the table with two empty columns: version 7 did not say how large a machine is."""
    return _with_empty(table, ("area_mm2", "leakage_mw"))


#: Version -> what makes a table of it one of the next.
UPGRADES: Mapping[int, Upgrade] = {
    3: _with_variants,
    4: _without_shares,
    5: _without_patterns,
    6: _of_layers,
    7: _without_area,
}
