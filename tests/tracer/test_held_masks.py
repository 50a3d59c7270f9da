"""Policies that hold masks, on layers that start at zero and on weights that are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swatsim.errors import PolicyError
from swatsim.policies import (
    SET,
    SNFS,
    Bdwp,
    ByScore,
    Periodic,
    RigL,
    Slope,
    SRigL,
    SrSte,
    StaticRandom,
    SwatU,
    TopKast,
    Transposable,
    View,
    Vnm,
)
from swatsim.tracefile import open_trace

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from swatsim.tracer.pytorch import Tracer  # noqa: E402


def size(it: View) -> Any:
    return abs(it.values)


def train(model: Any, policy: Any, path: Path, steps: int = 40) -> dict[int, int]:
    """Learn y = x; tell how many weights fprop read in each step."""
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(model, policy, path, steps=range(steps)) as tracer:
        for _ in range(steps):
            x = torch.randn(32, 8, generator=random)
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()
            tracer.step()
    trace = open_trace(path)
    name = str(len(model) - 1)
    return {n: int(trace.step(n).mask(name, "fprop", "weight").sum()) for n in range(steps)}


@pytest.mark.parametrize(
    "policy",
    [
        Transposable(2),
        TopKast(0.5, every=40),
        ByScore(size, 0.5, every=40),
        ByScore(size, 0.5, every=40, trains="kept", granularity="2:4"),
        Periodic(SwatU(0.5), 40),
        SrSte(2, 4),
        Bdwp(2, 4),
        Vnm(2, 4),
        Slope(2, 4),
        Transposable(4, 8),
        RigL(0.5, every=4),
        SRigL(0.5, every=4, salient=0),
        SET(0.5, every=40),
        SNFS(0.5, every=40),
        StaticRandom(0.5),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_layer_that_starts_at_zero_is_trained(policy: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    nn.init.zeros_(model[0].weight)
    ones = train(model, policy, tmp_path)
    assert ones[0] == 0
    assert ones[10] in ((32,) if not isinstance(policy, RigL) else range(16, 33))
    assert ones[39] in ((32,) if not isinstance(policy, RigL) else range(16, 33))


MADE: dict[str, Any] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "a mask of the user's own": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "spectral_norm of old": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("kind", [RigL, SET, SNFS, StaticRandom])
@pytest.mark.parametrize("made", MADE)
def test_what_sets_weights_to_zero_refuses_computed_ones(
    kind: Any, made: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(MADE[made](nn.Linear(8, 8)), nn.Linear(8, 8))
    before = [value.detach().clone() for value in model.parameters()]
    with pytest.raises(PolicyError) as caught:
        Tracer(model, kind(0.5), tmp_path / "trace", steps=())
    words = str(caught.value)
    assert words.startswith("layer '0': the weight is computed anew in each step")
    assert f"{kind.__name__} has to set weights to zero: leave it alone with skip=('0',)" in words
    assert "\n" not in words
    assert all(map(torch.equal, before, model.parameters()))
    assert not (tmp_path / "trace").exists()
    assert len(train(model.append(nn.Linear(8, 8)), TopKast(0.5), tmp_path, 2)) == 2
    with Tracer(model, kind(0.5), tmp_path / "trace", steps=(), skip=("0",)):
        pass


def test_attention_whose_projection_is_computed(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(8, 2)
    nn.utils.parametrizations.weight_norm(attention, "in_proj_weight")
    with pytest.raises(PolicyError, match=r"layers 'a', 'b': .*leave them .*skip=\('a', 'b'\)"):
        Tracer(
            nn.ModuleDict({"a": attention, "b": parametrizations.weight_norm(nn.Linear(8, 8))}),
            RigL(0.5),
            tmp_path,
            steps=(),
        )


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(
    "policy",
    [
        Transposable(2, every=3),
        TopKast(0.5, every=3),
        ByScore(size, 0.5, every=3, trains="kept"),
        Periodic(SwatU(0.5), 3),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_what_only_masks_follows_computed_weights(policy: Any, made: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), MADE[made](nn.Linear(8, 8)))
    train(model, policy, tmp_path, 7)
    trace = open_trace(tmp_path)
    masks = [trace.step(n).mask("1", "fprop", "weight") for n in range(7)]
    assert all(0 < mask.mean() <= 0.75 for mask in masks)
    if not isinstance(policy, Periodic):
        assert (masks[0] == masks[2]).all()
    assert len({mask.tobytes() for mask in masks}) > 1 or "mask" in made
