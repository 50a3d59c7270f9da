"""Steps of whole batches from some of their images: exact where they can be, near elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.policies import SwatU
from swatsim.simulator import whole_batch
from swatsim.simulator.whole_batch import COSTS, Batches, Sizes, simulate_batches, sizes_of
from swatsim.tracefile import Operation, OtherWork, Trace
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from tests.test_results import Ideal
from tests.traces import LAYERS, make_trace, part_of

TENSORDASH = {"tiles": 1, "rows": 4, "columns": 4}
ATTENTION = Layer(name="scores", kind="matmul", C=8, K=12, H=6, groups=2)
MACHINES: dict[str, dict[str, Any]] = {
    "tensordash": TENSORDASH,
    "swat": {"pe_h": 2, "pe_w": 2},
    "sparten": {"clusters": 2, "pes_per_cluster": 4},
    "scale-sim-os": {},
    "a100": {},
}


def made(path: Path, batch: int = 6, steps: int = 1) -> Trace:
    layers = (*LAYERS, ATTENTION)
    return synthesize(
        layers, path, policy=SwatU(0.8), batch=batch, seed=5, steps=steps, uneven=True
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return made(tmp_path_factory.mktemp("batches") / "whole")


@pytest.fixture(scope="module")
def some(whole: Trace, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return part_of(whole, tmp_path_factory.mktemp("batches") / "some", range(2))


@pytest.fixture(scope="module")
def twice(whole: Trace, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The batch that `some` stands for: its two images over and over, all of it recorded."""
    return part_of(whole, tmp_path_factory.mktemp("batches") / "twice", [0, 1] * 3)


def counted(batches: swatsim.Results, role: str = "machine") -> list[tuple[Any, ...]]:
    names = (
        "layer",
        "op",
        "samples",
        *COSTS,
        "dram_bytes_act",
        "dram_bytes_weight",
        "macs_effectual",
    )
    return [tuple(row[name] for name in names) for row in batches.rows if row["role"] == role]


def machine(name: str) -> swatsim.Machine:
    return swatsim.machine(name, **MACHINES[name])


@pytest.mark.parametrize("name", MACHINES)
def test_a_batch_of_the_recorded_images_over_and_over(name: str, some: Trace, twice: Trace) -> None:
    """It is what a trace of just these images takes, however images work on the machine."""
    found = simulate_batches(some, machine(name), workers=1)
    truth = swatsim.simulate(twice, machine(name), workers=1)
    for role in ("machine", "baseline"):
        assert counted(found.results, role) == counted(truth, role)
    assert found.extended == 0


def test_a_trace_that_holds_all_images_is_simulated_as_ever(whole: Trace) -> None:
    found = simulate_batches(whole, machine("tensordash"), workers=1)
    assert found.seen == {}
    assert counted(found.results) == counted(swatsim.simulate(whole, machine("tensordash")))


def test_what_images_say_of_a_batch(some: Trace) -> None:
    found = simulate_batches(some, machine("tensordash"), workers=1)
    (seen,) = found.seen[0]
    assert (seen.size, seen.many) == (6, 2)
    rows = [row for row in found.results.rows if row["role"] == "machine"]
    for column in COSTS:
        said = seen.values["machine", column]
        # their mean is the batch's
        assert sum(said) / 2 == pytest.approx(sum(row[column] for row in rows))
        assert said[0] != said[1]
    # dense operands are alike
    assert seen.values["baseline", "cycles"][0] == seen.values["baseline", "cycles"][1]


def test_one_image_says_nothing_of_how_they_differ(whole: Trace, tmp_path: Path) -> None:
    one = part_of(whole, tmp_path / "one", [3])
    (seen,) = simulate_batches(one, machine("tensordash"), workers=1).seen[0]
    assert (seen.size, seen.many, seen.values) == (6, 1, {})


def test_everything_else_is_the_whole_batchs(tmp_path: Path) -> None:
    made = Operation(function="norm", elements=6400, read=25600, written=25600)
    norm = OtherWork(module="n", phase="forward", operations=(made,), read=25600, written=25600)
    some = make_trace(tmp_path / "some", (0,), others=[norm])  # 2 images of 8
    batch = simulate_batches(some, "scale-sim-os", workers=1).results
    held = swatsim.simulate(some, "scale-sim-os", workers=1)
    of_batch, of_held = (
        [row["vector_elements"] for row in of.rows if row["op"] == "other"] for of in (batch, held)
    )
    assert of_batch == [6400, 6400]
    assert of_held == [1600, 1600]
    assert {row["samples"] for row in batch.rows} == {8}


# ---- batches that are not laid out ---------------------------------------------------------------


def test_how_a_batch_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_batch, "MOST_VALUES", 64 * 100)
    monkeypatch.setattr(whole_batch, "MOST_IMAGES", 50)
    assert sizes_of(batch=24, recorded=8, values=100) == Sizes(24)
    # of 50 images 24 more, three times 8: 128 = 56 + 3 * 24
    assert sizes_of(batch=128, recorded=8, values=100) == Sizes(56, 24, 3)
    # one image is more than that: as few as there can be
    assert sizes_of(batch=128, recorded=8, values=10**9) == Sizes(16, 8, 14)
    for batch in (17, 100, 2**40 + 1):
        found = sizes_of(batch, 3, 1000)
        assert found.images + found.times * found.more == batch
        assert 2 * found.more <= found.images < 3 * found.more


@pytest.mark.parametrize("name", ["sparten", "scale-sim-os"])
def test_a_batch_that_is_not_laid_out_is_near(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = part_of(made(tmp_path / "made", batch=2), tmp_path / "some", range(2), batch=40)

    def run() -> Batches:
        return simulate_batches(some, machine(name), workers=1)

    truth = run()
    monkeypatch.setattr(whole_batch, "MOST_VALUES", 16 * 8 * 12 * 12)
    near = run()
    assert truth.extended == 0
    assert 0.2 < near.extended < 1  # small layers are laid out
    for role in ("machine", "baseline"):
        exact, found = (
            np.array([row[3:] for row in counted(of.results, role)]).sum(axis=0)
            for of in (truth, near)
        )
        assert found == pytest.approx(exact, rel=0.03)
        # what grows with every image alike is exact
        assert found[-1] == exact[-1]
    assert {row["samples"] for row in near.results.rows} == {40}


def test_another_baseline_and_an_object_of_ones_own(some: Trace, twice: Trace) -> None:
    for chosen, other in ((machine("tensordash"), "bit-tactical"), (Ideal(), None)):
        found = simulate_batches(some, chosen, baseline=other, workers=1)
        truth = swatsim.simulate(twice, chosen, baseline=other, workers=1)
        for role in ("machine", "baseline"):
            assert counted(found.results, role) == counted(truth, role)
    # its energy is not known, and no image says anything of it
    assert {column for _, column in found.seen[0][0].values} == {"cycles", "cycles_compute"}
