"""What multiplies in a step: which of it is a layer, recorded as it is computed; and what is not.

A layer is whatever multiplies by a parameter, or by what is computed from parameters alone, in
whichever way it is written: operations are seen as torch dispatches them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.function import BackwardCFunction

from swatsim.errors import SwatsimError
from swatsim.tracefile.coverage import Coverage
from swatsim.tracer.pytorch.activations import Activations, Record
from swatsim.tracer.pytorch.attention import FORWARD, Attention
from swatsim.tracer.pytorch.factors import Factors, Part, factors, parts
from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.inputs import Given
from swatsim.tracer.pytorch.inside import in_checkpoint
from swatsim.tracer.pytorch.naming import Names
from swatsim.tracer.pytorch.origins import Origin, Origins, tensors
from swatsim.tracer.pytorch.private import current_node, in_function, others_pack
from swatsim.tracer.pytorch.products import macs
from swatsim.tracer.pytorch.recurrence import FUSED, Recurrence, Recurrent
from swatsim.tracer.pytorch.samples import MIXED, Place, Samples
from swatsim.tracer.pytorch.shares import Phase, Shares
from swatsim.tracer.pytorch.skipping import is_skipped
from swatsim.tracer.pytorch.unlinked import Unlinked
from swatsim.tracer.pytorch.watch import Frame, names, trains

log = logging.getLogger(__name__)

NO_GRADIENTS = "runs without gradients"
EVALUATION = "runs in eval mode"
OUTSIDE = "outside of the model"
SKIPPED = "left alone by skip="
NO_LAYER = "a layer that can't be recorded"

#: What runs as one kernel.
_KINDS: dict[Any, type[Product]] = {
    **dict.fromkeys(FUSED, Recurrent),
    **dict.fromkeys(FORWARD, Attention),
}


class _Thread(local):
    """What a thread is at.

    Attributes
    ----------
    computing : bool
        Whether what is multiplied is in the trace already.
    waiting : list of (Product, torch.Tensor)
        Products, with their outputs, whose nodes torch has not made yet.
    products : list of Product
        Those whose gradients are computed, the innermost last.
    """

    def __init__(self) -> None:
        self.computing = False
        self.waiting: list[tuple[Product, Tensor]] = []
        self.products: list[Product] = []


class Recognition:
    """Sees the operations of one step.

    Parameters
    ----------
    model : torch.nn.Module
    skip : collection of str
        Names of modules that are left alone.
    frames : callable
        Gives the modules that run in this thread, the innermost last.
    record : callable
    guarded : callable
        Gives a context from which nothing is raised: who trains is never stopped.
    """

    def __init__(
        self,
        model: nn.Module,
        skip: Collection[str],
        frames: Callable[[], list[Frame]],
        record: Record,
        guarded: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._model = model
        self.names = Names(names(model))
        self.origins = Origins(self.names, partial(names, model), frames)
        self._batch: int | None = None
        self._samples = Samples(0)
        self.shares = Shares()
        #: Parameters that got a gradient.
        self.learnt: set[int] = set()
        #: Names of layers that are in the step.
        self.recorded: set[str] = set()
        self._skip, self._frames, self._record = frozenset(skip), frames, record
        self.guarded = guarded
        self._unlinked = Unlinked()
        hands = (self.place, frames, self._taken, self.shares, self._unlinked)
        self._activations = Activations(record, *hands)
        #: What multiplies by a parameter, and is in no layer: name -> what it is.
        self._missed: dict[str, str] = {}
        self._here = _Thread()

    def see(self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> Any:
        """Recognise and record an operation; return what `OtherWorks.see` is told of it."""
        self.settle()
        if not isinstance(func, OpOverload):
            return self._whole(func, arguments, named, out)
        node = current_node()
        backward = node is not None and self._is_backward(node)
        size = macs(func, arguments, named, out)
        own = 0 if size or backward else self.origins.alone(arguments, named)
        if backward:
            self._backward(func, arguments, named, out, size, node)
        elif size:
            self._forward(func, arguments, named, out, size)
        if not backward or self._is_followed(node):
            self.origins.follow(func, arguments, named, out)
            self._samples.follow(func, arguments, named, out)
            self._activations.follow(func, arguments, named, out)
        return size, node if backward else None, own

    def precede(self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Look at what an operation is about to write into: it may be a factor that waits."""
        self._activations.precede(func, arguments, named)

    def _whole(self, func: Any, arguments: Any, named: dict[str, Any], out: Any) -> None:
        """Count a whole function that torch takes for one operation, by what it is called."""
        module = self._frames()[-1].name if self._frames() else ""
        phase: Phase = "forward" if current_node() is None else "backward"
        if size := macs(func, arguments, named, out):
            self.shares.add(phase, size, (module, func.name()))

    @property
    def waits(self) -> bool:
        """Whether a product of this thread is to be attached to the graph."""
        return bool(self._here.waiting) or self._activations.wait

    def settle(self) -> None:
        """Attach products to the graph, once torch has made their nodes."""
        waiting = self._here.waiting
        while waiting:
            product, out = waiting.pop()
            if out.grad_fn is not None:
                product.attach(out.grad_fn, self)
            elif product.held:  # in a transform of torch.func, perhaps
                self._unlinked.add(product)
            else:
                product.is_unlinked = True
        self._activations.settle()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Take what is multiplied meanwhile, in this thread, to be in the trace already."""
        before = self._here.computing
        self._here.computing = True
        try:
            yield
        finally:
            self._here.computing = before

    @property
    def batch(self) -> int | None:
        """Samples of the batch that the model runs on; None if nothing shows it."""
        return self._batch

    def enters(self, batch: int, inputs: Collection[Given]) -> None:
        """Note where the samples are in the model's inputs, as far as nobody knows it yet."""
        if inputs and all(self.place(each.tensor) is not None for each in inputs):
            return  # a part of the model, or a checkpoint, that goes on with what another gave
        if batch != self._batch:
            self._batch, self._samples = batch, Samples(batch)
        for tensor, axis, sample in inputs:
            if axis is None:
                self._samples.seed_sample(tensor, sample)
            elif self.place(tensor) is None:
                self._samples.seed(tensor, axis)

    def computed(self, source: Tensor, target: Tensor) -> None:
        """Note that a tensor was computed out of sight, value by value, from another."""
        self._samples.copy(source, target)
        self.origins.copy(source, target)

    def place(self, tensor: Tensor) -> Any:
        """Return where the samples are in a tensor: a Place, MIXED, or None if nobody knows."""
        return self._samples.of(tensor)

    def begins(self, product: Product) -> None:
        """Note that a product's node runs in a backward pass."""
        self._here.products.append(product)

    def ends(self, product: Product) -> None:
        """Note that a product's node is done."""
        products = self._here.products
        if product in products:
            del products[products.index(product) :]

    @property
    def _product(self) -> Product | None:
        """The product whose gradients this thread computes."""
        return self._here.products[-1] if self._here.products else None

    def _is_backward(self, node: Any) -> bool:
        """Whether gradients are computed, and not a checkpoint's forward once more."""
        if not torch.is_grad_enabled():
            return True
        if isinstance(node, BackwardCFunction) and self._frames():
            return False  # a checkpoint of somebody's own, which runs modules
        return not in_checkpoint()

    def _is_followed(self, node: Any) -> bool:
        """Whether what a backward pass computes may become a factor: in a function of a user's.

        What torch's own nodes compute only becomes one where its graph is kept.
        """
        if self._product is not None:
            return False
        return isinstance(node, BackwardCFunction) or torch.is_grad_enabled()

    def _forward(
        self, func: Any, arguments: tuple[Any, ...], named: dict[str, Any], out: Any, size: int
    ) -> None:
        frame = self._frames()[-1] if self._frames() else None
        module = frame.name if frame is not None else ""
        what = _called(func) if frame else OUTSIDE
        product = _KINDS.get(func._overloadpacket, Product)(self.shares, module, what)
        result = next(tensors((out,)), None)
        if self._here.computing:
            self.shares.add("forward", size)
        elif frame is not None and not trains(self._model, frame.module):
            product.what, product.late = EVALUATION, size
            self._wait(product, result)
        elif not (torch.is_grad_enabled() or in_function()):
            self.shares.add("forward", size, (module, NO_GRADIENTS))
        else:
            self._training(product, func, arguments, named, out, size)
            self._wait(product, result)

    def _training(
        self, product: Product, func: Any, arguments: Any, named: Any, out: Any, size: int
    ) -> None:
        """Record a product of training, if it is a layer, and count it."""
        if any(frame.name in self._skip for frame in self._frames()):
            product.what = SKIPPED
        elif (found := factors(func, arguments, named)) is not None:
            has_weight = self._recognise(product, found, func)
            if not has_weight and self._activations.multiply(product, found, size, out):
                return
        elif isinstance(product, Recurrent):
            self._recur(product, Recurrence.of(func, arguments, out))
        elif isinstance(product, Attention):
            self._activations.attend(product, func, arguments, named, self._model)
        self.shares.add("forward", size, product.where)

    def _recognise(self, product: Product, found: Factors, func: Any) -> bool:
        """Record a product that has a weight; return whether it has."""
        left, right = (self.origins.weight(each, product.module) for each in found.given)
        is_right = found.convolution or _is_weight(right, left)
        weight = right if is_right else left
        if not found.convolution and not (weight and weight.name):
            return False
        if found.vectors:  # a norm of a weight, say
            return True
        product.at, product.weight_is_right = found.at, is_right
        product.sources = {name for each in (left, right) if each for name in each.sources}
        name = f"{product.module}.{func._overloadpacket.__name__}"
        if left and right and left.name and right.name:  # a weight is computed of two others
            name = f"{left.name} x {right.name}"
        elif weight is not None and weight.name:
            name = weight.name
        if self._is_left_alone(found.right if is_right else found.left, name):
            product.what = SKIPPED
            return True
        try:
            made = parts(found, is_right, name, self.place)
        except SwatsimError as error:
            product.what = self._missed[name] = NO_LAYER
            log.info("%s: %s", name, error)
            return True
        if self._record_parts(product, made):
            product.operands(found, linked=torch.is_grad_enabled())
            product.shapes = tuple(found.left.shape), tuple(found.right.shape)
            if not torch.is_grad_enabled():
                self._unlinked.add(product)
        return True

    def _recur(self, product: Recurrent, call: Recurrence | None) -> None:
        """Record a recurrent layer that runs as one kernel."""
        weights = () if call is None else (call.w_ih, call.w_hh)
        origins = [self.origins.weight(each, product.module) for each in weights]
        named = [origin for origin in origins if origin is not None and origin.name]
        if call is None or len(named) < len(weights):
            return
        product.sources = {name for origin in named for name in origin.sources}
        names = [origin.name for origin in named]
        if any(map(self._is_left_alone, weights, names)):
            product.what = SKIPPED
            return
        place = self.place(call.x)
        if place is None:
            place = Place(1) if call.x.shape[1] == self.batch else MIXED
        if self._record_parts(product, call.parts(names, place)):
            product.recur(call, linked=torch.is_grad_enabled())

    def _record_parts(self, product: Product, made: list[Part]) -> bool:
        for part in made:
            recording = self._record(part.layer, part.act, 0, part.place, part.depth)
            if recording is None:
                product.what = self._missed[part.layer.name] = NO_LAYER
                return False
            product.parts.append((part, recording))
            self.recorded.add(part.layer.name)
        self.recorded.update(product.sources)
        product.held = True
        product.packs = others_pack()
        return True

    def _taken(self) -> set[str]:
        return {*names(self._model), *(owned.name for owned in self.names)}

    def _is_left_alone(self, weight: Tensor, name: str) -> bool:
        owned = self.names.owner(weight)
        return is_skipped(name, self._skip) or (owned is not None and owned.module in self._skip)

    def _wait(self, product: Product, out: Tensor | None) -> None:
        if out is not None and torch.is_grad_enabled():
            self._here.waiting.append((product, out))

    def _backward(
        self, func: Any, arguments: Any, named: Any, out: Any, size: int, node: Any
    ) -> None:
        product = self._product
        if type(node).__name__ == "AccumulateGrad":
            self.learnt.add(id(node.variable))
        if product is not None:
            product.sees(func, arguments, named, out)
        if not size:
            return
        if product is not None:
            size = product.counted(size)
        if product is None and not self._here.computing:
            product = self._unlinked.match(func, arguments, named, self.origins)
            where = product.where if product is not None else ("", _named(node))
        else:
            where = product.where if product is not None else None
        self.shares.add("backward", size, where)

    def coverage(self, left_alone: Mapping[str, str]) -> Coverage:
        """Return how much is in the trace; log once what multiplies by a parameter and is not."""
        missing = self.names.missing(self.recorded, self.learnt)
        seen = {name for name in missing if not self.origins.is_laid(name)}
        unseen = seen.union(self.names.unread(self.origins.has_met, self.learnt))
        self._activations.end()
        shares = self.shares.coverage({*left_alone, *self._skip}, unseen)
        for name, function in self.origins.foreign.items():
            if name not in self.recorded:
                self._missed.setdefault(name, f"in {function}, which can't be seen into")
        if self._missed:
            listed = ", ".join(f"{name} ({what})" for name, what in sorted(self._missed.items()))
            log.warning("multiplied by parameters and not in the trace: %s", listed)
        return shares


def _called(func: Any) -> str:
    """Return what a product is called that has no weight: generic, for equal ones are added up."""
    name = str(func._overloadpacket.__name__)
    if "attention" in name:
        return "attention's products"
    if "rnn" in name or "lstm" in name:
        return "a recurrence in one kernel"
    plain = name in ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot")
    return "products of activations" if plain else name


def _named(node: Any) -> str:
    return f"gradient in {type(node).__name__}"


def _is_weight(one: Origin | None, other: Origin | None) -> bool:
    """Whether the first of two factors is the weight; if both may be, it is."""
    if one is None or not one.name:
        return False
    return one.learnt or other is None or not other.learnt
