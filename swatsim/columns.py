"""The schema of results: each column's name, type, unit and meaning, and how it adds up.

What is counted of an op is declared in `swatsim.counters`, and is a column by that; the others
are declared here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from swatsim.counters import (
    BUCKETS,
    ENERGY_PARTS,
    Counters,
    Energies,
    MemoryCounters,
    VectorCounters,
)
from swatsim.counts import ENERGY, LANE_CYCLES, Declared, declared
from swatsim.form import Column, Form
from swatsim.upgrades import UPGRADES
from swatsim.workload.layer import KINDS, OPERANDS, OPS
from swatsim.workload.phases import OTHER, PHASES

#: It moves with any change of the columns but of a meaning's words: CONTRIBUTING.md has the rule.
SCHEMA_VERSION = 8
DTYPES = {int: "int64", float: "float64", str: "string"}


class Role(StrEnum):
    """What a row's machine is in a comparison."""

    MACHINE = "machine"
    BASELINE = "baseline"
    ALTERNATIVE = "alternative"

    @property
    def meaning(self) -> str:
        """What the role says, in words."""
        match self:
            case Role.MACHINE:
                return "what was asked for"
            case Role.BASELINE:
                return "what it is compared with"
            case Role.ALTERNATIVE:
                return "another baseline"
            case _:
                assert_never(self)


#: The variant of a machine in which nothing is skipped.
DENSE = "dense"


def label(machine: str, variant: str) -> str:
    """Return what people call a machine, or a variant of it: "tensordash dense"."""
    return f"{machine} {variant}" if variant else machine


def _key(
    name: str, meaning: str, dtype: str = "string", unit: str = "-", values: tuple[str, ...] = ()
) -> Column:
    return Column(name, dtype, unit, meaning, "key", values=values)


def _shape(name: str, meaning: str, unit: str = "elements") -> Column:
    return Column(name, "int64", unit, f"{meaning}; 0: of {OTHER}", "shape")


def _sum(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "int64", unit, meaning, "sum")


def _column(field: Declared) -> Column:
    """Return the column that a counter declares; an energy may be unknown."""
    unit, what = field.what.unit, field.what
    optional = field.kind is float
    return Column(field.column, DTYPES[field.kind], unit, what.meaning, what.adds, optional)


def _density(operand: str) -> Column:
    meaning = f"non-zero share of {operand}; empty: not read"
    return Column(f"density_{operand}", "float64", "1", meaning, "mean", optional=True)


_COUNTED = {
    field.column: _column(field)
    for counted in (MemoryCounters, Counters, VectorCounters, Energies)
    for field in declared(counted)
}
#: Of what is counted, the columns that stand before the others.
_FIRST = ("cycles", "cycles_compute", "pes", "lanes", *BUCKETS)
_REST = tuple(column for name, column in _COUNTED.items() if name not in _FIRST)

COLUMNS: tuple[Column, ...] = (
    _key("trace", "name of the trace's directory"),
    _key("trace_id", "fingerprint of its manifest and masks; rows of different ids don't compare"),
    _key("step", "training step, counted from 0", "int64", "steps"),
    _key("layer", f"name of the layer; of {OTHER} the module's, model: in none"),
    _key(
        "op",
        "fprop, dgrad (input gradient) or wgrad (weight gradient); other: what multiplies no "
        "matrices",
        values=(*OPS, OTHER),
    ),
    _key("function", f"of {OTHER}: the framework's function, or several of a chain; else empty"),
    _key(
        "phase",
        f"of {OTHER}: when it ran, or policy: done for a sparse training method itself; else empty",
        values=("", *PHASES),
    ),
    _key("machine", "preset's name and what was changed in it"),
    _key("variant", "what else it skips, or does not: dense, for example; empty: as it is"),
    _key(
        "role",
        "; ".join(f"{role}: {role.meaning}" for role in Role),
        values=tuple(role.value for role in Role),
    ),
    Column(
        "kind",
        "string",
        "-",
        f"{', '.join(KINDS)} or {OTHER}",
        "shape",
        values=(*KINDS, OTHER),
    ),
    Column(
        "samples",
        "int64",
        "images",
        "images of the batch that the masks hold, N, and that the work is of",
        "shape",
        least=1,
    ),
    _shape("C", "input channels"),
    _shape("K", "filters"),
    _shape("H", "input height"),
    _shape("W", "input width"),
    _shape("R", "kernel height"),
    _shape("S", "kernel width"),
    _shape("P", "output height"),
    _shape("Q", "output width"),
    _shape("stride_h", "stride along H"),
    _shape("stride_w", "stride along W"),
    _shape("groups", "groups of channels", "groups"),
    *map(_density, OPERANDS),
    Column(
        "density_output",
        "float64",
        "1",
        "share of what the op makes that somebody wants; empty: all",
        "mean",
        optional=True,
    ),
    _sum("macs_dense", "MACs", "multiply-accumulates with dense operands (convention: exact)"),
    _sum("macs_unpadded", "MACs", "of them those without a factor in padding"),
    _sum(
        "macs_effectual",
        "MACs",
        "multiply-accumulates whose operands are both non-zero, for outputs that somebody wants",
    ),
    Column(
        "macs_held",
        "float64",
        "MACs",
        "multiply-accumulates of the whole batch, as they were counted in the run, that are this "
        "op's; empty: not known",
        "sum",
        optional=True,
    ),
    Column(
        "macs_seen",
        "float64",
        "MACs",
        "of the whole batch all that the step multiplied, in the trace or not; empty: not known",
        "step",
        optional=True,
    ),
    _COUNTED["cycles"],
    _COUNTED["cycles_compute"],
    Column(
        "cycles_dense_operands",
        "float64",
        "cycles",
        "cycles, were no value of the operands zero; empty: the buffers hold no block of such",
        "sum",
        optional=True,
    ),
    _sum(
        "cycles_compute_dense_operands",
        "cycles",
        "cycles_compute, were no value of the operands zero",
    ),
    _COUNTED["pes"],
    _COUNTED["lanes"],
    Column("dtype", "string", "-", "type of a value; empty: the machine does not say", "listed"),
    Column("clock_mhz", "int64", "MHz", "clock; 0: the machine has none", "same"),
    Column("dram_mb_per_s", "int64", "MB/s", "bandwidth of the DRAM; 0: no end to it", "same"),
    Column(
        "area_mm2",
        "float64",
        "mm2",
        "multipliers of the type of the row's values, a vector unit of the widest type that it "
        "works in, and memories, and nothing else; "
        "empty: not known of this machine",
        "most",
        optional=True,
    ),
    Column(
        "leakage_mw",
        "float64",
        "mW",
        "what that leaks, which is in no energy here; empty: not known of this machine",
        "most",
        optional=True,
    ),
    _sum(LANE_CYCLES, "lane-cycles", "cycles x pes x lanes: the sum of the following"),
    *(_COUNTED[name] for name in BUCKETS),
    *_REST,
    Column(ENERGY, "float64", "pJ", "all parts; empty: not known of this machine", "sum", True),
)


#: What a table of results is, wherever it comes from.
FORM = Form(
    SCHEMA_VERSION,
    COLUMNS,
    sums={LANE_CYCLES: tuple(BUCKETS), ENERGY: tuple(ENERGY_PARTS)},
    products={LANE_CYCLES: ("cycles", "pes", "lanes")},
    at_most={
        "macs_effectual": "macs_unpadded",
        "macs_unpadded": "macs_dense",
        "cycles_compute": "cycles",
        "macs_held": "macs_seen",
    },
    without_sizes=("kind", OTHER),
    upgrades=UPGRADES,
)
