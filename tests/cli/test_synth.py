"""``swatsim synth`` as a user meets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swatsim.policies import POLICIES
from swatsim.tracefile import open_trace
from swatsim.workload.networks import NETWORKS
from swatsim.workload.transformers import Sizes
from tests.command import refusal, swatsim


def refused(*arguments: object) -> str:
    """Run a command that must be refused: one line below the bar, if there is one."""
    code, out, errors = swatsim("synth", *arguments)
    assert out == ""
    lines = [line for line in errors.splitlines() if not line.startswith("drawing")]
    return refusal(code, out, "\n".join(lines))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synth") / "trace"
    chosen = ("--batch", 2, "--sparsity", 0.8, "--seed", 1, "--steps", 2, "--uneven")
    code, out, errors = swatsim("synth", "resnet8", *chosen, "-o", path)
    assert code == 0, errors
    assert f"{path}: 2 steps, 116 masks" in out
    return path


def test_it_makes_the_trace_of_the_network(trace: Path) -> None:
    made = open_trace(trace)
    assert made.layers == NETWORKS["resnet8"]().layers
    assert made.manifest.batch_size == 2
    assert made.manifest.policy == {"name": "swat-u", "sparsity": 0.8, "first_conv_dense": True}
    assert made.manifest.provenance["parameters"]["uneven"] is True


def test_other_verbs_read_it(trace: Path) -> None:
    assert swatsim("check", trace)[0] == 0
    code, out, _ = swatsim("simulate", trace, "-m", "dadiannao", "--step", 0)
    assert code == 0
    assert "1 step of 2 images" in out


def test_the_policy_and_the_densities_can_be_chosen(tmp_path: Path) -> None:
    chosen = ("--policy", "swat-erk", "--act-density", 0.3, "--grad-density", 0.4)
    code, _, errors = swatsim("synth", "resnet8", "--sparsity", 0.9, *chosen, "-o", tmp_path / "t")
    assert code == 0, errors
    step = open_trace(tmp_path / "t").step(0)
    assert step.manifest.policy["name"] == "swat-erk"
    assert step.record("stages.2.conv1", "dgrad", "grad_out").density == pytest.approx(0.4, abs=0.1)
    assert step.record("stages.2.conv1", "fprop", "act").density == pytest.approx(0.3, abs=0.1)


def test_a_run_has_phases(tmp_path: Path) -> None:
    phases = ("--phase", "1=swat-u", "--phase", "2=static-random:0.9")
    chosen = ("--policy", "dense", "--steps", 3, "--sparsity", 0.5, "--batch", 1)
    code, _, errors = swatsim("synth", "resnet8", *chosen, *phases, "-o", tmp_path / "t")
    assert code == 0, errors
    made = open_trace(tmp_path / "t")
    masks = [made.step(n).mask("stages.2.conv1", "fprop", "weight") for n in made.steps]
    assert [mask.mean() for mask in masks] == pytest.approx([1, 0.5, 0.05], abs=0.06)
    assert "policy: dense, then swat-u " in repr(made)
    assert "from step 1 on, then static-random " in repr(made)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ("swat-u", "'swat-u' is not allowed: must be STEP=POLICY or STEP=POLICY:SPARSITY"),
        ("1=swat-u:much", "'1=swat-u:much' is not allowed"),
        ("1=swatu", "unknown policy 'swatu': did you mean 'swat-u'?"),
        ("0=swat-u", r"begin with steps [0, 0]"),
    ],
)
def test_phases_that_are_refused(phase: str, message: str, tmp_path: Path) -> None:
    chosen = ("--sparsity", 0.5, "--phase", phase, "-o", tmp_path / "t")
    assert message in refused("resnet8", *chosen)


def test_a_transformers_activation_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(NETWORKS["gpt2-small"], sizes=Sizes(1, 8, 2, 16, 4, 10))
    monkeypatch.setitem(NETWORKS, "gpt2-small", small)  # type: ignore[arg-type]
    for activation, share in (((), 1), (("--activation", "relu"), 0.5)):
        chosen = ("--batch", 8, "--sparsity", 0, *activation, "-o", tmp_path / f"{share}")
        assert swatsim("synth", "gpt2-small", *chosen)[0] == 0
        step = open_trace(tmp_path / f"{share}").step(0)
        found = step.record("transformer.h.0.mlp.c_proj", "fprop", "act").density
        assert found == pytest.approx(share, abs=0.1)


def test_the_help_names_every_network_and_policy() -> None:
    out = " ".join(swatsim("synth", "--help")[1].split())
    assert all(f"{name} {it.citation[:20]}" in out for name, it in NETWORKS.items())
    assert all(f"{name} {it.summary()[:20]}" in out for name, it in POLICIES.items())


def test_bad_input_is_refused(tmp_path: Path, trace: Path) -> None:
    good = ("--sparsity", 0.8, "-o", tmp_path / "t")
    assert "did you mean 'resnet50'" in refused("resnet51", *good)
    assert "exists already" in refused("resnet8", "--sparsity", 0.8, "-o", trace)
    assert "batch=0 is not allowed" in refused("resnet8", *good, "--batch", 0)
    assert "steps=0 is not allowed" in refused("resnet8", *good, "--steps", 0)
    assert "seed=-1 is not allowed" in refused("resnet8", *good, "--seed", -1)
    assert "act_density=0.0 is not allowed" in refused("resnet8", *good, "--act-density", 0)
    assert "unknown policy 'swat'" in refused("resnet8", *good, "--policy", "swat")
    assert "must be a number in [0, 1)" in refused("resnet8", "--sparsity", 1, "-o", tmp_path / "t")
    assert "Missing option" in refused("resnet8", "-o", tmp_path / "t")
    assert "resnet8 is no transformer" in refused("resnet8", *good, "--activation", "relu")
    assert "unknown activation 'glu': did you mean 'gelu'?" in refused(
        "gpt2-small", *good, "--activation", "glu"
    )
    assert not (tmp_path / "t").exists()
