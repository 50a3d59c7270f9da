"""What a sparse training method does of its own in a step: by hand, a layer of 12 by 10."""

from __future__ import annotations

import pytest

from swatsim.policies import (
    SET,
    SNFS,
    ByScore,
    Dense,
    MeProp,
    Periodic,
    Policy,
    RigL,
    Site,
    StaticRandom,
    SwatM,
    SwatU,
    TopKast,
    Transposable,
    allocate_once,
    begin_run,
    site_densities,
)
from swatsim.tracefile.others import OtherWork
from swatsim.tracer.policy_work import policy_work
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, Layer

LAYER = Layer(name="fc", kind="linear", C=10, K=12)
SCORES = Layer(name="scores", kind="matmul", C=10, K=12, H=3, groups=2)


def asked(policy: Policy, layer: Layer, step: int, run: int = 1) -> list[OtherWork]:
    """What `policy_work` says of a step of a policy with a batch of 4."""
    sparsifier = begin_run(allocate_once(policy, [LAYER, SCORES]))
    works: dict = {}
    for operand in OPERANDS:
        ops = [op for op in OPS if operand in OPERANDS_OF[op]]
        works[operand] = sparsifier.work([Site(layer, op, operand, False, step, run) for op in ops])
    return policy_work(layer, 4, works)


def in_short(found: list[OtherWork]) -> list[tuple[str, int, int, int, int]]:
    return [(it.name, it.operations[0].elements, it.read, it.written, it.times) for it in found]


TOPK_OF_WEIGHT: tuple = ("topk", 120, 480, 15, 1)
MASK_OF_WEIGHT: tuple = ("mask", 120, 15, 0, 1)
MOMENTUM: tuple = ("momentum", 120, 960, 480, 1)
TWO_CHOICES: tuple = ("topk", 120, 480, 15, 2)


@pytest.mark.parametrize(
    ("policy", "step", "expected"),
    [
        (Dense(), 0, []),
        (SwatU(0.8), 0, [TOPK_OF_WEIGHT, ("topk", 40, 160, 5, 1)]),
        (MeProp(0.8), 0, [("topk", 48, 192, 6, 1)]),  # chosen once for dgrad and wgrad
        (SwatM(0.8), 0, [TOPK_OF_WEIGHT, MOMENTUM, ("topk", 40, 160, 5, 1)]),
        (StaticRandom(0.5), 3, [MASK_OF_WEIGHT]),
        (RigL(0.5, every=2), 0, [MASK_OF_WEIGHT]),
        (RigL(0.5, every=2), 3, [MASK_OF_WEIGHT]),
        (RigL(0.5, every=2), 4, [MASK_OF_WEIGHT, TWO_CHOICES]),
        (SET(0.5, every=2), 4, [MASK_OF_WEIGHT, TOPK_OF_WEIGHT]),
        (SNFS(0.5, every=2), 3, [MASK_OF_WEIGHT, MOMENTUM]),
        (SNFS(0.5, every=2), 4, [MASK_OF_WEIGHT, TWO_CHOICES, MOMENTUM]),
        (TopKast(0.5, every=3), 3, [TWO_CHOICES]),
        (TopKast(0.5, every=3), 4, [("mask", 120, 15, 0, 2)]),
        (Transposable(2, every=3), 6, [TOPK_OF_WEIGHT]),
        (Transposable(2, every=3), 7, [MASK_OF_WEIGHT]),
        (Periodic(SwatU(0.8), 4, 2), 1, [TOPK_OF_WEIGHT, ("topk", 40, 160, 5, 1)]),
        (
            Periodic(SwatU(0.8), 4),
            5,
            [("threshold", 120, 480, 15, 1), ("threshold", 40, 160, 5, 1)],
        ),
        (ByScore(abs, 0.5, of=("weight",)), 5, [TOPK_OF_WEIGHT]),
    ],
    ids=lambda it: type(it).__name__ if hasattr(it, "density") else None,
)
def test_by_hand(policy: Policy, step: int, expected: list) -> None:
    assert in_short(asked(policy, LAYER, step)) == expected


def test_a_weight_is_chosen_once_a_step_whatever_runs_again() -> None:
    assert in_short(asked(SwatU(0.8), LAYER, 0, run=2)) == [("topk", 40, 160, 5, 1)]


def test_bytes_are_those_of_the_type() -> None:
    works: dict = {"weight": ["topk"]}
    (half,) = policy_work(LAYER, 4, works, "bfloat16")
    assert (half.read, half.written, half.dtype) == (240, 15, "bfloat16")


@pytest.mark.parametrize("policy", [SwatU(0.8), RigL(0.5), MeProp(0.5), TopKast(0.5), SwatM(0.5)])
def test_a_product_of_activations_is_left_alone(policy: Policy) -> None:
    assert asked(policy, SCORES, 0) == []
    allocated = allocate_once(policy, [LAYER, SCORES])
    assert all(
        share is None
        for (name, _, _), share in site_densities(allocated, [LAYER, SCORES]).items()
        if name == "scores"
    )


def test_products_of_activations_have_no_share_of_an_allocation() -> None:
    alone = allocate_once(RigL(0.5), [LAYER])
    beside = allocate_once(RigL(0.5), [LAYER, SCORES])
    assert alone.allocation.by_layer == beside.allocation.by_layer  # type: ignore[attr-defined]
    assert begin_run(beside).density(Site(SCORES, "fprop", "weight")) is None
    assert beside.allocation.by_layer.keys() == {"fc"}  # type: ignore[attr-defined]
