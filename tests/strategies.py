"""Random small layers, ops and machine configurations for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from swatsim.errors import SwatsimError
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.machines.cartesian.config import CartesianConfig, Halo, Positions
from swatsim.simulator.machines.ideal.config import IdealConfig, Skips
from swatsim.simulator.machines.inner_join.config import Balancing, InnerJoinConfig
from swatsim.simulator.machines.lane_array.config import (
    LaneArrayConfig,
    MapOrder,
    MoveShape,
    Scheduled,
    Scheduler,
    Scheduling,
    WgradReduces,
)
from swatsim.simulator.machines.systolic.config import Dataflow, SystolicConfig
from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.memory.config import BUFFERS, ORDERS
from swatsim.simulator.memory.dram import shipped as drams
from swatsim.workload import storage
from swatsim.workload.convolutions import Lowering
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import Op
from swatsim.workload.value_types import DTYPES

#: Storage formats that every mask can have.
FORMATS = tuple(name for name, format in storage.FORMATS.items() if format.placed)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Convolutions of every kind (unequal strides, asymmetric padding, groups), linear, tokens."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return Layer(name="x", kind="linear", C=draw(st.integers(1, 40)), K=draw(st.integers(1, 9)))
    if kind == 1:
        tokens = draw(st.permutations([1, draw(st.integers(1, 30))]))
        widths = {"C": draw(st.integers(1, 18)), "K": draw(st.integers(1, 9))}
        return Layer(name="x", **widths, H=tokens[0], W=tokens[1])
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 6]))
    channels = draw(st.sampled_from([1, 1, 2, 3, 3, 5, 18]))
    pair = st.tuples(st.integers(0, 2), st.integers(0, 2))
    steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
    fields = dict(
        name="x",
        C=groups * channels,
        K=groups * draw(st.sampled_from([1, 2, 3, 5])),
        R=draw(st.integers(1, 4)),
        S=draw(st.integers(1, 3)),
        stride=draw(steps),
        dilation=draw(st.one_of(st.just((1, 1)), steps)),
        padding=(draw(pair), draw(pair)),
        groups=groups,
    )
    size = st.integers(1, 7)
    height, width = draw(size), draw(size)
    try:
        return Layer(**fields, H=height, W=width)
    except SwatsimError:  # the kernel does not fit: make room for it
        return Layer(**fields, H=height + 9, W=width + 6)


@st.composite
def transposed_layers(draw: st.DrawFn) -> Layer:
    """Transposed convolutions: the padding that is cut off leaves something."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    fields = dict(
        name="x",
        kind="conv_transpose",
        C=groups * draw(st.integers(1, 3)),
        K=groups * draw(st.integers(1, 3)),
        R=draw(st.integers(1, 4)),
        S=draw(st.integers(1, 3)),
        stride=draw(pair),
        dilation=draw(st.one_of(st.just((1, 1)), pair)),
        groups=groups,
    )
    sizes = {"H": draw(st.integers(1, 4)), "W": draw(st.integers(1, 4))}
    whole = Layer(**fields, **sizes)
    before = [draw(st.integers(0, min(2, side - 1))) for side in (whole.P, whole.Q)]
    after = [
        draw(st.integers(0, min(2, side - 1 - cut)))
        for side, cut in zip((whole.P, whole.Q), before, strict=True)
    ]
    return Layer(**fields, **sizes, padding=tuple(zip(before, after, strict=True)))


@st.composite
def ops(draw: st.DrawFn) -> tuple[LoweredOp, dict[str, np.ndarray]]:
    """An op, and integer values whose zeros are its masks."""
    layer = draw(layers())
    name = draw(st.sampled_from(OPS))
    samples = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = {}
    for operand in OPERANDS_OF[name]:
        density = draw(st.sampled_from([0.1, 0.3, 0.6, 1.0, *[0.0] * draw(st.booleans())]))
        shape = layer.shape_of(operand, samples)
        nonzero = rng.integers(1, 50, shape) * rng.choice([-1, 1], shape)
        values[operand] = nonzero * (rng.random(shape) < density)
    return LoweredOp(layer, name, **{key: value != 0 for key, value in values.items()}), values


