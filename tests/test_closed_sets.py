"""No member of a closed set is taken for another: what is unknown is refused where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.columns import COLUMNS
from swatsim.counters import Energies
from swatsim.errors import SwatsimError
from swatsim.simulator.machines.cartesian.machine import simulate_op as on_cartesian
from swatsim.simulator.machines.lane_array.config import Scheduled
from swatsim.simulator.machines.lane_array.machine import scheduler_of
from swatsim.simulator.machines.lane_array.machine import simulate_op as on_lane_array
from swatsim.simulator.machines.lane_array.mapping import scheduled_operand
from swatsim.simulator.machines.lane_array.timeline import timeline
from swatsim.simulator.memory.config import BUFFERS, MemoryConfig
from swatsim.simulator.memory.simulate import Demand, simulate_memory
from swatsim.simulator.memory.tensors import output_words, shape_of
from swatsim.workload import storage
from swatsim.workload.convolutions import convolutions
from swatsim.workload.layer import OPERANDS, Layer
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op

LAYER = Layer(name="conv", C=4, K=4, H=6, W=6, R=3, S=3, stride=2, padding=1)
REFUSALS = (SwatsimError, AssertionError, KeyError, ValueError)


def op(name: Any = "dgrad") -> LoweredOp:
    rng = np.random.default_rng(0)
    shapes = {"weight": (4, 4, 3, 3), "act": (2, 4, 6, 6), "grad_out": (2, 4, 3, 3)}
    reads = {"fprop": ("weight", "act"), "dgrad": ("weight", "grad_out")}
    names = reads.get(name, ("act", "grad_out"))
    return LoweredOp(LAYER, name, **{key: rng.random(shapes[key]) < 0.5 for key in names})


def unknown_op() -> LoweredOp:
    found = op("fprop")
    object.__setattr__(found, "name", "egrad")
    return found


def pooled() -> Op:
    layer = LAYER.model_copy(update={"kind": "pool"})
    masks = {it: np.ones(LAYER.shape_of(it, 1), np.bool_) for it in ("weight", "act")}
    return Op(layer, "fprop", **masks)  # type: ignore[arg-type]


def lanes(**other: Any) -> Any:
    return swatsim.machine("bit-tactical").config.model_copy(update=other)


FAKES: dict[str, Callable[[], Any]] = {
    "lowering": lambda: list(convolutions(op(), "folded")),  # type: ignore[arg-type]
    "operand of a layer": lambda: LAYER.shape_of("bias", 2),  # type: ignore[arg-type]
    "op of a layer in memory": lambda: shape_of(unknown_op()),
    "op, its output": lambda: output_words(unknown_op()),
    "op, on lanes": lambda: on_lane_array(unknown_op(), lanes()),
    "op, cartesian": lambda: on_cartesian(unknown_op(), swatsim.machine("scnn").config),
    "scheduled operand": lambda: scheduled_operand(op(), lanes(scheduled="denser")),
    "move shape": lambda: lanes(move_shape="X").moves,
    "map order": lambda: lanes(map_order="reversed").moves,
    "scheduler": lambda: scheduler_of(lanes(scheduler="random")),
    "who schedules": lambda: lanes(scheduled="weight", scheduling="never").scheduled_before,
    "kind of layer": lambda: lower(pooled()),
    "scheduler, drawn": lambda: timeline(op(), lanes(scheduler="random"), 0),
    "dtype": lambda: simulate_memory(
        op(), Demand(1, 1, 0, 0), MemoryConfig().model_copy(update=NO_TYPE)
    ),
    "dram": lambda: MemoryConfig(dram="x"),
    "loop order": lambda: simulate_memory(
        op(), Demand(1, 1, 0, 0), MemoryConfig().model_copy(update={"loop_order": "KXN"})
    ),
}
NO_TYPE = {"dtype": "no-type"}


@pytest.mark.parametrize("what", FAKES)
def test_a_member_that_nobody_knows_is_refused(what: str) -> None:
    with pytest.raises(REFUSALS):
        FAKES[what]()


# ---- storage formats -----------------------------------------------------------------------------


PAIRS = storage.Format(
    "pairs",
    "a value, its row and its column",
    beside=lambda shape: 8 * (len(shape) - 2),  # 2 for linear layers
)


def memory(format: str, mask: np.ndarray) -> int:
    whole = {"block_filters": 2**20, "block_channels": 2**20, "block_rows": 2**20}
    config = MemoryConfig(format_weight=format, **whole)
    found = LoweredOp(LAYER, "fprop", weight=mask, act=np.ones((2, 4, 6, 6), np.bool_))
    return simulate_memory(found, Demand(1, 1, 0, 0), config).dram_bytes_weight


def test_a_format_is_one_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = op().operands["weight"]
    with pytest.raises(SwatsimError, match="format_weight='pairs' is not allowed: dense, bitmask"):
        MemoryConfig(format_weight="pairs")
    monkeypatch.setitem(storage.FORMATS, "pairs", PAIRS)  # type: ignore[arg-type]
    ones = int(mask.sum())
    assert storage.stored(mask, "pairs", "fp32") == ("pairs", 6 * ones)
    assert storage.expected((10, 10), 0.3, "pairs", "fp32") == ("pairs", 30 * 4)
    assert memory("pairs", mask) == 6 * ones
    with pytest.raises(SwatsimError, match="dense, bitmask, csr, csc, run-length, pairs, or N:M"):
        MemoryConfig(format_weight="pair")
    assert "pairs" in storage.words()


@pytest.mark.parametrize("part", [{"entries": "blocks"}, {"lines": "diagonals"}])
def test_a_term_that_nobody_counts_is_refused(
    monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    monkeypatch.setitem(storage.FORMATS, "pairs", replace(PAIRS, **part))  # type: ignore[arg-type]
    mask = op().operands["weight"]
    for count in (
        lambda: storage.stored(mask, "pairs", "fp32"),
        lambda: storage.expected((10, 10), 0.3, "pairs", "fp32"),
        lambda: memory("pairs", mask),
    ):
        with pytest.raises(AssertionError):
            count()


PLACED = [name for name, it in storage.FORMATS.items() if it.placed]


@pytest.mark.parametrize("format", [*PLACED, "1:2", "2:4"])
def test_a_block_that_is_the_tensor_has_its_bytes(format: str) -> None:
    mask = op().operands["weight"].copy()
    mask[:, 1::2] = False
    assert memory(format, mask) == storage.stored(mask, format, "fp32")[1]


# ---- sets that are written again, because their members are named in code ------------------------


def test_what_is_scheduled_is_an_operand_or_says_which() -> None:
    assert {*Scheduled} == {*OPERANDS, "none", "sparser"}


def test_every_buffer_has_its_parameters_and_its_energy() -> None:
    for buffer in BUFFERS:
        for what in ("kib", "banks", "words"):
            assert f"buffer_{buffer}_{what}" in MemoryConfig.model_fields
    buffers = {name for name in MemoryConfig.model_fields if name.startswith("buffer_")}
    assert len(buffers) == 3 * len(BUFFERS)
    parts = {name for name in Energies._fields if name.startswith("buffer_")}
    assert parts == {f"buffer_{buffer}" for buffer in BUFFERS}


def test_every_operand_has_its_format_its_bytes_and_its_density() -> None:
    assert {f"format_{it}" for it in OPERANDS} <= {*MemoryConfig.model_fields}
    names = {column.name for column in COLUMNS}
    assert {f"{of}_{it}" for it in OPERANDS for of in ("density", "dram_bytes")} <= names
