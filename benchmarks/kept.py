"""Measure what autograd keeps for the backward pass, and set it beside the model of the footprint.

    python benchmarks/kept.py

Networks that ship from a trace and their table, today's (small, in tests/tracer/today.py) from the
table of `layer_table`. Without weights of their own training: sizes depend on shapes alone. Writes
the table of a page; a test holds it to what comes out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from pages import put

from swatsim.policies import Dense, Policy, SwatU
from swatsim.tracefile import open_trace
from swatsim.tracer.pytorch import Kept, Tracer, layer_table
from swatsim.workload import footprint
from swatsim.workload.measured import compare
from swatsim.workload.networks import network
from tests.tracer.models import MODELS
from tests.tracer.today import TODAY

BATCH = 4
NETWORKS = ("resnet8", "resnet18", "vgg16-cifar", "densenet121-cifar")


def rows(names: Sequence[str] = NETWORKS) -> Iterator[tuple[str, Policy]]:
    """Name and policy of each row; of today's networks the table says what is kept, of any."""
    for name in names:
        for policy in (Dense(), SwatU(0.8)):
            yield name, policy
    for name in TODAY:
        yield name, Dense()


def row(name: str, policy: Policy) -> str:
    """A row of the table."""
    measured, modelled = today(name) if name in TODAY else shipped(name, policy)
    beside = compare(measured["modules"], modelled)
    same = sum(it.measured == it.modelled for it in beside)
    why = "; ".join(dict.fromkeys(it.why for it in beside if it.why))
    mib = (measured["total"] / 2**20, modelled.everything / 2**20)
    how = policy.describe()["name"]
    return f"| {name} | {how} | {mib[0]:.2f} | {mib[1]:.2f} | {same} of {len(beside)} | {why} |"


def shipped(name: str, policy: Policy) -> tuple[Any, footprint.Footprint]:
    """What is measured of a network that ships, and what its table says of the masks."""
    build, shape = MODELS[name]
    model, x = build().train(), torch.rand(BATCH, *shape)
    with tempfile.TemporaryDirectory() as folder:
        arguments: dict[str, Any] = {"steps": (0,), "measure_memory": True}
        with Tracer(model, policy, f"{folder}/t", **arguments) as tracer:
            model(x).sum().backward()
            tracer.step()
        step = open_trace(f"{folder}/t").step(0)
        modelled = footprint.of_masks(step.kept(), network=network(name), format="dense")
    return step.notes["kept"], modelled


def today(name: str) -> tuple[Any, footprint.Footprint]:
    """What is measured of one of today's networks, and what its table says."""
    build, inputs = TODAY[name]
    model = build()
    modelled = footprint.of_network(layer_table(model, inputs(2)), batch=BATCH)
    with Kept(model) as kept:
        model(inputs(BATCH))
    return kept.describe(), modelled


def lines() -> Iterator[str]:
    torch.manual_seed(0)
    columns = ("policy", "measured MiB", "model MiB", "modules that agree", "why others differ")
    yield f"| network, batch {BATCH} | {' | '.join(columns)} |"
    yield "|---|---|---:|---:|---:|---|"
    for arguments in rows():
        yield row(*arguments)


if __name__ == "__main__":
    found = list(lines())
    put("kept", found)
    print("\n".join(found))
