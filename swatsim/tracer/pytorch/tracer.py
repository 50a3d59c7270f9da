"""Training a PyTorch model with a sparse policy, and recording what it computes.

In three lines of a user's script::

    with Tracer(model, SwatU(0.8), "runs/mine", steps=(0, 500, 999), images=8) as tracer:
        for x, y in loader:
            ...; loss.backward(); optimizer.step()
            tracer.step()
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from swatsim.arguments import arguments
from swatsim.errors import RecordingError, listed
from swatsim.policies import allocate_once, begin_run
from swatsim.policies.interface import Policy
from swatsim.tracer.arguments import Steps, describe_policy
from swatsim.tracer.pytorch.known_layers import check_kept, computed, known_layers
from swatsim.tracer.pytorch.modules import Depth
from swatsim.tracer.pytorch.private import apart
from swatsim.tracer.pytorch.ranks import refuse_sharded
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.run import RECORDING, Run, compile_again, force_eager
from swatsim.tracer.pytorch.skipping import checked_skip
from swatsim.tracer.pytorch.sparse_model import SparseModel
from swatsim.tracer.pytorch.watch import checked_names
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)


class Tracer(Run):
    """Trains a model's layers sparsely, and records some of the steps.

    Whatever multiplies by a parameter of the model, by a part of one, or by what is computed from
    parameters alone is a layer: modules, whatever their forward does, functions (``F.linear``,
    ``F.conv2d``, ``@``, ``addmm``, ``bmm``, ``einsum``, ..), the projections of torch's attention,
    each expert of several. It is called after the parameter. While the tracer is open, each reads
    what the policy leaves of its operands. With `SwatU`: Top-K weights forward and for the input
    gradient, Top-K activations for the weight gradient, gradients and bias dense; the weights
    themselves stay dense and all of them are trained. In eval mode and under ``no_grad`` the layers
    are as sparse, and nothing is recorded. Gradients of gradients, as in a gradient penalty, take
    the masks as they are.

    Nothing of the model is touched: it is seen by torch's global hooks, in every thread. A policy
    that keeps masks (`RigL`, ..) alone sets weights outside them to zero, in `step`. A deepcopy or
    pickle made meanwhile is an ordinary dense model; so is the model after `close`. Compiled
    functions run as they were written while the tracer is open (``force_eager``).

    What multiplies in a kernel of its own stays dense, and one warning names it: recurrent modules,
    scripted ones, functions with a backward of their own, complex numbers, tensor subclasses,
    transforms of torch.func; with a policy that keeps masks also weights that are computed anew in
    each step, and with one that shares densities out what it was not told of. It is told of torch's
    own kinds of modules, and of other parameters that look like matrices. Methods of the model's
    that are called outside of its forward are seen as far as they call its modules.

    Products of two activations, as in attention, are computed as torch does it, and recorded.

    A recorded step holds, for each layer, the non-zeros of what fprop, dgrad and wgrad read, in
    the shapes of `Layer.shape_of`; dgrad only where the layer's input needs a gradient. A linear
    layer that is applied to T positions of each sample is a convolution of T x 1; rows that can't
    be told apart by samples (an expert's tokens, boxes) are positions of one sample, and recorded
    whole. A layer that runs again in the same step (shared weights, gradient accumulation,
    recomputation in a checkpoint) is recorded again, as ``NAME@2``. Steps may differ in batch,
    lengths and image sizes. A layer that a trace can't hold is left out, and named in a warning; so
    is a step in which the model runs more than 256 times, for its end seems forgotten. What goes
    wrong in recording ends the recording, never the training: see `error`. docs/howto/record.md has
    what a recorded step costs.

    Parameters
    ----------
    model : torch.nn.Module
    policy : Policy
        For example ``SwatU(0.8)``. One with an ``allocate`` method is given all layers.
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    steps : collection of int, range, or callable of int to bool
        Which training steps are recorded, counted from 0.
    images : int, optional
        How many samples of a batch are recorded, the first ones, or all of a smaller batch; all by
        default. Top-K is over the whole batch all the same.
    skip : collection of str
        Names, as in ``model.named_modules()``, of modules to leave alone with all that is in them,
        or shell patterns such as ``"blocks.*.attn"``; of parameters, too. One that matches nothing
        is refused. None of them counts as the network's first convolution.
    batch_axis : {0, 1}
        Where the samples are in a model's input of three axes or more that is no image, and in ids
        of two: 1 for a transformer with ``batch_first=False``.
    batch : int, optional
        Samples of a batch, where the model's first input does not show it, as where its tokens or
        nodes are in one axis: by default that axis's length, or that of a list of tensors.
    rows : {"samples", "tokens"}
        What the rows of a linear layer without further axes are: samples where they can be followed
        from the model's inputs, or always positions of one sample, which are recorded whole.
    rank : int, optional
        The process that records, of several (DistributedDataParallel); by default each does, its
        part of the batch and its gradients before they are averaged, into ``PATH-rank0`` and so on.
    measure_memory : bool
        Store in a recorded step the most that autograd holds at once of what it saves for the
        backward pass, as `Kept` measures it.
    append : bool
        Go on with the trace at `path`, if there is one of the same policy and images.
        Its steps are not recorded again.
    overwrite : bool
        Replace the trace at `path`, if there is one, as soon as the first step is written: a run
        that fails before leaves it as it was.
    start : int
        The first step's number: a run that goes on from a checkpoint after 5000 steps says 5000,
        unless it calls `load_state_dict`, which knows.

    Raises
    ------
    RecordingError
        If an argument is not allowed, the model has nothing to run sparsely, another tracer runs it
        already, or its parameters are spread over processes.
    PolicyError
        If the policy can't be allocated to the model's layers, or sets weights to zero and there is
        one that is computed anew in each step.
    TraceError
        If something is at `path` already that is neither continued nor replaced, or can't be, or
        another run is writing it.
    """

    @arguments(RecordingError, **RECORDING)
    def __init__(
        self,
        model: nn.Module,
        policy: Policy,
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
        refuse_sharded(model)
        self._known = known_layers(modules, skipped)
        chosen = allocate_once(policy, [each.layer for each in self._known])
        self._policy, self._sparsifier = chosen, begin_run(chosen)
        self._sparsifier.refuse_computed(computed(modules, skipped))
        if self._sparsifier.keeps_masks:
            check_kept(modules, self._known, type(policy).__name__)
        self._said: set[str] = set()
        self._eager = False
        super().__init__(
            model,
            chosen,
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
        hands = (self._record_layer, self._stop_recording, self._enter_model)
        self._sparse = SparseModel(model, self._sparsifier, skipped, *hands)
        self._sparse.end_step(self.number)
        self._enter_model()

    def report(self) -> dict[str, Any]:
        """Return, as JSON, what the policy did and no mask shows: the drift of densities, say."""
        return self._sparsifier.report()

    def step(self) -> None:
        """End a training step, after the optimizer's: write it if it is one of `steps`.

        A policy that keeps masks sets the weights outside them to zero. After `close` it does
        nothing.
        """
        if not self._open:
            return
        number = self.number
        self._say_alone()
        super().step()
        weights = self._sparse.weights
        shown = {name: apart(weight) for name, weight in weights.items()}
        for name, new in self._sparsifier.end_step(number, shown).items():
            weights[name].copy_(new)
        self._sparse.end_step(self.number)

    def state_dict(self) -> dict[str, Any]:
        """Return what a restarted run needs beside the model's and the optimizer's states.

        That is the number of the step, and the masks, thresholds and momenta that the policy keeps:
        dicts, numbers, strings and tensors, for ``torch.save``. The states of random generators and
        of the order of the data are yours to keep.
        """
        described = describe_policy(self._policy)
        return {"step": self.number, "policy": described, "kept": self._sparsifier.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, before the first step.

        The next step has the number that was saved, whatever `start` said. Tensors are moved to the
        model's device.

        Raises
        ------
        RecordingError
            If it is not of this policy.
        """
        described = describe_policy(self._policy)
        if not isinstance(state, dict) or state.get("policy") != described:
            got = state.get("policy") if isinstance(state, dict) else type(state).__name__
            raise RecordingError(
                f"the state is of the policy {got}, expected one of {described}: pass what "
                "state_dict() gave, of a run with the same policy"
            )
        self._end()
        self._session.go_on(state["step"])
        device = next(self._model.parameters()).device
        self._sparsifier.load(_moved(state["kept"], device))
        self._sparse.end_step(self.number)
        if self._open:
            self._begin()

    def close(self) -> None:
        """Leave the model dense again; a step that was not ended is not recorded."""
        if self._open:
            self._say_alone()
            self._sparse.close()
            if self._eager:
                compile_again()
        super().close()

    def _left_alone(self) -> dict[str, str]:
        return self._sparse.alone

    def _layers(self) -> list[str]:
        # an expert may have had no token
        named = [each.layer.name for each in self._known if each.is_module]
        out = self._sparse.alone.keys() | self._sparse.unrecorded.keys()
        return [name for name in named if name not in out]

    def _notes(self) -> dict[str, Any]:
        return {"policy": self._sparsifier.report()}

    def _record_layer(
        self, layer: Layer, x: Tensor, axis: int | None, depth: Depth | None
    ) -> Recording | None:
        """Begin to record a layer's run, if this step is recorded."""
        return self._recording(layer, x, axis, depth=depth)

    def _stop_recording(self, error: Exception) -> None:
        """Record no more, for something went wrong in recording, and go on training."""
        with self._session.guarded():
            raise error

    def _enter_model(self) -> None:
        """Run compiled functions as they were written from now on, if there may be any."""
        if not self._eager:
            self._eager = force_eager()

    def _say_alone(self) -> None:
        """Warn in one line of what was found to be left dense, or out of the trace, since."""
        what = {"dense": self._sparse.alone, "out of the trace": self._sparse.unrecorded}
        found = {(how, name): why for how, each in what.items() for name, why in each.items()}
        new = {key: why for key, why in found.items() if key[1] not in self._said}
        self._said |= {name for _, name in new}
        words = [f"{name!r} {how} ({why})" for (how, name), why in new.items()]
        if words:
            log.warning("left: %s", listed(words))


def _moved(state: Any, device: torch.device) -> Any:
    """Return a copy of a state of dicts, its tensors on a device."""
    if isinstance(state, dict):
        return {key: _moved(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state
