"""Blocks of weights of one tap: looked up, they take what counting their products gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

import swatsim
from swatsim.simulator.machines.cartesian import kernel, points
from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel import Work
from swatsim.simulator.machines.cartesian.kernel_taps import Taps
from swatsim.simulator.machines.cartesian.machine import simulate_op
from swatsim.simulator.machines.cartesian.mapping import groups
from swatsim.workload.layer import OPERANDS_OF, Layer, OpName
from swatsim.workload.lowering import LoweredOp

PLAIN = Layer(name="x", C=5, K=37, H=13, W=9)
LAYERS = {
    "plain": PLAIN,
    "strided": Layer(name="x", C=4, K=9, H=14, W=11, stride=2),
    "padded": Layer(name="x", C=4, K=9, H=6, W=7, padding=2, stride=(2, 3)),
    "groups": Layer(name="x", C=6, K=21, H=9, W=8, groups=3),
    "tokens": Layer(name="x", C=4, K=9, H=23, W=1),
    "one pixel": Layer(name="x", C=9, K=70, H=1, W=1),
}
LARGER = {
    "3 x 3": Layer(name="x", C=3, K=37, H=13, W=9, R=3, S=3, padding=1),
    "strided": Layer(name="x", C=3, K=30, H=14, W=11, R=3, S=3, stride=2, padding=1),
    "dilated": Layer(name="x", C=3, K=21, H=12, W=13, R=3, S=2, dilation=2, padding=(2, 0)),
    "groups": Layer(name="x", C=6, K=40, H=9, W=8, R=2, S=3, groups=2, stride=(1, 2)),
    "linear": Layer(name="x", kind="linear", C=300, K=40),
}
CHANGED = {
    "scnn": {},
    "few banks": {"banks": 16, "pe_h": 3, "pe_w": 2},
    "small chunks": {"accumulator": 40, "pe_h": 2, "pe_w": 2},
    "other vectors": {"act_vector": 3, "weight_vector": 2, "pe_h": 2},
    "square": {"positions": "square", "pe_h": 3, "pe_w": 3},
}


def random_op(layer: Layer, name: OpName) -> LoweredOp:
    rng = np.random.default_rng(4)
    masks = {it: rng.random(layer.shape_of(it, 2)) < 0.4 for it in OPERANDS_OF[name]}
    return LoweredOp(layer, name, **masks)


def parts(layer: Layer, changed: dict[str, object]) -> Iterator[Planar]:
    """Yield what a machine runs of a layer, with and without bank conflicts."""
    config = swatsim.machine("scnn", **changed).config
    names: tuple[OpName, ...] = ("fprop", "dgrad")
    for name in names:
        op = random_op(layer, name)
        blocks = (block for group in groups(op, config) for block in group.blocks())
        for part in chain.from_iterable(blocks):
            for conflicts in (True, False):
                yield replace(part, array=part.array._replace(conflicts=conflicts))


def counted(part: Planar, taps: Taps = points.NO_TAPS) -> Work:
    run = part.data, part.weight, part.first_k, part.rows, part.columns, part.array
    work: Work = kernel.convolve(*run, taps)
    return work


def assert_equal(found: Work, expected: Work) -> None:
    for key in found._fields:
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_looked_up_as_counted(layer: Layer, changed: dict[str, object]) -> None:
    for part in parts(layer, changed):
        assert_equal(points.convolve(part), counted(part))


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("layer", LARGER.values(), ids=LARGER)
def test_with_several_taps_looked_up_as_counted(
    layer: Layer, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "LEAST_PAIRS", 0)
    for part in parts(layer, changed):
        taps = points.taps_of(part)
        assert len(taps.table)
        assert_equal(counted(part, taps), counted(part))


def test_a_machine_looks_up_what_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    op = random_op(PLAIN, "fprop")
    config = swatsim.machine("scnn").config
    counted, run = simulate_op(op, config), points.convolve
    seen = []
    monkeypatch.setattr(points, "convolve", lambda part: seen.append(part) or run(part))
    assert simulate_op(op, config) == counted
    assert not seen
    monkeypatch.setattr(points, "LEAST_PAIRS", 0)
    assert simulate_op(op, config) == counted
    assert len(seen) == 1
