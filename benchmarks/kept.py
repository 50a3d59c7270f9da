"""Measure what autograd keeps for the backward pass, and set it beside the model of the footprint.

    python benchmarks/kept.py

Networks without weights of their own training: sizes depend on shapes alone. Writes the README's
table; a test holds it to what comes out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from readme import ROOT, replace

from swatsim.policies import Dense, Policy, SwatU
from swatsim.tracefile import open_trace
from swatsim.tracer.pytorch import Tracer
from swatsim.workload import footprint
from swatsim.workload.measured import compare
from swatsim.workload.networks import network
from tests.tracer.models import MODELS

BATCH = 4
NETWORKS = ("resnet8", "resnet18", "vgg16-cifar", "densenet121-cifar")


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def rows(
    names: Sequence[str] = NETWORKS,
) -> Iterator[tuple[str, nn.Module, torch.Tensor, Any, Policy]]:
    """Name, model, input, table of layers and policy of each row."""
    for name in names:
        build, shape = MODELS[name]
        for policy in (Dense(), SwatU(0.8)):
            yield name, build(), torch.rand(BATCH, *shape), network(name), policy
    yield "two encoder layers, 16 tokens", encoder(), torch.rand(BATCH, 16, 64), None, Dense()


def row(name: str, model: nn.Module, x: torch.Tensor, table: Any, policy: Policy) -> str:
    with tempfile.TemporaryDirectory() as folder:
        arguments: dict[str, Any] = {"steps": (0,), "measure_memory": True}
        with Tracer(model.train(), policy, f"{folder}/t", **arguments) as tracer:
            model(x).sum().backward()
            tracer.step()
        step = open_trace(f"{folder}/t").step(0)
        modelled = footprint.of_masks(step.kept(), network=table, format="dense")
    measured = step.notes["kept"]
    beside = compare(measured["modules"], modelled)
    same = sum(it.measured == it.modelled for it in beside)
    why = "; ".join(dict.fromkeys(it.why for it in beside if it.why))
    mib = (measured["total"] / 2**20, modelled.everything / 2**20)
    how = policy.describe()["name"]
    return f"| {name} | {how} | {mib[0]:.2f} | {mib[1]:.2f} | {same} of {len(beside)} | {why} |"


def lines() -> Iterator[str]:
    torch.manual_seed(0)
    columns = ("policy", "measured MiB", "model MiB", "modules that agree", "why others differ")
    yield f"| network, batch {BATCH} | {' | '.join(columns)} |"
    yield "|---|---|---:|---:|---:|---|"
    for arguments in rows():
        yield row(*arguments)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(replace(path.read_text(), "kept", lines()))
    print("\n".join(lines()))
