"""Products of two activations in a step: which of them are layers, and what these are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from swatsim.errors import SwatsimError
from swatsim.tracer.pytorch.attention import Attend, Attention, say_dropout
from swatsim.tracer.pytorch.factors import Factors
from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.heads import among_products, pairs
from swatsim.tracer.pytorch.origins import tensors
from swatsim.tracer.pytorch.pairs import PLAIN, SCORES, VALUES, Pair
from swatsim.tracer.pytorch.private import others_pack
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.scores import Scores
from swatsim.tracer.pytorch.shares import Shares
from swatsim.tracer.pytorch.unlinked import Unlinked
from swatsim.tracer.pytorch.watch import Frame
from swatsim.workload.layer import Layer, OpName

log = logging.getLogger(__name__)

#: Gives the recording of a run of a layer, None for none: (layer, act, axis of its samples,
#: where they are, depth of a convolution of three dimensions).
Record = Callable[[Layer, Tensor, int | None, Any, Any], Recording | None]

TOO_LARGE = "products of activations that a trace can't hold"


class Activations:
    """Records the products of two activations of one step.

    Those of attention are called after the module that runs: ``MODULE.scores`` and
    ``MODULE.values``; others ``MODULE.matmul``. More of a kind in one run of a module have numbers.

    Parameters
    ----------
    record : callable
    place : callable
        Where the samples are in a tensor.
    frames : callable
        Gives the modules that run in this thread, the innermost last.
    taken : callable
        Gives the names that modules and their layers have.
    shares : Shares
    unlinked : Unlinked
    """

    def __init__(
        self,
        record: Record,
        place: Callable[[Tensor], Any],
        frames: Callable[[], list[Frame]],
        taken: Callable[[], Collection[str]],
        shares: Shares,
        unlinked: Unlinked,
    ) -> None:
        self._record, self._place, self._frames = record, place, frames
        self._taken, self._shares, self._unlinked = taken, shares, unlinked
        self._names: Collection[str] | None = None
        self._scores = Scores()
        self.follow = self._scores.follow
        self._waiting: list[Pair] = []

    @property
    def wait(self) -> bool:
        """Whether there are products without a name."""
        return bool(self._waiting)

    def multiply(self, product: Product, found: Factors, size: int, out: Tensor) -> bool:
        """Record a product of two activations, now or once it has a name; False if that can't be.

        The multiplications of its forward pass are counted when it is recorded.
        """
        both = (found.left, found.right)
        if found.rest or not all(map(_has_values, both)) or both[0].is_nested != both[1].is_nested:
            return False
        frames = self._frames()
        one = Pair(product, size, frames[-1] if frames else None, found, self._finish)
        product.settle = partial(one.named, PLAIN)
        ops: tuple[OpName, OpName] = ("dgrad", "wgrad")
        read = [(op, self._scores.of(each)) for op, each in zip(ops, found.given, strict=True)]
        if not any(path is not None and path.is_read for _, path in read):
            self._waiting.append(one)
            self._scores.begin(one, out)
            return True
        one.named(VALUES)
        for (op, path), factor in zip(read, found.given, strict=True):
            computed = factor.requires_grad or not one.linked
            if computed and path is not None and path.masked is not None:
                one.output(op, ~path.masked)
        return True

    def attend(
        self, product: Attention, func: Any, arguments: Any, named: Any, model: nn.Module
    ) -> None:
        """Record attention that runs as one kernel."""
        call = Attend.of(func, arguments, named)
        if call is None or not all(map(_has_values, (call.q, call.k, call.v))):
            return
        frames = self._frames()
        frame = frames[-1] if frames else None
        place = among_products(map(self._place, (call.q, call.k, call.v)), call.lead)
        names = self._called(frame, SCORES), self._called(frame, VALUES)
        try:
            layers = call.layers(names, place)
        except SwatsimError as error:
            self._refuse(product, error)
            return
        if call.dropout:
            say_dropout(model, names[1])
        product.packs = others_pack()
        heads = call.q[..., 0, 0].flatten()  # of which only the number is asked
        scores, values = (self._record(layer, heads, 0, place, None) for layer in layers)
        if scores is None or values is None:
            product.what = TOO_LARGE
            return
        product.held = True
        product.attend(call, (scores, values), torch.is_grad_enabled())

    def precede(self, func: Any, arguments: Any, named: Any) -> None:
        """Copy factors of products without a name that an operation is about to write into."""
        if self._waiting:
            written = {each.untyped_storage()._cdata for each in _written(func, arguments, named)}
            for one in self._waiting:
                one.keep(written)

    def settle(self) -> None:
        """Name what waits in modules that have ended, of this thread."""
        if self._waiting:
            running, thread = {id(frame) for frame in self._frames()}, get_ident()
            for one in [*self._waiting]:
                is_over = one.frame is not None and id(one.frame) not in running
                if is_over and one.thread == thread:
                    one.named(PLAIN)
                if one.factors is None:
                    self._waiting.remove(one)
        self._scores.leave(self._frames)

    def end(self) -> None:
        """Name all that waits."""
        for one in self._waiting:
            one.named(PLAIN)
        self._waiting = []

    def _finish(self, one: Pair, found: Factors, kind: str) -> None:
        """Record a product that has a name now, and count it."""
        product = one.product
        try:
            made = pairs(found, self._called(one.frame, kind), self._place)
        except SwatsimError as error:
            self._refuse(product, error)
        else:
            each = [self._record(part.layer, part.act, 0, part.place, None) for part in made]
            recordings = [recording for recording in each if recording is not None]
            if len(recordings) < len(made):
                product.what = TOO_LARGE
            else:
                bare = [part.bare() for part in made]
                product.parts.extend(zip(bare, recordings, strict=True))
                self._hold(product, found, one)
        self._shares.add("forward", one.size, product.where)

    def _hold(self, product: Product, found: Factors, one: Pair) -> None:
        product.held, product.packs, product.at = True, one.packs, found.at
        product.vectors = found.vectors
        product.operands(found, one.linked)
        if not found.left.is_nested:
            product.shapes = tuple(found.left.shape), tuple(found.right.shape)
        left, right = (StorageWeakRef(each.untyped_storage()) for each in found.given)
        product.factors = left, right
        if not one.linked or product.is_unlinked:
            self._unlinked.add(product)

    def _refuse(self, product: Product, error: SwatsimError) -> None:
        product.what = TOO_LARGE
        log.info("%s", error)

    def _called(self, frame: Frame | None, kind: str) -> str:
        """Return a name for a product that is no module's, nor any layer's."""
        if frame is None:
            return kind
        frame.products[kind] += 1
        number = frame.products[kind]
        name = f"{frame.name}.{kind}" if number == 1 else f"{frame.name}.{kind}_{number}"
        self._names = self._names or self._taken()
        return f"{name}_product" if name in self._names else name


def _has_values(tensor: Tensor) -> bool:
    """Whether a factor has values that can be looked at, one by one."""
    return tensor.layout == torch.strided and tensor.numel() > 0 and tensor.device.type != "meta"


def _written(func: Any, arguments: Any, named: Any) -> Iterator[Tensor]:
    """Yield the tensors that an operation writes into."""
    schema = func._schema.arguments
    given = {**dict(zip((each.name for each in schema), arguments, strict=False)), **named}
    for each in schema:
        if each.alias_info is not None and each.alias_info.is_write:
            yield from (it for it in tensors((given.get(each.name),)) if _has_values(it))
