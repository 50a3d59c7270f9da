"""Kernels as large as their plane: by taps, they take what is counted pair by pair."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

import swatsim
from swatsim.simulator.machines.cartesian import kernel, points, whole
from swatsim.simulator.machines.cartesian.machine import simulate_op
from swatsim.simulator.machines.cartesian.mapping import groups
from swatsim.workload.layer import OPERANDS_OF, Layer, OpName
from swatsim.workload.lowering import LoweredOp

LINEAR = Layer(name="x", kind="linear", C=600, K=37)
LAYERS = {
    "linear": LINEAR,
    "narrow": Layer(name="x", kind="linear", C=7, K=90),
    "convolution": Layer(name="x", C=3, K=41, H=7, W=5, R=7, S=5),
    "padded": Layer(name="x", C=2, K=12, H=2, W=3, R=6, S=5, padding=(2, 1)),
    "groups": Layer(name="x", C=4, K=26, H=3, W=3, R=3, S=3, groups=2),
}
CHANGED = {
    "scnn": {},
    "few banks": {"banks": 16, "pe_h": 3, "pe_w": 2},
    "small chunks": {"accumulator": 18, "banks": 16, "pe_h": 2},
    "other vectors": {"act_vector": 3, "weight_vector": 7, "pe_h": 2},
    "one value": {"act_vector": 1, "weight_vector": 1, "pe_h": 1, "pe_w": 1},
}


def random_op(layer: Layer, name: OpName, density: float) -> LoweredOp:
    rng = np.random.default_rng(4)
    masks = {it: rng.random(layer.shape_of(it, 3)) < density for it in OPERANDS_OF[name]}
    return LoweredOp(layer, name, **masks)


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("density", [0, 0.03, 0.4, 1])
def test_by_taps_as_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, layer: Layer, changed: dict[str, object], density: float
) -> None:
    monkeypatch.setattr(whole, "LEAST_WEIGHTS", 0)
    config = swatsim.machine("scnn", **changed).config
    names: tuple[OpName, ...] = ("fprop", "dgrad") if layer.kind == "linear" else ("fprop",)
    for name in names:
        op = random_op(layer, name, density)
        blocks = (block for group in groups(op, config) for block in group.blocks())
        for part in chain.from_iterable(blocks):
            assert whole.is_whole(part)
            for conflicts in (True, False):
                array = part.array._replace(conflicts=conflicts)
                run = part.data, part.weight, part.first_k, part.rows, part.columns, array
                expected, found = (
                    kernel.convolve(*run, points.NO_TAPS),
                    whole.convolve(replace(part, array=array)),
                )
                for key in found._fields:
                    np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))


def test_a_machine_runs_so_what_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    op = random_op(LINEAR, "fprop", 0.4)
    config = swatsim.machine("scnn").config
    counted, run = simulate_op(op, config), whole.convolve
    seen = []
    monkeypatch.setattr(whole, "convolve", lambda part: seen.append(part) or run(part))
    assert simulate_op(op, config) == counted
    assert not seen
    monkeypatch.setattr(whole, "LEAST_WEIGHTS", 0)
    assert simulate_op(op, config) == counted
    assert len(seen) == 1
