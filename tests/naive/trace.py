"""The twin of the trace's reader: its README in plain Python, for traces that are whole.

What the README calls refused is an assertion here.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from safetensors.numpy import load

READS = {
    "fprop": ("weight", "act"),
    "dgrad": ("weight", "grad_out"),
    "wgrad": ("act", "grad_out"),
}
DEFAULTS = {
    **dict(kind="conv", H=1, W=1, R=1, S=1, groups=1),  # noqa: C408
    **dict(stride=[1, 1], dilation=[1, 1], padding=[[0, 0], [0, 0]]),  # noqa: C408
}
LAYER = {"name", "C", "K", *DEFAULTS}


@dataclass
class NaiveStep:
    """One step: `layers` holds (layer, batch, samples) in their order."""

    batch_size: int
    layers: list[tuple[dict[str, Any], int, int]]
    masks: dict[tuple[str, str, str], np.ndarray]
    dtypes: dict[tuple[str, str, str], str | None]
    coverage: dict[str, Any] | None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class NaiveTrace:
    """A whole trace; `id` is None in format 1."""

    version: int
    manifest: dict[str, Any]
    id: str | None
    steps: dict[int, NaiveStep]


def blake(text: str | bytes) -> str:
    return blake2b(text.encode() if isinstance(text, str) else text, digest_size=8).hexdigest()


def crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def one_form(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=once)


def whole_layer(layer: dict[str, Any]) -> dict[str, Any]:
    assert set(layer) <= LAYER
    found = {**DEFAULTS, **layer}
    assert found["C"] % found["groups"] == found["K"] % found["groups"] == 0
    return found


def out(layer: dict[str, Any], axis: int) -> int:
    size, taps = layer["HW"[axis]], layer["RS"[axis]]
    stride, dilation = layer["stride"][axis], layer["dilation"][axis]
    before, after = layer["padding"][axis]
    if layer["kind"] == "conv_transpose":
        return (size - 1) * stride + (taps - 1) * dilation + 1 - before - after
    return (size + before + after - (taps - 1) * dilation - 1) // stride + 1


def shape_of(layer: dict[str, Any], operand: str, n: int) -> tuple[int, ...]:
    C, K, groups = layer["C"], layer["K"], layer["groups"]
    if layer["kind"] == "linear":
        return {"weight": (K, C), "act": (n, C), "grad_out": (n, K)}[operand]
    window = layer["R"], layer["S"]
    weight = (K, C // groups) if layer["kind"] == "conv" else (C, K // groups)
    return {
        "weight": (*weight, *window),
        "act": (n, C, layer["H"], layer["W"]),
        "grad_out": (n, K, out(layer, 0), out(layer, 1)),
    }[operand]


def read(path: Path) -> NaiveTrace:
    """Read a trace whole."""
    manifest = read_json((path / "manifest.json").read_text("utf-8"))
    assert manifest["format"] == "swatsim-trace"
    version = manifest["schema_version"]
    digest = manifest.pop("digest")
    assert digest == blake(one_form(manifest))
    names = [layer["name"] for layer in manifest["layers"]]
    assert len(set(names)) == len(names)
    manifest["layers"] = [whole_layer(layer) for layer in manifest["layers"]]
    files = {int(file.stem): file for file in (path / "steps").glob("*.safetensors")}
    seen, steps = blake2b(one_form(manifest["samples"]).encode(), digest_size=8), {}
    for number, file in sorted(files.items()):
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        texts = read_json(content[8 : 8 + size].decode())["__metadata__"]
        assert (texts["format"], texts["schema_version"]) == ("swatsim-trace", str(version))
        of_version = read_step if version == 2 else read_old_step
        steps[number] = of_version(texts, load(content), manifest)
        seen.update(f"{number}:{bound(texts)}".encode())
    return NaiveTrace(version, manifest, seen.hexdigest() if version == 2 else None, steps)


def bound(texts: dict[str, str]) -> str:
    keys = ("batch_size", "layers", "masks", "coverage")
    return "\n".join(texts.get(key, "") for key in keys)


def read_step(
    texts: dict[str, str], tensors: dict[str, np.ndarray], manifest: dict[str, Any]
) -> NaiveStep:
    assert texts["digest"] == blake(bound(texts))
    layers = []
    for entry in read_json(texts["layers"]):
        assert set(entry) == {"layer", "batch", "samples"}
        assert 1 <= entry["samples"] <= entry["batch"] <= 2**31
        layers.append((whole_layer(entry["layer"]), entry["batch"], entry["samples"]))
    assert {layer["name"] for layer, _, _ in layers} <= {it["name"] for it in manifest["layers"]}
    coverage = read_json(texts["coverage"]) if "coverage" in texts else None
    if coverage is not None:
        check_coverage(coverage)
    step = NaiveStep(int(texts["batch_size"]), layers, {}, {}, coverage, read_notes(texts))
    read_masks(step, read_json(texts["masks"]), tensors)
    assert {layer for layer, _, _ in step.masks} == {layer["name"] for layer, _, _ in layers}
    return step


def read_old_step(
    texts: dict[str, str], tensors: dict[str, np.ndarray], manifest: dict[str, Any]
) -> NaiveStep:
    batch, samples = int(texts["batch_size"]), manifest["samples"]
    assert texts["crc32"] == crc(f"{batch} {texts['masks']}")
    masks, layers = read_json(texts["masks"]), manifest["layers"]
    bare = [
        {key: value for key, value in layer.items() if DEFAULTS.get(key) != value}
        for layer in layers
        if layer["name"] in {mask["layer"] for mask in masks}
    ]
    assert texts["layers_digest"] == blake(one_form([manifest["batch_size"], samples, bare]))
    own = [(layer, batch, len(samples)) for layer in layers]
    step = NaiveStep(batch, own, {}, {}, None, read_notes(texts))
    read_masks(step, [{**mask, "dtype": None} for mask in masks], tensors)
    return step


def read_notes(texts: dict[str, str]) -> dict[str, Any]:
    if "notes" not in texts:
        return {}
    assert texts["notes_crc32"] == crc(texts["notes"])
    return dict(read_json(texts["notes"]))


def read_masks(
    step: NaiveStep, entries: list[dict[str, Any]], tensors: dict[str, np.ndarray]
) -> None:
    by_name = {layer["name"]: (layer, samples) for layer, _, samples in step.layers}
    for entry in entries:
        key = entry["layer"], entry["op"], entry["operand"]
        assert key not in step.masks
        assert entry["operand"] in READS[entry["op"]]
        layer, samples = by_name[entry["layer"]]
        shape = tuple(entry["shape"])
        assert shape == shape_of(layer, entry["operand"], samples)
        bits = np.ones(prod(shape), np.uint8)
        if entry["codec"] == "zstd":
            packed = zstandard.decompress(tensors[entry["tensor"]].tobytes())
            assert entry["digest"] == blake(packed)
            assert len(packed) == -(-len(bits) // 8)
            i = np.arange(len(bits))
            bits = np.frombuffer(packed, np.uint8)[i // 8] >> (i % 8).astype(np.uint8) & 1
        assert entry["bitorder"] == "little"
        assert entry["ones"] == bits.sum()
        step.masks[key] = bits.astype(bool).reshape(shape)
        step.dtypes[key] = entry["dtype"]


def check_coverage(coverage: dict[str, Any]) -> None:
    for way in ("forward", "backward"):
        rest = coverage["seen"][way] - coverage["held"][way]
        assert 0 <= sum(part[way] for part in coverage.get("not_held", [])) <= rest
