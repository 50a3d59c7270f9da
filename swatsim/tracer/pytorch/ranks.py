"""Recording a run of several processes, each with its own part of the batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from swatsim.errors import RecordingError
from swatsim.tracer.arguments import Steps


def ranked(
    path: str | os.PathLike[str], steps: Steps, rank: int | None
) -> tuple[str | os.PathLike[str], Steps, dict[str, Any]]:
    """Return where a process records, which steps, and what its trace says of it.

    Parameters
    ----------
    path : path
    steps : collection of int, range or callable
    rank : int, optional
        The only process that records; by default each does, into ``PATH-rank0`` and so on.

    Raises
    ------
    RecordingError
        If there is no such rank.
    """
    if rank is not None and rank < 0:
        raise RecordingError(f"rank={rank!r} is not allowed: must be a process's number, or None")
    own, size = _processes()
    if size == 1:
        if rank:
            raise RecordingError(f"rank={rank} is not allowed: only one process runs, rank 0")
        return path, steps, {}
    if rank is not None and rank >= size:
        raise RecordingError(f"rank={rank} is not allowed: {size} processes run, from rank 0")
    where = {"rank": own, "processes": size, "gradients": "this process's own, before averaging"}
    name = f"{os.fspath(path)}-rank{own}"
    if rank is None or rank == own:
        return (name if rank is None else path), steps, where
    return name, [], where


def _processes() -> tuple[int, int]:
    """Return this process's rank, and how many there are."""
    together = torch.distributed
    if not together.is_available() or not together.is_initialized():
        return 0, 1
    return together.get_rank(), together.get_world_size()


def refuse_sharded(model: torch.nn.Module) -> None:
    """Refuse a model whose parameters are spread over processes.

    Raises
    ------
    RecordingError
        If one is a DTensor, or one of FSDP's first kind, which puts several into one.
    """
    found = next(chain(_flattened(model), _spread(model)), None)
    if found is not None:
        raise RecordingError(
            f"{found}, spread over processes (FSDP, tensor parallelism): a layer's weight is "
            "nowhere whole, and can't be recorded; record an unsharded run of the model, such as "
            "one with DistributedDataParallel"
        )


def _flattened(model: torch.nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            yield f"{f'module {name!r}' if name else 'the model'} is a FullyShardedDataParallel"


def _spread(model: torch.nn.Module) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        kind = type(parameter).__name__
        data = type(getattr(parameter, "data", None)).__name__
        if "DTensor" in (kind, data) or getattr(parameter, "_is_flat_param", False):
            yield f"parameter {name!r} is a {kind}"
