"""`tensor_core`: peers' cycles, data sheets' rates, what is compressed and what is not."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.machines.tensor_core import TENSOR_CORE
from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.workload.gemm import gemms
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp
from tests.naive import tensor_core as twin
from tests.strategies import tensor_core_configs
from tests.traces import make_trace

FOLDER = Path(__file__).parents[1] / "data" / "peer_tensor_core"
ROWS = list(csv.DictReader((FOLDER / "cases.csv").read_text().splitlines()))

#: Of NVIDIA's data sheets, A100 80GB SXM and H100 SXM5: TFLOP/s of dense tensors.
TERAFLOPS = [("a100", {}, 312), ("h100", {}, 989.4), ("h100", {"macs": 4096}, 1979)]


def two_of_four(shape: tuple[int, int], density: float, seed: int) -> np.ndarray:
    """Draw a mask whose rows obey 2:4: of two places in each group each is kept by chance."""
    rng = np.random.default_rng(seed)
    ranks = rng.random((shape[0], shape[1] // 4, 4)).argsort(axis=2)
    kept = (ranks < 2) & (rng.random(ranks.shape) < 2 * density)
    return kept.reshape(shape)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['M']}x{row['K']}x{row['N']}")
@pytest.mark.parametrize("density", [1, 0.5, 0.333, 0.25])
def test_equals_the_peer(row: dict[str, str], density: float) -> None:
    filters, summed, positions = (int(row[name]) for name in "MKN")
    layer = Layer(name="gemm", kind="linear", C=summed, K=filters)
    weight = np.ones((filters, summed), bool)
    if density < 1:
        weight = two_of_four(weight.shape, density, seed=1)
        assert weight.mean() == pytest.approx(density, rel=0.02)
    act = np.random.default_rng(2).random((positions, summed)) < float(row["act_density"])
    op = swatsim.Op(layer, "fprop", weight=weight, act=act)
    found = swatsim.simulate_op(op, "stc")
    assert found.cycles_compute == int(row["tc" if density == 1 else "stc"])
    assert found.compressed == ("" if density == 1 else "weight")
    for dense in (swatsim.machine("stc", pattern="none"), swatsim.machine("stc")):
        assert dense.simulate_dense(op).cycles_compute == int(row["tc"])
    plain = swatsim.simulate_op(op, swatsim.machine("stc", pattern="none"))
    assert plain.cycles_compute == int(row["tc"])


@pytest.mark.parametrize(("preset", "change", "teraflops"), TERAFLOPS)
def test_rates_are_those_of_the_data_sheets(
    preset: str, change: dict[str, int], teraflops: float
) -> None:
    config = swatsim.machine(preset, **change).config
    assert 2 * config.multipliers * config.clock_mhz / 1e6 == pytest.approx(teraflops, rel=1e-3)


def along(values: np.ndarray, n: int, m: int) -> np.ndarray:
    """Return lines with zeros in place of all but the last n of each m values that are not."""
    length = values.shape[1]
    padded = np.pad(values, [(0, 0), (0, -length % m)]).reshape(len(values), -1, m)
    after = np.cumsum((padded != 0)[..., ::-1], axis=2)[..., ::-1]
    return np.where(after <= n, padded, 0).reshape(len(values), -1)[:, :length]


def pruned(op: OpName, values: dict[str, np.ndarray], n: int, m: int) -> dict[str, np.ndarray]:
    """Return values of a layer of stride 1, one operand of which obeys n:m along what is summed."""
    if op == "wgrad":  # grad_out along n, p, q
        lines = values["grad_out"].swapaxes(0, 1)
        kept = along(lines.reshape(len(lines), -1), n, m).reshape(lines.shape).swapaxes(0, 1)
        return {**values, "grad_out": kept}
    order = (0, 2, 3, 1) if op == "fprop" else (1, 2, 3, 0)
    lines = values["weight"].transpose(order)
    turned = lines if op == "fprop" else lines[:, ::-1, ::-1]
    kept = along(turned.reshape(len(lines), -1), n, m).reshape(turned.shape)
    back = kept if op == "fprop" else kept[:, ::-1, ::-1]
    return {**values, "weight": back.transpose(np.argsort(order))}


LAYER = Layer(name="c", C=5, K=6, H=5, W=4, R=3, S=2, padding=1)


@pytest.mark.parametrize("name", OPS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(config=tensor_core_configs(), seed=st.integers(0, 99))
def test_what_obeys_is_compressed_as_the_twin_does(
    name: OpName, config: TensorCoreConfig, seed: int
) -> None:
    rng, (n, m) = np.random.default_rng(seed), config.packing or (2, 4)
    values = {
        it: rng.integers(1, 9, LAYER.shape_of(it, 2)) * (rng.random(LAYER.shape_of(it, 2)) < 0.9)
        for it in OPERANDS_OF[name]
    }
    values = pruned(name, values, n, m)
    op = LoweredOp(LAYER, name, **{it: array != 0 for it, array in values.items()})
    ours = TENSOR_CORE.simulate_op(op, config)
    theirs = twin.simulate(name, LAYER, config, **values)
    one = "grad_out" if name == "wgrad" else "weight"
    if config.pattern not in ("none", "1:1") and one in config.allowed:
        assert ours.compressed == one
        side = "ab"[OPERANDS_OF[name].index(one)]
        groups, obeying = (getattr(ours, f"pattern_{it}_{side}") for it in ("groups", "obeying"))
        assert groups == obeying > 0
    assert ours.compressed == theirs.compressed
    assert ours.cycles_compute == theirs.cycles
    assert {it: getattr(ours, it) for it in theirs.events} == theirs.events
    assert ours.lane_cycles_ineffectual == theirs.lane_cycles.get("ineffectual", 0)


def run(weight: np.ndarray, act: np.ndarray, **changes: Any) -> Counters:
    layer = Layer(name="fc", kind="linear", C=weight.shape[1], K=len(weight))
    op = swatsim.Op(layer, "fprop", weight=weight, act=act)
    return swatsim.simulate_op(op, swatsim.machine("stc", **changes))


def test_one_group_that_misses_runs_the_op_dense_and_is_seen() -> None:
    weight, act = two_of_four((64, 400), 0.5, seed=1), np.ones((32, 400), bool)
    whole = run(weight, act)
    assert (whole.compressed, whole.pattern_obeying_a) == ("weight", whole.pattern_groups_a)
    weight[::4, :48] = True
    missed = run(weight, act)
    assert missed.compressed == ""
    assert missed.pattern_obeying_a / missed.pattern_groups_a == 0.97
    assert missed.cycles_compute == 2 * whole.cycles_compute
    assert missed.multiplexed == 0 < whole.multiplexed


def test_of_two_that_obey_the_sparser_is_compressed() -> None:
    sparse, sparser = two_of_four((16, 64), 0.5, seed=1), two_of_four((16, 64), 0.3, seed=2)
    assert run(sparse, sparser).compressed == "act"
    assert run(sparser, sparse).compressed == "weight"
    assert run(sparse, sparse).compressed == "weight"  # a tie: the first
    assert run(sparser, sparse, sparse_operands="act").compressed == "act"
    assert run(sparser, sparse, pattern="none").compressed == ""
    # nothing is gained by two of two
    assert run(sparse[:, :2], np.ones((4, 2), bool)).compressed == ""


def test_an_operand_may_obey_by_padding_alone() -> None:
    """Its windows hold one value of nine, for all others are padding."""
    layer = Layer(name="c", C=1, K=4, H=1, W=1, R=3, S=3, padding=1)
    ones = {it: np.ones(layer.shape_of(it, 2), bool) for it in OPERANDS_OF["fprop"]}
    found = swatsim.simulate_op(swatsim.Op(layer, "fprop", **ones), "stc")
    assert found.pattern_groups_b == found.pattern_obeying_b == 2 * 3
    assert found.compressed == "act"


def test_a_transposed_layer_names_operands_as_its_own() -> None:
    layer = Layer(name="up", kind="conv_transpose", C=8, K=4, H=3, W=3, R=2, S=2, stride=2)
    act = np.zeros(layer.shape_of("act", 1), bool)
    act[:, ::4] = True  # of its adjoint's dgrad this is grad_out, summed over k
    masks = {"weight": np.ones(layer.shape_of("weight", 1), bool), "act": act}
    op = swatsim.Op(layer, "fprop", **masks)
    for named, compressed in (("act", "grad_out"), ("grad_out", ""), ("any", "grad_out")):
        machine = swatsim.machine("stc", sparse_operands=named)
        assert machine.simulate_op(op).compressed == compressed


def test_groups_share_waves_and_phases_follow_one_another() -> None:
    layer = Layer(name="g", C=32, K=32, H=8, W=8, R=3, S=3, stride=2, padding=1, groups=2)
    op, config = LoweredOp.dense(layer, "dgrad", 2), swatsim.machine("stc").config
    every = list(gemms(op))
    assert len(every) == 4
    # 2 x 16 positions of a phase, 16 channels, 1, 2, 2 and 4 taps of 16 filters
    blocks, steps = 2 * 2, (2 + 4 + 4 + 8)
    assert TENSOR_CORE.simulate_dense(op, config).cycles_compute == 2 * blocks * steps
    dilated = config.model_copy(update={"dgrad_lowering": "dilated"})
    assert TENSOR_CORE.simulate_dense(op, dilated).cycles_compute == 2 * (8 * 2) * 18
    six = config.model_copy(update={"cores": 6})
    assert TENSOR_CORE.simulate_dense(op, six).cycles_compute == -(-2 * blocks // 6) * steps


def test_heads_of_attention_share_the_cores_and_a_causal_mask_shows() -> None:
    """1024 queries and keys: 8 x 4 blocks a head, 20 with an output on or below the diagonal."""
    heads, length = 12, 1024
    layer = Layer(name="qk", kind="matmul", C=heads * 64, K=heads * length, H=length, groups=heads)
    op = swatsim.Op.dense(layer, "fprop", 1)
    causal = np.tile(np.tri(length, dtype=bool).T, (heads, 1))[None, :, :, None]
    machine = swatsim.machine("a100")
    wave = 128 * 256 * 64 // machine.config.macs
    found = machine.simulate_op(replace(op, output=causal))
    assert found.cycles_compute == -(-heads * 20 // 108) * wave
    assert machine.simulate_op(op).cycles_compute == -(-heads * 32 // 108) * wave


def test_pruning_in_each_step_costs_bytes_and_no_compute_cycle(tmp_path: Path) -> None:
    layer = Layer(name="fc", kind="linear", C=64, K=32)
    with swatsim.Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(layer)
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "weight", two_of_four((32, 64), 0.5, seed=1))
            step.operand("fc", "fprop", "act", np.ones((2, 64), bool))
    given_masks, new_masks = (
        swatsim.simulate(tmp_path / "t", swatsim.machine("a100", prune_each_step=on)).rows[0]
        for on in (False, True)
    )
    assert given_masks["compressed"] == new_masks["compressed"] == "weight"
    assert given_masks["cycles_compute"] == new_masks["cycles_compute"]
    # read: 2048 values of 16 bits; written: half of them, with 2 bits each
    assert new_masks["dram_bytes_prune"] == 2048 * 2 + 1024 * 18 // 8
    assert given_masks["dram_bytes_weight"] == 1024 * 18 // 8
    assert new_masks["cycles"] > given_masks["cycles"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "5:4"}, r"pattern='5:4' is not allowed: must be none, or N:M with 1 <= N"),
        ({"pattern": "bitmask"}, r"must be none, or N:M"),
        ({"sparse_operands": "act,weight"}, r"must be any, or some of weight, act, grad_out, each"),
        ({"sparse_operands": "act+act"}, r"each once, joined by \+, such as weight\+act"),
        ({"sparse_operands": ""}, r"must be any, or"),
        ({"keep_on_chip": True}, r"at odds with an operand that runs n:m"),
    ],
)
def test_what_can_not_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        swatsim.machine("a100", **change)


def test_operands_are_named_in_one_way() -> None:
    config = swatsim.machine("a100", sparse_operands="act+weight").config
    assert config.sparse_operands == "weight+act"
    assert config.allowed == {"weight", "act"}
    every = swatsim.machine("a100", sparse_operands="grad_out+act+weight")
    assert every.name == "a100"


@pytest.mark.parametrize("name", OPS)
def test_a_core_is_drawn_block_by_block(name: OpName) -> None:
    rng = np.random.default_rng(3)
    shapes = {it: LAYER.shape_of(it, 2) for it in OPERANDS_OF[name]}
    op = LoweredOp(LAYER, name, **{it: rng.random(shapes[it]) < 0.5 for it in shapes})
    machine = swatsim.machine("a100", cores=3, macs=7, tile_m=4, tile_n=2, k_step=3)
    cycles = machine.simulate_op(op).cycles_compute
    used = machine.timeline(op, 0).about["tiles"]
    for core in range(used):
        found = machine.timeline(op, core)
        events = sorted(found.events(range(found.cycles)), key=lambda it: (it.thread, it.begin))
        for thread in (0, 1):
            mine = [event for event in events if event.thread == thread]
            ends = [event.begin + event.cycles for event in mine]
            assert [event.begin for event in mine] == [0, *ends[:-1]]
            assert ends[-1] == found.cycles == cycles
        window = range(cycles // 3, cycles // 2)
        some = [it for it in events if it.begin < window.stop]
        some = [it for it in some if it.begin + it.cycles > window.start]
        assert sorted(found.events(window), key=lambda it: (it.thread, it.begin)) == some
    with pytest.raises(
        ConfigError, match="is not allowed: a tile of .* is a core that has a block"
    ):
        machine.timeline(op, used)


def test_a_trace_of_any_kind_runs(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    for preset in TensorCoreConfig.presets:
        results = swatsim.simulate(trace, preset)
        assert {row["sums_read"] for row in results.rows} == {0}
        dense = [row for row in results.rows if row["role"] == "baseline"]
        assert {row["pattern_groups_a"] for row in dense} == {0}
