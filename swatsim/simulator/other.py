"""What a step does beside multiplying matrices, as rows of results: the vector unit runs it.

`memory/README.md` has the rule, under "Everything else". Nothing here reads a mask: a machine and
its dense baseline take the same for the same work, unless their vector units differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from swatsim.columns import COLUMNS
from swatsim.counters import ENERGY_PARTS
from swatsim.counts import ENERGY, LANE_CYCLES
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.mechanism import MachineConfig
from swatsim.tracefile import OtherWork, Step
from swatsim.workload.flops import macs_dense
from swatsim.workload.phases import OTHER
from swatsim.workload.value_types import DTYPES, of_recorded, widest

Row = dict[str, Any]

#: The layer of work that was done in no module.
MODEL = "model"
#: A chain's name is not longer; its end is left out.
LONGEST = 120

#: Of a row of such work all that is counted is nothing, but for what the vector unit counts.
_NOTHING: Mapping[str, Any] = {
    column.name: {"int64": 0, "float64": 0.0}.get(column.dtype, "")
    for column in COLUMNS
    if column.adds in ("sum", "cut", "listed")
} | dict.fromkeys((column.name for column in COLUMNS if column.adds == "mean"), None)
_SIZES = {c.name: 0 for c in COLUMNS if c.adds == "shape" and c.dtype == "int64" and not c.least}


class Share(NamedTuple):
    """How much of a step's batch a trace holds the masks of: so much of so much.

    Parameters
    ----------
    held, whole : int
        Multiply-accumulates of dense operands, or samples where all layers hold as many.
    """

    held: int
    whole: int


def share_of(step: Step) -> Share:
    """Return how much of its batch a step holds, by what its layers multiply."""
    layers = [(macs_dense(layer, 1), layer.name) for layer in step.layers]
    return Share(
        held=sum(macs * step.samples_of(name) for macs, name in layers) or 1,
        whole=sum(macs * step.batch_of(name) for macs, name in layers) or 1,
    )


class Cost(NamedTuple):
    """What some work takes on a machine.

    Parameters
    ----------
    elements : int
        Values that the vector unit works on.
    carried : int
        Bytes that DRAM carries.
    cycles_compute : int
        Cycles of the vector unit, were all bytes there.
    cycles : int
    """

    elements: int
    carried: int
    cycles_compute: int
    cycles: int


def cost(work: OtherWork, config: MachineConfig, share: Share) -> Cost:
    """Return what work takes, in values of the configuration's type.

    Parameters
    ----------
    work : OtherWork
        Of the whole batch.
    config : MachineConfig
        Its `dtype` is what values are stored as, whatever they were in the run.
    share : Share
        Work that grows with the batch is done for what is held of it only.
    """
    held, whole = share if work.grows_with_batch else Share(1, 1)
    recorded = DTYPES.get(of_recorded(work.dtype) or "", DTYPES[config.dtype])
    added = Cost(0, 0, 0, 0)
    for elements, carried in _parts(work, config):
        values = -(-elements * held // whole)
        size = -(-carried * held * DTYPES[config.dtype] // (whole * recorded))
        computed = -(-values // config.vector_width)
        one = Cost(values, size, computed, max(computed, _transfer(size, config)))
        added = Cost(*map(sum, zip(added, one, strict=True)))
    return Cost(*(work.times * value for value in added))


def _parts(work: OtherWork, config: MachineConfig) -> Iterator[tuple[int, int]]:
    """Yield elements and bytes of what runs by itself: each operation, or a chain as one."""
    known = config.memory != "none"
    if config.fusion == "elementwise":
        elements = sum(operation.elements for operation in work.operations)
        yield elements, (work.read + work.written) * known
        return
    for operation in work.operations:
        yield operation.elements, (operation.read + operation.written) * known


def _transfer(size: int, config: MachineConfig) -> int:
    """Return the cycles in which DRAM carries so many bytes."""
    bandwidth = config.finite_mb_per_s
    return -(-size * config.clock_mhz // bandwidth) if bandwidth else 0


class Group(NamedTuple):
    """Work that is one row: of one module, phase and chain of functions."""

    layer: str
    phase: str
    function: str
    works: tuple[OtherWork, ...]

    @property
    def columns(self) -> Row:
        """The columns that are the same on all machines, but for the trace's and the step's."""
        own = {"layer": self.layer, "op": OTHER, "kind": OTHER}
        return {**_NOTHING, **_SIZES, **own, "phase": self.phase, "function": self.function}


def groups_of(works: Iterable[OtherWork]) -> list[Group]:
    """Return a step's work by the rows that it becomes, in the order in which it was done."""
    found: dict[tuple[str, str, str], list[OtherWork]] = {}
    for work in works:
        key = work.module or MODEL, work.phase, _function(work)
        found.setdefault(key, []).append(work)
    return [Group(*key, tuple(of)) for key, of in found.items()]


def _function(work: OtherWork) -> str:
    """Return a chain's functions, each run of one counted, within `LONGEST`."""
    runs = groupby(operation.function for operation in work.operations)
    counted = ((name, sum(1 for _ in run)) for name, run in runs)
    name = "+".join(name if many == 1 else f"{many}*{name}" for name, many in counted)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 2]}.."


def charged(
    works: Sequence[OtherWork], configs: Sequence[MachineConfig], share: Share, table: EnergyTable
) -> Row:
    """Return the columns that a machine counts for a row of work.

    Parameters
    ----------
    works : sequence of OtherWork
    configs : sequence of MachineConfig
        The machine's, for each of them: values may be of different types.
    share : Share
    table : EnergyTable

    Raises
    ------
    ConfigError
        If the table lacks the energy of a product, or of the DRAM.
    """
    costs = [cost(work, config, share) for work, config in zip(works, configs, strict=True)]
    first = configs[0]
    total = Cost(*map(sum, zip(*costs, strict=True)))
    lane_cycles = total.cycles * first.pes * first.lanes
    parts = dict.fromkeys(ENERGY_PARTS, 0.0)
    for config, one in zip(configs, costs, strict=True):
        bits = 8 * one.carried
        parts[f"{ENERGY}_vector"] += (
            one.elements * table.pj_of_product(config.dtype) if one.elements else 0.0
        )
        parts[f"{ENERGY}_dram"] += bits * table.pj_of_dram_bit(config.dram) if bits else 0.0
    return {
        **{f"cycles{of}": total.cycles_compute for of in ("_compute", "_compute_dense_operands")},
        "cycles": total.cycles,
        "cycles_dense_operands": float(total.cycles),
        "pes": first.pes,
        "lanes": first.lanes,
        "dtype": widest(config.dtype for config in configs),
        LANE_CYCLES: lane_cycles,
        f"{LANE_CYCLES}_vector": lane_cycles,
        "vector_elements": total.elements,
        "dram_bytes_vector": total.carried,
        **parts,
        ENERGY: sum(parts.values()),
    }
