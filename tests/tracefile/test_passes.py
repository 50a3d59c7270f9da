"""Which runs of a layer keep something at once: by hand, and of recorded trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from swatsim.tracefile import open_trace
from swatsim.tracefile.passes import alive
from swatsim.tracefile.schema import MaskRecord


def came(*masks: str) -> list[MaskRecord]:
    """Return records of masks that came: ``a`` the act of a layer, ``-a`` its gradient."""
    forms = {True: "grad_out", False: "act"}
    return [
        MaskRecord(
            layer=name.removeprefix("-"),
            op="wgrad",
            operand=forms[name.startswith("-")],  # type: ignore[arg-type]
            shape=(2, 3),
            codec="ones",
            ones=6,
        )
        for name in masks
    ]


@pytest.mark.parametrize(
    ("masks", "held"),
    [
        ("a b -b -a", "a b"),
        ("a b -b -a a@2 b@2 -b@2 -a@2 a@3 b@3 -b@3 -a@3", "a b"),
        ("a b a@2 b@2 -b@2 -a@2 -b -a", "a b a@2 b@2"),
        ("a a@2 b -b -a@2 -a", "a a@2 b"),
        ("a b -b -a a@2 b@2 a@3 b@3 -b@3 -a@3 -b@2 -a@2", "a@2 b@2 a@3 b@3"),
        ("a b c -c b@2 -b@2 -a", "a b@2 c"),  # a checkpoint recomputes b
        ("a -a a@2 -a@2", "a"),
        ("a -a a@2 -a@2 b -b", "a a@2 b"),  # layer by layer: a synthetic trace
        ("a b a@2 b@2", "a b a@2 b@2"),
    ],
)
def test_by_hand(masks: str, held: str) -> None:
    assert alive(came(*masks.split())) == {*held.split()}


def test_accumulation_keeps_one_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from swatsim.policies import SwatU
    from swatsim.tracer.pytorch import Tracer
    from swatsim.workload import footprint

    torch.manual_seed(3)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    found = []
    for size in (2, 8):
        path = tmp_path / str(size)
        with Tracer(model, SwatU(0.5), path, steps=(0,)) as tracer:
            for part in torch.rand(8, 1, 6, 6).split(size):
                model(part.clone()).sum().backward()
            tracer.step()
        found.append(footprint.of_masks(open_trace(path).step(0).kept(), format="dense"))
    assert [row.layer for row in found[0].rows] == ["0", "0", "3", "3"]
    assert found[0].weights == found[1].weights
    assert 4 * found[0].of("act") == found[1].of("act")
