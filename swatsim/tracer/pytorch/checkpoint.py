"""A PyTorch checkpoint as tensors by name: loaded with `weights_only`, nothing in it is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swatsim.errors import RecordingError
from swatsim.tracer.stored import Stored
from swatsim.workload.windows import Mask

#: Where training scripts keep a state dict in a checkpoint.
NESTED = ("state_dict", "model_state_dict", "model")
#: What wrappers put before all names: DistributedDataParallel, torch.compile.
PREFIXES = ("module.", "_orig_mod.")


def tensors_of(path: Path) -> dict[str, Stored]:
    """Return the tensors of a state dict, itself or nested in a checkpoint.

    Raises
    ------
    RecordingError
        If there is no state dict, or something in the file would have to be executed.
    """
    state = _state_dict(_loaded(path))
    if state is None:
        raise RecordingError(
            f"{path} has no state dict: save model.state_dict(), itself or under {NESTED[0]!r}"
        )
    tensors = {name: it for name, it in state.items() if isinstance(it, Tensor)}
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): it for name, it in tensors.items()}
    return {name: _stored(f"{path} ({name})", it) for name, it in tensors.items()}


def _loaded(path: Path) -> Any:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            return torch.load(path, mmap=True, **options)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, **options)  # of a format before torch 1.6
    except pickle.UnpicklingError:
        raise RecordingError(
            f"{path} can't be read without executing what is in it, or is damaged: only tensors "
            "and plain values are read; save model.state_dict()"
        ) from None


def _state_dict(loaded: Any) -> Mapping[str, Any] | None:
    """Return what has tensors by name; None: there is no such thing."""
    if not isinstance(loaded, Mapping):
        return None
    own = {name: it for name, it in loaded.items() if isinstance(name, str)}
    if any(isinstance(it, Tensor) for it in own.values()):
        return own
    nested = (_state_dict(own[name]) for name in NESTED if name in own)
    return next((found for found in nested if found is not None), None)


def _stored(where: str, tensor: Tensor) -> Stored:
    wrong = ""
    if tensor.is_meta or tensor.is_quantized:
        wrong = f"it is {'without values' if tensor.is_meta else 'quantized'}"
    return Stored(where, tuple(tensor.shape), partial(_kept, tensor), wrong)


def _kept(tensor: Tensor) -> Mask:
    values = tensor.detach()
    if values.layout != torch.strided:
        values = values.to_dense()
    return np.asarray((values != 0).numpy())
