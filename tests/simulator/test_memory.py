"""The memory system: equal to its twin, within its bounds, and what a person works out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import MemoryCounters
from swatsim.errors import ConfigError, WorkloadError
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.memory.config import BUFFERS, ORDERS, MemoryConfig
from swatsim.simulator.memory.simulate import NO_DEMAND, Demand, can_pin, simulate_memory
from swatsim.simulator.memory.stores import Packed
from swatsim.simulator.rows import Counted, cost
from swatsim.simulator.systems import system_of
from swatsim.workload import storage
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp
from tests.naive import blocks
from tests.naive import memory as twin
from tests.strategies import FORMATS, matmuls, memories, ops, ops_of_some_outputs

QUICK = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
N_OF_M = ("2:2", "3:3", "4:4")  # what every mask obeys
flags = st.booleans()
STRUCTURED = ("1:2", "2:4", "1:3", "2:3")


def naive(op: LoweredOp, config: MemoryConfig, demand: Demand, **options: Any) -> twin.NaiveMemory:
    known = config.model_dump()
    known |= {
        "dram_mb_per_s": config.bandwidth_mb_per_s,
        "dram_ideal": config.dram.ideal,
        "dram_latency_ns": config.dram.latency.ns
        if config.dram_latency_ns == "auto"
        else config.dram_latency_ns,
    }
    return twin.simulate(
        op.name,
        op.layer,
        SimpleNamespace(**known),
        cycles_compute=demand.cycles,
        pes=1,
        lanes=demand.lanes,
        words=(demand.words_a, demand.words_b),
        sums=demand.words_out,
        packing=demand.packed and twin.Packing(*demand.packed, each_step=demand.prunes),
        wanted=op.output,
        of_activations=op.of_samples > 0,
        **options,
        **op.operands,
    )


def demands() -> st.SearchStrategy[Demand]:
    size = st.one_of(st.integers(0, 50), st.integers(0, 100_000))
    wanted = st.tuples(size, st.sampled_from([1, 48]), size, size)
    return wanted.map(lambda some: Demand(*some))  # builds would draw what is packed too


def compare(ours: MemoryCounters, theirs: twin.NaiveMemory) -> None:
    assert theirs.refused is None
    assert ours.loop_order == theirs.order
    cut = (ours.block_groups, ours.block_filters, ours.block_channels, ours.block_rows)
    assert cut == theirs.block
    assert ours.blocks == theirs.blocks
    for operand, size in theirs.loaded_bytes.items():
        assert getattr(ours, f"dram_bytes_{operand}") == size
    assert ours.dram_bytes_result == theirs.result_bytes
    assert ours.dram_bytes_partial == theirs.partial_bytes
    assert ours.dram_bytes_prune == theirs.prune_bytes
    assert ours.cycles == theirs.cycles
    for name, lane_cycles in theirs.lane_cycles.items():
        assert getattr(ours, f"lane_cycles_{name}") == lane_cycles


@QUICK
@given(data=st.data())
def test_equals_its_twin(data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    config = MemoryConfig(**data.draw(memories((*FORMATS, *N_OF_M))))
    demand, dense = data.draw(demands()), data.draw(st.booleans())
    theirs = naive(op, config, demand, dense=dense)
    if theirs.refused is None:
        compare(simulate_memory(op, demand, config, dense=dense), theirs)
    else:
        with pytest.raises(ConfigError, match=f"buffer_{theirs.refused}_kib"):
            simulate_memory(op, demand, config, dense=dense)


def thinned(mask: np.ndarray, n: int, m: int, axis: int = 1, groups: int = 1) -> np.ndarray:
    """Keep the first n of each m channels that are there, of each group of a layer."""
    kept = np.moveaxis(mask, axis, 0).copy()
    size = len(kept) // groups
    for first in (g + at for g in range(0, len(kept), size) for at in range(0, size, m)):
        group = kept[first : min(first + m, first - first % size + size)]
        group &= group.cumsum(axis=0) <= n
    return np.moveaxis(kept, 0, axis)


@settings(QUICK, max_examples=25)
@given(data=st.data())
def test_n_of_m_equals_its_twin_and_holds_every_value(data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    format = data.draw(st.sampled_from(STRUCTURED))
    n, m = map(int, format.split(":"))
    transposed = op.layer.kind == "conv" and data.draw(st.booleans())
    along = (0, op.layer.groups) if transposed else (1, 1)  # of the weights
    masks = {
        name: thinned(mask, n, m, *(along if name == "weight" else (1, 1)))
        for name, mask in op.operands.items()
    }
    op = replace(op, **masks, known={}, of_transposed=transposed)
    stored = {f"format_{name}": format for name in OPERANDS}
    config = MemoryConfig(**{**data.draw(memories()), **stored})
    theirs = naive(op, config, Demand(9, 1, 0, 0), transposed=transposed)
    if theirs.refused is None:
        counters = simulate_memory(op, Demand(9, 1, 0, 0), config)
        compare(counters, theirs)
        for name, mask in masks.items():
            values = np.count_nonzero(mask) * storage.DTYPES[config.dtype] // 8
            assert getattr(counters, f"dram_bytes_{name}") >= values


@settings(QUICK, max_examples=20)
@given(data=st.data())
def test_some_outputs_and_products_of_activations_equal_the_twin(data: st.DataObject) -> None:
    op, _ = data.draw(st.one_of(ops_of_some_outputs(), matmuls()))
    op = swatsim.lower(op)
    format = data.draw(st.sampled_from(STRUCTURED))
    if op.of_samples:
        n, m = map(int, format.split(":"))
        masks = {}
        for name, mask in op.operands.items():
            masks[name] = thinned(mask, n, m, 1, 1 if name == "weight" else op.layer.groups)
        op = op.with_masks(masks)
    stored = {f"format_{name}": format for name in OPERANDS} if op.of_samples else {}
    config = MemoryConfig(**{**data.draw(memories()), **stored})
    theirs = naive(op, config, Demand(9, 1, 0, 0))
    assume(theirs.refused is None)
    compare(simulate_memory(op, Demand(9, 1, 0, 0), config), theirs)


def test_the_dense_baseline_makes_all_outputs_and_energy_counts_them() -> None:
    layer = Layer(name="fc", kind="linear", C=4, K=6)
    all_ = LoweredOp.dense(layer, "wgrad", 3)
    none = replace(all_, output=np.zeros((6, 4), bool))
    machine, table = swatsim.machine("scale-sim-os"), energy_table("45nm")
    system = system_of(machine, table)
    silent = machine.simulate_dense(all_)._replace(sums_written=0)
    counted = Counted(silent, silent)
    for dense, fewer in ((True, False), (False, True)):
        made, wanted = (cost(op, counted, system, dense=dense) for op in (all_, none))
        assert made["words_out"] == 3 * 24 + 2 * 24
        assert wanted["words_out"] == (0 if fewer else made["words_out"])
        assert (wanted["energy_pj_buffer_out"] < made["energy_pj_buffer_out"]) == fewer
        assert wanted["dram_bytes_result"] == made["dram_bytes_result"]


@settings(QUICK, max_examples=25)
@given(data=st.data())
def test_a_packed_operand_and_sums_equal_the_twin(data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    operand = data.draw(st.sampled_from([*op.operands]))
    assume(not op.operands[operand].all())  # it has no zero to leave out: no machine packs it
    m = data.draw(st.integers(1, 17))
    packed = Packed(operand, data.draw(st.integers(1, m)), m)
    sums = data.draw(st.sampled_from([0, 1, 1000, 10**6]))
    wanted = data.draw(demands())._replace(words_out=sums, packed=packed, prunes=data.draw(flags))
    config = MemoryConfig(**data.draw(memories()))
    theirs = naive(op, config, wanted)
    assume(theirs.refused is None)
    ours = simulate_memory(op, wanted, config)
    compare(ours, theirs)
    waits = ("buffer", "prune", "dram", "fill_drain")
    busy = wanted.cycles * wanted.lanes + sum(getattr(ours, f"lane_cycles_{it}") for it in waits)
    assert busy == ours.cycles * wanted.lanes
    assert bool(ours.dram_bytes_prune) == wanted.prunes


@settings(QUICK, max_examples=30)
@given(data=st.data())
def test_a_kept_operand_equals_the_twin(data: st.DataObject) -> None:
    op, _ = data.draw(ops().filter(lambda found: found[0].name != "fprop"))
    config = MemoryConfig(**{**data.draw(memories()), "block_channels": "auto"})
    demand = data.draw(demands())
    assume(can_pin(op, config, "grad_out"))
    held = frozenset({"grad_out"})
    kept = simulate_memory(op, demand, config, pinned="grad_out", resident=True)
    assert kept.dram_bytes_grad_out == 0
    compare(kept, naive(op, config, demand, kept=held))
    compare(
        simulate_memory(op, demand, config, pinned="grad_out"),
        naive(op, config, demand, held=held),
    )


# ---- closed forms --------------------------------------------------------------------------------


def bytes_of(counters: MemoryCounters) -> int:
    return sum(value for name, value in counters._asdict().items() if name.startswith("dram_bytes"))


def drawn(data: st.DataObject, **fixed: Any) -> tuple[LoweredOp, MemoryConfig]:
    op, _ = data.draw(ops())
    config = MemoryConfig(**{**data.draw(memories()), **fixed})
    assume(naive_fits(op, config))
    return op, config


def naive_fits(op: LoweredOp, config: MemoryConfig) -> bool:
    try:
        simulate_memory(op, Demand(0, 1, 0, 0), config)
    except ConfigError:
        return False
    return True


@QUICK
@given(data=st.data())
def test_endless_bandwidth_gives_the_compute_cycles(data: st.DataObject) -> None:
    op, config = drawn(data, dram="ideal", dram_mb_per_s="auto", dram_latency_ns="auto")
    wide = {f"buffer_{name}_words": 2**24 for name in BUFFERS}
    demand = data.draw(demands())
    counters = simulate_memory(op, demand, config.model_copy(update=wide))
    assert counters.cycles == max(demand.cycles, 1)  # one, for the words of the output
    assert counters.lane_cycles_dram == counters.lane_cycles_fill_drain == 0
    none = simulate_memory(op, demand, config.model_copy(update={"memory": "none"}))
    assert none == MemoryCounters(demand.cycles)


@QUICK
@given(data=st.data())
def test_compute_of_zero_gives_latency_and_bytes_by_bandwidth(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["ddr4-3200", "hbm2"]))
    wide = {f"buffer_{name}_words": 2**24 for name in BUFFERS}
    op, config = drawn(data, dram=kind, **wide)
    counters = simulate_memory(op, Demand(0, 1, 0, 0), config)
    carried = -(-bytes_of(counters) * config.clock_mhz // config.bandwidth_mb_per_s)
    # the one cycle in which the output's words are taken may be hidden, or not
    assert counters.cycles - config.latency_cycles - carried in (0, 1)


@QUICK
@given(data=st.data())
def test_an_op_that_fits_moves_its_operands_once(data: st.DataObject) -> None:
    formats = st.sampled_from(("dense", "bitmask", "run-length", "csr", "csc"))
    stored = {f"format_{name}": data.draw(formats) for name in OPERANDS}
    op, _ = data.draw(ops())
    big = {f"buffer_{name}_kib": 2**20 for name in BUFFERS}
    whole = {"block_filters": 2**20, "block_channels": 2**20, "block_rows": 2**20}
    cut = whole if op.layer.groups == 1 and data.draw(st.booleans()) else {}
    config = MemoryConfig(**stored, **big, **cut)
    counters = simulate_memory(op, Demand(1000, 1, 0, 0), config)
    sizes = {
        name: storage.stored(mask, config.format_of(name), "fp32")[1]
        for name, mask in op.operands.items()
    }
    moved = {name: getattr(counters, f"dram_bytes_{name}") for name in sizes}
    if cut:
        assert (counters.blocks, moved) == (1, sizes)
    else:  # blocks of the planner's: at most a 64th more than the least, before rounding
        assert all(moved[name] >= size for name, size in sizes.items())
        least = sum(sizes.values()) + counters.dram_bytes_result
        assert bytes_of(counters) <= least * 65 / 64 + 2 * counters.blocks
    assert counters.dram_bytes_partial == 0


@QUICK
@given(data=st.data())
def test_the_total_lies_between_its_bounds(data: st.DataObject) -> None:
    op, config = drawn(data, dram="lpddr4-3200")
    demand = data.draw(demands())
    counters = simulate_memory(op, demand, config)
    busy = counters.lane_cycles_buffer // demand.lanes + demand.cycles
    carried = bytes_of(counters) * config.clock_mhz / config.bandwidth_mb_per_s
    assert counters.cycles >= max(busy, carried)
    assert counters.cycles <= busy + carried + config.latency_cycles + 1
    waits = (
        counters.lane_cycles_buffer + counters.lane_cycles_dram + counters.lane_cycles_fill_drain
    )
    assert waits + demand.cycles * demand.lanes == counters.cycles * demand.lanes
    assert (
        min(counters.lane_cycles_buffer, counters.lane_cycles_dram, counters.lane_cycles_fill_drain)
        >= 0
    )


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_more_bandwidth_is_never_slower_and_larger_buffers_never_move_more(
    data: st.DataObject,
) -> None:
    op, config = drawn(data, block_filters="auto", block_channels="auto", block_rows="auto")
    demand = data.draw(demands())
    counters = simulate_memory(op, demand, config)
    faster = config.model_copy(update={"dram_mb_per_s": 2 * config.bandwidth_mb_per_s})
    assert simulate_memory(op, demand, faster).cycles <= counters.cycles
    larger = {f"buffer_{n}_kib": 8 * getattr(config, f"buffer_{n}_kib") for n in BUFFERS}
    more = simulate_memory(op, demand, config.model_copy(update=larger))
    assert bytes_of(more) <= bytes_of(counters) * 65 / 64 + counters.blocks + more.blocks * 2


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_more_non_zeros_never_move_fewer_bytes(data: st.DataObject) -> None:
    op, config = drawn(data, loop_order=data.draw(st.sampled_from(ORDERS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    more = {}
    for name, mask in op.operands.items():
        more[name] = mask | (rng.random(mask.shape) < data.draw(st.sampled_from([0.02, 0.3])))
        # what has no zero at all is stored dense, and may be smaller
        assume(more[name].all() == mask.all())
    few, many = simulate_memory(op, NO_DEMAND, config), None
    cut = {name: getattr(few, f"block_{name}") for name in ("filters", "channels", "rows")}
    fixed = {f"block_{name}": extent for name, extent in cut.items()}
    alike = few.block_groups == 1 or op.layer.groups == 1
    denser = LoweredOp(op.layer, op.name, **more)
    if alike:  # the same blocks
        try:
            few = simulate_memory(op, NO_DEMAND, config.model_copy(update=fixed))
            many = simulate_memory(denser, NO_DEMAND, config.model_copy(update=fixed))
        except ConfigError:
            assume(False)
        assert many is not None
        assert bytes_of(many) >= bytes_of(few)
    else:  # those that the planner chooses: of nearly the fewest, those that wait least
        try:
            many = simulate_memory(denser, NO_DEMAND, config)
        except ConfigError:
            assume(False)
        assert many is not None
        assert bytes_of(many) * 65 >= bytes_of(few) * 64 - 65


def test_a_denser_mask_of_a_small_op_moves_no_fewer_bytes() -> None:
    layer = Layer(name="small", C=5, K=3, H=5, W=5, R=3, S=3, padding=1)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        weight, act = rng.random((3, 5, 3, 3)) < 0.3, rng.random((1, 5, 5, 5)) < 0.3
        denser = weight | (rng.random(weight.shape) < 0.05)
        config = MemoryConfig(buffer_a_kib=1, format_act="run-length", format_weight="bitmask")
        few, many = (
            bytes_of(
                simulate_memory(LoweredOp(layer, "fprop", weight=it, act=act), NO_DEMAND, config)
            )
            for it in (weight, denser)
        )
        assert many + many // 64 >= few


SMALL = Layer(name="small", C=5, K=7, H=5, W=7, R=3, S=3, padding=1)
#: Rows in whole windows of the stride; groups by three; M = 8 of filters, of channels.
STRIDED = Layer(name="strided", C=5, K=23, H=16, W=5, R=3, stride=(2, 1))
GROUPED = Layer(name="grouped", C=12, K=12, H=13, W=3, R=3, groups=12)
FILTERS = Layer(name="filters", C=9, K=35, H=20, W=5, R=5, padding=((1, 1), (0, 0)))
CHANNELS = Layer(name="channels", C=18, K=4, H=17, W=6, R=4, S=4, groups=2)


@pytest.mark.parametrize(
    ("layer", "name", "format", "kib"),
    [
        (SMALL, "fprop", "dense", (1, 1, 1)),
        (SMALL, "fprop", "run-length", (1, 2, 1)),
        (SMALL, "dgrad", "bitmask", (1, 1, 1)),
        (SMALL, "wgrad", "csr", (1, 1, 1)),
        (STRIDED, "dgrad", "bitmask", (1, 1, 3)),
        (GROUPED, "wgrad", "csr", (1, 1, 1)),
        (FILTERS, "dgrad", "2:8", (1, 1, 1)),
        (CHANNELS, "fprop", "2:8", (1, 1, 1)),
    ],
)
def test_no_blocks_there_are_move_fewer_bytes_by_over_a_64th(
    layer: Layer, name: Any, format: str, kib: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(4)
    masks = {it: rng.random(layer.shape_of(it, 2)) < 0.6 for it in OPERANDS_OF[name]}
    if ":" in format:
        masks = {it: thinned(mask, 2, 8) for it, mask in masks.items()}
    formats = {f"format_{it}": format for it in OPERANDS}
    sizes = dict(zip(("buffer_a_kib", "buffer_b_kib", "buffer_out_kib"), kib, strict=True))
    op, config = LoweredOp(layer, name, **masks), MemoryConfig(**formats, **sizes)
    best = blocks.fewest(name, layer, config, masks)
    assert best is not None
    assert best.moved <= bytes_of(simulate_memory(op, NO_DEMAND, config)) <= best.moved * 65 / 64


# ---- by hand -------------------------------------------------------------------------------------

LINEAR = Layer(name="fc", kind="linear", C=4, K=6)


def linear(density: str = "dense") -> LoweredOp:
    weight = np.ones((6, 4), np.bool_)
    if density == "half":
        weight[:, ::2] = False
    return LoweredOp(LINEAR, "fprop", weight=weight, act=np.ones((2, 4), np.bool_))


def by_hand(**other: Any) -> MemoryConfig:
    return MemoryConfig(
        clock_mhz=1000,
        dram="hbm2",
        dram_mb_per_s=2000,
        dram_latency_ns=7,
        loop_order="KCN",
        **other,
    )


def test_one_block_by_hand() -> None:
    whole = by_hand(block_filters=6, block_channels=4, block_rows=2)
    counters = simulate_memory(linear(), Demand(100, 1, 0, 0), whole)
    # 24 weights and 8 activations of 4 bytes at 2 bytes a cycle, 12 outputs
    assert (counters.dram_bytes_weight, counters.dram_bytes_act, counters.dram_bytes_result) == (
        96,
        32,
        48,
    )
    assert counters.cycles == 7 + 64 + 100 + 24
    assert (counters.lane_cycles_fill_drain, counters.lane_cycles_dram) == (7 + 64 + 24, 0)


def test_blocks_of_filters_by_hand() -> None:
    cut = by_hand(block_filters=2, block_channels=4, block_rows=2)
    counters = simulate_memory(linear(), Demand(60, 1, 0, 0), cut)
    # start 7 + (32 + 32) / 2 = 39; three blocks of 20 cycles; loads of 32 bytes while 1 and 2 are
    # computed (16 cycles: hidden), a drain of 16 bytes with the second load and after the third:
    # 20, max(20, (32 + 0) / 2), ..: block 1 loads 3 and drains 0: (32 + 16) / 2 = 24
    assert counters.blocks == 3
    assert counters.cycles == 39 + 20 + 24 + 20 + 8
    assert (counters.lane_cycles_fill_drain, counters.lane_cycles_dram) == (39 + 8, 4)


def test_partial_sums_by_hand() -> None:
    cut = by_hand(block_filters=6, block_channels=2, block_rows=1).model_copy(
        update={"loop_order": "CKN"}
    )
    counters = simulate_memory(linear(), Demand(0, 1, 0, 0), cut)
    # channels outermost: each of two outputs of 6 sums leaves and comes back once
    assert counters.dram_bytes_partial == 2 * 2 * 6 * 4
    assert counters.dram_bytes_result == 48
    assert (counters.dram_bytes_weight, counters.dram_bytes_act) == (96, 32)


def test_a_format_by_hand() -> None:
    whole = by_hand(block_filters=6, block_channels=4, block_rows=2, format_weight="bitmask")
    assert (
        simulate_memory(linear("half"), Demand(0, 1, 0, 0), whole).dram_bytes_weight == 12 * 4 + 3
    )
    dense = simulate_memory(linear("half"), Demand(0, 1, 0, 0), whole, dense=True)
    assert dense.dram_bytes_weight == 96


def test_a_buffer_that_gives_too_few_words_is_waited_for() -> None:
    narrow = MemoryConfig(buffer_a_words=3, dram="ideal")
    counters = simulate_memory(linear(), Demand(10, 16, 100, 0), narrow)
    assert counters.cycles == 34
    assert counters.lane_cycles_buffer == 24 * 16


def test_numbers_beyond_64_bits_are_exact() -> None:
    config = MemoryConfig(dram_mb_per_s=99_999_989, clock_mhz=9973)
    counters = simulate_memory(linear(), Demand(10**12, 1, 0, 0), config)
    assert 10**12 < counters.cycles < 10**12 + 1000
    assert min(counters.lane_cycles_dram, counters.lane_cycles_fill_drain) >= 0


def test_too_many_blocks_are_refused_before_they_are_walked() -> None:
    layer = Layer(name="big", C=1024, K=1024, H=64, W=1)
    op = LoweredOp(
        layer, "fprop", np.ones((1024, 1024, 1, 1), bool), np.ones((1, 1024, 64, 1), bool)
    )
    one = {"block_filters": 1, "block_channels": 1, "block_rows": 1}
    with pytest.raises(ConfigError, match="'big', fprop: 67108864 blocks are too many"):
        simulate_memory(op, Demand(0, 1, 0, 0), MemoryConfig(**one))


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"dram_mb_per_s": 0},
            "machine parameters: dram_mb_per_s=0 is not allowed: must be 'auto', or greater than "
            "or equal to 1$",
        ),
        ({"dram": "ideal", "dram_latency_ns": 3}, "dram='ideal' takes no time"),
        ({"buffer_a_kib": 1, "buffer_a_banks": 999}, "set it to at most 256"),
        ({"buffer_a_kib": 0}, "buffer_a_kib=0 .* must be greater than or equal to 1"),
        ({"dram": "hbm"}, "dram='hbm' is not allowed: unknown DRAM 'hbm': did you mean 'hbm2'"),
        ({"format_weight": "4:2"}, "format_weight='4:2' is not allowed: .*N:M with 1 <= N <= M"),
        ({"format_act": "values"}, "it does not say where its values are"),
        ({"loop_order": "KKN"}, "loop_order='KKN'"),
        ({"block_rows": 0}, "block_rows"),
        ({"bufer_a_kib": 1}, "bufer_a_kib.*did you mean 'buffer_a_kib'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        swatsim.machine("tensordash", **parameters)


def test_the_capacity_that_a_refusal_names_is_the_smallest_that_will_do() -> None:
    layer = Layer(name="wide", C=3, K=4, H=9, W=900, R=3, S=3, padding=1)
    act = np.random.default_rng(3).random((2, 3, 9, 900)) < 0.5
    op = LoweredOp(layer, "fprop", weight=np.ones((4, 3, 3, 3), np.bool_), act=act)
    with pytest.raises(ConfigError, match=r"'wide', fprop: buffer_b_kib=1 is too small") as caught:
        simulate_memory(op, Demand(0, 1, 0, 0), MemoryConfig(buffer_b_kib=1))
    wanted = int(str(caught.value).split("at least ")[1])
    assert naive_fits(op, MemoryConfig(buffer_b_kib=wanted))
    assert not naive_fits(op, MemoryConfig(buffer_b_kib=wanted - 1))


def test_a_mask_that_is_not_n_of_m_is_refused_with_its_place() -> None:
    op = LoweredOp(
        LINEAR, "fprop", weight=np.eye(6, 4) + np.eye(6, 4, 1) > 0, act=np.ones((2, 4), bool)
    )
    with pytest.raises(WorkloadError, match=r"layer 'fc', fprop, weight: .* 1:2: at \(0, 1\)"):
        simulate_memory(op, Demand(0, 1, 0, 0), MemoryConfig(format_weight="1:2"))
