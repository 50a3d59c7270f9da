"""No member of a closed set is taken for another: what is unknown is refused where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.errors import SwatsimError
from swatsim.simulator.machines.cartesian.machine import simulate_op as on_cartesian
from swatsim.simulator.machines.lane_array.machine import scheduler_of
from swatsim.simulator.machines.lane_array.machine import simulate_op as on_lane_array
from swatsim.simulator.machines.lane_array.mapping import scheduled_operand
from swatsim.simulator.machines.lane_array.timeline import timeline
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.simulate import Demand, simulate_memory
from swatsim.simulator.memory.tensors import output_words, shape_of
from swatsim.workload import storage
from swatsim.workload.convolutions import convolutions
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp

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
    "scheduler, drawn": lambda: timeline(op(), lanes(scheduler="random"), 0),
    "dtype": lambda: simulate_memory(
        op(), Demand(1, 1, 0, 0), MemoryConfig().model_copy(update=FP8)
    ),
    "dram": lambda: MemoryConfig(dram="x"),
    "loop order": lambda: simulate_memory(
        op(), Demand(1, 1, 0, 0), MemoryConfig().model_copy(update={"loop_order": "KXN"})
    ),
}
FP8 = {"dtype": "fp8"}


@pytest.mark.parametrize("what", FAKES)
def test_a_member_that_nobody_knows_is_refused(what: str) -> None:
    with pytest.raises(REFUSALS):
        FAKES[what]()


# ---- storage formats -----------------------------------------------------------------------------


COO = storage.Format(
    "coo",
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
    with pytest.raises(SwatsimError, match="format_weight='coo' is not allowed: dense, bitmask"):
        MemoryConfig(format_weight="coo")
    monkeypatch.setitem(storage.FORMATS, "coo", COO)  # type: ignore[arg-type]
    ones = int(mask.sum())
    assert storage.stored(mask, "coo", "fp32") == ("coo", 6 * ones)
    assert storage.expected((10, 10), 0.3, "coo", "fp32") == ("coo", 30 * 4)
    assert memory("coo", mask) == 6 * ones
    with pytest.raises(SwatsimError, match="dense, bitmask, csr, csc, run-length, coo, or N:M"):
        MemoryConfig(format_weight="co")
    assert "coo" in storage.words()


@pytest.mark.parametrize("part", [{"entries": "blocks"}, {"lines": "diagonals"}])
def test_a_term_that_nobody_counts_is_refused(
    monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    monkeypatch.setitem(storage.FORMATS, "coo", replace(COO, **part))  # type: ignore[arg-type]
    mask = op().operands["weight"]
    for count in (
        lambda: storage.stored(mask, "coo", "fp32"),
        lambda: storage.expected((10, 10), 0.3, "coo", "fp32"),
        lambda: memory("coo", mask),
    ):
        with pytest.raises(AssertionError):
            count()


PLACED = [name for name, it in storage.FORMATS.items() if it.placed]


@pytest.mark.parametrize("format", [*PLACED, "1:2", "2:4"])
def test_a_block_that_is_the_tensor_has_its_bytes(format: str) -> None:
    mask = op().operands["weight"].copy()
    mask[:, 1::2] = False
    assert memory(format, mask) == storage.stored(mask, format, "fp32")[1]
