"""What a layer table calls a tensor that autograd saves: its operation, its part, its type."""

from __future__ import annotations

import re

import torch
from torch import nn

from swatsim.tracer.pytorch.graph import PRODUCTS, Saved
from swatsim.workload.tables import VALUES

#: What an operation is called in a table, where not in torch's words; and its parts.
_KINDS = {"native_dropout": "dropout", "safe_softmax": "softmax"}
_PARTS = {"self": "input", "result": "output", "result1": "indices"}
_FACTORS = {
    "mul": {"self": "factor", "other": "other factor"},
    "bmm": {"self": "left", "mat2": "right"},
    "baddbmm": {"batch1": "left", "batch2": "right"},
}

#: Value types as a footprint has them.
TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.bool: "bool",
}


def size_of(found: Saved) -> int:
    """Return the elements of a storage; the bytes of one whose type a footprint has no name for."""
    return found.elements if found.dtype in TYPES else found.size


def values_of(saved: list[Saved], model: nn.Module) -> torch.dtype:
    """Return the type of the values: that of the layers' inputs, else of the parameters."""
    inputs = [it for it in saved if it.operation in PRODUCTS and it.dtype.is_floating_point]
    types = [it.dtype for it in inputs] or [it.dtype for it in model.parameters()]
    return max(set(types), key=types.count) if types else torch.float32


def dtype_of(found: Saved, values: torch.dtype) -> str:
    """Return a storage's type as a footprint has it; that of the values is whatever they are."""
    return VALUES if found.dtype == values else TYPES.get(found.dtype, "byte")


def is_one_of_torchs(module: nn.Module) -> bool:
    """Whether a module is a single operation of torch's, such as nn.ReLU."""
    is_torchs = type(module).__module__.startswith("torch.nn.modules.")
    return is_torchs and not list(module.children())


def operation_of(found: Saved) -> str:
    """Return what a row of a function is called after."""
    if found.is_dropout:
        return "dropout"
    name = found.operation.removeprefix("native_").removesuffix("_with_indices")
    return _KINDS.get(found.operation, name)


def kind_of(found: Saved) -> str:
    """Return the kind of what is saved."""
    name = operation_of(found)
    if found.part == "other" and isinstance(found.frame.module, nn.modules.dropout._DropoutNd):
        return "dropout"
    name = re.sub(r"^(adaptive_)?(max|avg)_pool.*", r"\2_pool", name)
    if "batch_norm" in name:
        name = "batch_norm"
    if name in ("batch_norm", "layer_norm", "group_norm") and found.part.startswith("result"):
        return "statistics"
    return "max_pool_indices" if (name, found.part) == ("max_pool", "result1") else name


def part_of(found: Saved, kind: str) -> str:
    """Return which tensor of its operation it is."""
    if kind == "statistics":
        return "statistics"
    if kind == "dropout":
        return "mask"
    parts = _FACTORS.get(kind, _PARTS)
    return parts.get(found.part, found.part)
