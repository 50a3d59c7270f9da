"""Small traces for tests: made, not recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from swatsim.tracefile import Coverage, OtherWork, Trace, open_trace
from swatsim.tracefile.format_1 import layers_digest
from swatsim.tracefile.header import crc
from swatsim.tracefile.schema import FORMAT, MANIFEST, Manifest, dump_manifest
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer

LAYERS = (
    Layer(name="stem", C=3, K=8, H=12, W=12, R=3, S=3, padding=1),
    Layer(name="block.conv", C=8, K=16, H=12, W=12, R=3, S=3, stride=2, padding=1),
    Layer(name="depthwise", C=16, K=16, H=6, W=6, R=3, S=3, padding=1, groups=16),
    Layer(name="fc", kind="linear", C=16, K=10),
)
DENSITY = {"weight": 0.2, "act": 0.5, "grad_out": 1.0}


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def as_format_1(path: Path) -> Trace:
    """Make of a trace, whose steps all have the manifest's shapes, what swatsim 0.1 wrote."""
    trace, found = open_trace(path), open_trace(path).manifest
    samples = found.samples or range(found.batch_size)
    fields = {"layers": found.layers, "policy": found.policy, "provenance": found.provenance}
    old = Manifest(schema_version=1, batch_size=found.batch_size, samples=samples, **fields)
    (path / MANIFEST).write_bytes(dump_manifest(old))
    for step in map(trace.step, trace.steps):
        with safe_open(step.path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        dumped = [record.model_dump(mode="json", exclude={"dtype"}) for record in step.records]
        masks = json.dumps(dumped, sort_keys=True)
        own = {"format": FORMAT, "schema_version": "1", "batch_size": str(step.batch_size)}
        own |= {"masks": masks, "crc32": crc(f"{step.batch_size} {masks}")}
        own |= {key: text for key, text in metadata.items() if key.startswith("notes")}
        own["layers_digest"] = layers_digest({record.layer for record in step.records}, old)
        step.path.write_bytes(save(tensors, metadata=own))
    return open_trace(path)


def make_trace(
    path: Path,
    steps: tuple[int, ...] = (0, 7),
    samples: int = 2,
    layers: tuple[Layer, ...] = LAYERS,
    *,
    dtypes: Mapping[str, str] | None = None,
    coverage: Coverage | None = None,
    others: Sequence[OtherWork] | None = None,
) -> Trace:
    """Write a trace of random masks: dense stem without dgrad, fprop and wgrad with other acts.

    `dtypes` are the value types of operands, `coverage` and `others` are those of each step.
    """
    rng = np.random.default_rng(17)
    recorder = Recorder(path, batch_size=8, samples=range(samples), policy={"name": "random"})
    for layer in layers:
        recorder.declare(layer)
    for number in steps:
        with recorder.step(number) as step:
            for layer in layers:
                masks = {
                    operand: rng.random(layer.shape_of(operand, samples)) < density
                    for operand, density in DENSITY.items()
                }
                for op in OPS:
                    if (layer.name, op) == ("stem", "dgrad"):
                        continue
                    for operand in OPERANDS_OF[op]:
                        mask = masks[operand]
                        if (op, operand) == ("wgrad", "act"):
                            mask = mask & (rng.random(mask.shape) < 0.4)
                        step.operand(layer.name, op, operand, mask, (dtypes or {}).get(operand))
            step.coverage, step.others = coverage, others
    recorder.close()
    return open_trace(path)


def part_of(trace: Trace, path: Path, samples: Sequence[int], batch: int | None = None) -> Trace:
    """Record some of a trace's images, as those of a batch of its size or of another.

    What else its steps do is noted of the trace's own batch.
    """
    size, chosen = batch or trace.manifest.batch_size, list(samples)
    held = None if len(chosen) == size else range(len(chosen))
    with Recorder(path, batch_size=size, samples=held) as recorder:
        for layer in trace.layers:
            recorder.declare(layer)
        for step in map(trace.step, trace.steps):
            with recorder.step(step.number) as record:
                record.others = step.others
                for layer, name in step.ops():
                    op = step.op(layer, name)
                    for operand, mask in op.operands.items():
                        own = mask[chosen] if op.has_samples(operand) else mask
                        record.operand(layer.name, name, operand, own)
    return open_trace(path)