@st.composite
def ops_of_some_outputs(draw: st.DrawFn) -> tuple[LoweredOp, dict[str, np.ndarray]]:
    """An op some of whose outputs nobody wants, and values as `ops` gives them."""
    op, values = draw(ops())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 0.95]))
    wanted = rng.random(op.output_shape) < density
    if draw(st.booleans()):  # whole filters, channels or positions
        along = draw(st.integers(0, wanted.ndim - 1))
        wanted &= rng.random([n if i == along else 1 for i, n in enumerate(wanted.shape)]) < 0.5
    return replace(op, output=wanted), values


@st.composite
def matmuls(draw: st.DrawFn) -> tuple[Op, dict[str, np.ndarray]]:
    """An op of a product of two activations, and values as `ops` gives them."""
    heads, rows = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    widths = {"C": heads * draw(st.integers(1, 9)), "K": heads * draw(st.integers(1, 9))}
    layer = Layer(name="qk", kind="matmul", H=rows, groups=heads, **widths)
    name, samples = draw(st.sampled_from(OPS)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.2, 0.6, 1.0]))
    shapes = {it: layer.shape_of(it, samples) for it in OPERANDS_OF[name]}
    values = {
        it: rng.integers(1, 50, shape) * (rng.random(shape) < density)
        for it, shape in shapes.items()
    }
    return Op(layer, name, **{key: value != 0 for key, value in values.items()}), values


@st.composite
def lane_array_configs(draw: st.DrawFn) -> LaneArrayConfig:
    scheduler = draw(st.sampled_from([*Scheduler]))
    fields = dict(
        tiles=draw(st.integers(1, 3)),
        rows=draw(st.sampled_from([1, 2, 4, 5])),
        columns=draw(st.sampled_from([1, 3, 4])),
        scheduled=draw(st.sampled_from([*Scheduled])),
        scheduling=draw(st.sampled_from([*Scheduling])),
        fold_stem=draw(st.booleans()),
        wgrad_reduces=draw(st.sampled_from([*WgradReduces])),
        dgrad_lowering=draw(st.sampled_from(get_args(Lowering))),
    )
    if fields["scheduled"] == "none":
        move = dict(lookahead=0, lookaside=0, move_shape="T", map_order="as_written")
        return LaneArrayConfig(**fields, **move, lanes=4, scheduler="most_candidates")
    if scheduler == "levels":
        move = dict(lookahead=2, lookaside=5, move_shape="T-mirrored", map_order="as_written")
        return LaneArrayConfig(**fields, **move, lanes=16, scheduler=scheduler)
    lanes = draw(st.sampled_from([1, 2, 3, 4, 8, 16, 33, 64]))
    lookahead = draw(st.integers(0, 5))
    return LaneArrayConfig(
        **fields,
        lanes=lanes,
        lookahead=lookahead,
        lookaside=draw(st.integers(0, min(lanes - 1, 15))) if lookahead else 0,
        move_shape=draw(st.sampled_from([*MoveShape])),
        map_order=draw(st.sampled_from([*MapOrder])),
        scheduler=scheduler,
    )


@st.composite
def cartesian_configs(draw: st.DrawFn) -> CartesianConfig:
    accumulator = draw(st.sampled_from([1, 3, 9, 30, 6144]))
    return CartesianConfig(
        pe_h=draw(st.integers(1, 4)),
        pe_w=draw(st.integers(1, 4)),
        act_vector=draw(st.integers(1, 5)),
        weight_vector=draw(st.integers(1, 5)),
        accumulator=accumulator,
        banks=draw(st.sampled_from([n for n in (1, 2, 5, 16, 32, 40) if n <= accumulator])),
        dgrad_lowering=draw(st.sampled_from(get_args(Lowering))),
        bank_queue=draw(st.sampled_from([0, 0, 1, 2, 5, 8, 30, 127, 128, 2**24])),
        halo=draw(st.sampled_from(get_args(Halo))),
        positions=draw(st.sampled_from(get_args(Positions))),
    )


