"""Recording a run as it is, its masks made by whoever trains it."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from torch import nn

from swatsim.arguments import arguments
from swatsim.errors import RecordingError
from swatsim.tracer.arguments import Steps
from swatsim.tracer.pytorch.inside import traced
from swatsim.tracer.pytorch.ranks import refuse_sharded
from swatsim.tracer.pytorch.run import RECORDING, Run
from swatsim.tracer.pytorch.skipping import checked_skip
from swatsim.tracer.pytorch.watch import checked_names


class Observer(Run):
    """Records some steps of a run that is sparse already, and changes nothing about it.

    Whatever made zeros is seen as it is computed: pruned weights, `torch.nn.utils.prune`, a mask
    that a module of its own multiplies with, structured 2:4 tensors, a ReLU. A layer is whatever
    multiplies by a parameter of the model, by a part of one, or by what is computed from
    parameters alone, and any product of two activations, as attention's scores and values
    (``MODULE.scores``, ``MODULE.values``, ``MODULE.matmul``), in whichever way that is written, for
    operations are seen as torch dispatches them: modules, functions, torch's attention, experts,
    recurrent cells, functions with a backward of their own, scripted modules. It is called after
    the parameter; a second run in the same step ``NAME@2``. A recorded step says which share of its
    multiplications that is. What a backward pass does not compute is not recorded. Steps that are
    not recorded run without any hook.

    A model in eval mode is taken for evaluation, not a part of one that trains; so is what runs
    without gradients, unless that is in the forward pass of a `torch.autograd.Function`, as in a
    checkpoint.

    Under `torch.compile` a recorded step runs uncompiled. docs/howto/record.md has what a
    recorded step costs.

    ::

        with Observer(model, "runs/mine", steps=(0, 500, 999), images=8) as observer:
            for x, y in loader:
                ...; loss.backward(); optimizer.step()
                observer.step()

    Parameters
    ----------
    model : torch.nn.Module
    path, steps, images, batch_axis, batch, rows, rank, measure_memory, append, overwrite, start
        As in `Tracer`.
    skip : collection of str
        Modules and parameters that are not recorded, as in `Tracer`.

    Raises
    ------
    RecordingError
        If an argument is not allowed, a `Tracer` runs the model, or its parameters are spread over
        processes.
    TraceError
        If something is at `path` already that is neither continued nor replaced, or can't be, or
        another run is writing it.
    """

    @arguments(RecordingError, **RECORDING)
    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        steps: Steps,
        images: int | None = None,
        skip: Collection[str] = (),
        batch_axis: int = 0,
        batch: int | None = None,
        rows: str = "samples",
        rank: int | None = None,
        measure_memory: bool = False,
        append: bool = False,
        overwrite: bool = False,
        start: int = 0,
    ) -> None:
        modules = checked_names(model)
        skipped = checked_skip(skip, modules)
        for name, module in modules.items():
            if traced(module):
                raise RecordingError(
                    f"layer {name!r} is run by a Tracer, which records it: close that first, or "
                    "observe another model"
                )
        refuse_sharded(model)
        super().__init__(
            model,
            _Observed(),
            path,
            skip=skipped,
            batch_axis=batch_axis,
            batch=batch,
            rows=rows,
            rank=rank,
            measure_memory=measure_memory,
            steps=steps,
            images=images,
            append=append,
            overwrite=overwrite,
            start=start,
        )


class _Observed:
    """In place of a policy: it is not known what made the zeros."""

    def density(self, site: object) -> None:
        """Leave every operand as it is: no share is chosen."""

    def describe(self) -> dict[str, Any]:
        """Return the name under which a trace has such a run."""
        return {"name": "observed"}