@st.composite
def systolic_configs(draw: st.DrawFn) -> SystolicConfig:
    dataflow = draw(st.sampled_from([*Dataflow]))
    patterns = ["none", "1:2", "2:4", "1:3", "3:5", "2:2"]
    pattern = "none" if dataflow == "is" else draw(st.sampled_from(patterns))
    slots = 1 if pattern == "none" else int(pattern[0])
    return SystolicConfig(
        rows=draw(st.integers(1, 4)) * (slots if dataflow == "ws" else 1),
        columns=draw(st.integers(1, 6)),
        dataflow=dataflow,
        pattern=pattern,
        dgrad_lowering=draw(st.sampled_from(get_args(Lowering))),
    )


@st.composite
def tensor_core_configs(draw: st.DrawFn) -> TensorCoreConfig:
    """Patterns that sparse masks obey by chance among them."""
    some = ["any", "any", "weight", "act", "grad_out", "weight+act", "act+grad_out"]
    return TensorCoreConfig(
        cores=draw(st.integers(1, 5)),
        macs=draw(st.sampled_from([1, 3, 8, 64])),
        tile_m=draw(st.sampled_from([1, 2, 5, 16])),
        tile_n=draw(st.sampled_from([1, 2, 3, 8])),
        k_step=draw(st.sampled_from([1, 2, 4, 7])),
        pattern=draw(st.sampled_from(["none", "1:1", "1:2", "2:4", "3:4", "3:5", "6:8", "8:16"])),
        sparse_operands=draw(st.sampled_from(some)),
        prune_each_step=draw(st.booleans()),
        dgrad_lowering=draw(st.sampled_from(get_args(Lowering))),
    )


@st.composite
def inner_join_configs(draw: st.DrawFn) -> InnerJoinConfig:
    return InnerJoinConfig(
        clusters=draw(st.integers(1, 4)),
        pes_per_cluster=draw(st.integers(1, 4)),
        chunk=draw(st.sampled_from([64, 64, 128, 192])),
        balancing=draw(st.sampled_from([*Balancing])),
        dgrad_lowering=draw(st.sampled_from(get_args(Lowering))),
    )


@st.composite
def ideal_configs(draw: st.DrawFn) -> IdealConfig:
    return IdealConfig(
        multipliers=draw(st.sampled_from([1, 2, 7, 64, 4096])),
        skips=draw(st.sampled_from([*Skips])),
    )


#: A strategy for each mechanism's configurations: a new machine adds its own here.
CONFIGS: dict[str, Callable[[], st.SearchStrategy]] = {
    "lane_array": lane_array_configs,
    "cartesian": cartesian_configs,
    "systolic": systolic_configs,
    "tensor_core": tensor_core_configs,
    "inner_join": inner_join_configs,
    "ideal": ideal_configs,
}

#: The first preset of each mechanism, and those that do otherwise than the first of theirs.
SOME_PRESETS = (
    *(next(iter(mechanism.config_type.presets)) for mechanism in MACHINES),
    *("bit-tactical", "tensordash", "scnn-queued", "swat", "ideal-weight", "ideal-act"),
)


@st.composite
def memories(draw: st.DrawFn, formats: tuple[str, ...] = FORMATS) -> dict[str, Any]:
    """Parameters of the memory system, most of them tight."""
    kib = st.sampled_from([1, 1, 2, 4, 64])
    words = st.sampled_from([1, 3, 7, 4096])
    buffers = {f"buffer_{name}_kib": draw(kib) for name in BUFFERS}
    supply = {f"buffer_{name}_words": draw(words) for name in BUFFERS}
    stored = {f"format_{name}": draw(st.sampled_from(formats)) for name in OPERANDS}
    extent = st.one_of(st.just("auto"), st.integers(1, 20))
    dram = draw(st.sampled_from(drams()))
    own = {
        "dram_mb_per_s": draw(st.sampled_from(["auto", 1, 77, 6400])),
        "dram_latency_ns": draw(st.sampled_from(["auto", 0, 1, 99])),
    }
    return {
        **buffers,
        **supply,
        **stored,
        "clock_mhz": draw(st.sampled_from([1, 500, 606, 1000])),
        "dtype": draw(st.sampled_from([*DTYPES])),
        "dram": dram,
        "dram_channels": draw(st.integers(1, 3)),
        **(own if dram != "ideal" else {}),
        "loop_order": draw(st.sampled_from(["auto", "auto", *ORDERS])),
        "block_filters": draw(extent),
        "block_channels": draw(extent),
        "block_rows": draw(extent),
    }
