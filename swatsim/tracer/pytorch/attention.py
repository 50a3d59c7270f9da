"""Attention that torch runs as one kernel: as the two products of activations that it is.

Scores are query times key, values what the probabilities, which the kernel shows to nobody, pick
of them: those are computed once more, aside, of the recorded samples. N samples (windows of them,
perhaps), H heads, L queries, S keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.heads import matmul
from swatsim.tracer.pytorch.private import aside, current_node, is_asked_for
from swatsim.tracer.pytorch.recording import Recording
from swatsim.workload.layer import Layer, Operand, OpName

log = logging.getLogger(__name__)
aten = torch.ops.aten

_NAMES = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)
#: What runs attention as one kernel and can be recorded, and what computes its gradients.
FORWARD = frozenset(getattr(aten, name) for name in _NAMES)
BACKWARD = frozenset(getattr(aten, f"{name}_backward") for name in _NAMES)

#: A score at most this large, whose probability is zero, is masked: programs write -1e4, -1e9 or
#: the least number of a type where they mean -inf.
MASKED = -1000
#: Scores that are computed at once: 64 MiB.
_AT_ONCE = 2**24

_said: WeakSet[nn.Module] = WeakSet()


def is_masked(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Return where a softmax read scores that a mask had put out of its reach."""
    unread = (probabilities == 0) | (scores == -torch.inf)
    return unread & (scores <= MASKED)


@dataclass(frozen=True)
class Attend:
    """A call of a kernel.

    Parameters
    ----------
    q, k, v : torch.Tensor, shape (N, H, L, E), (N, H', S, E) and (N, H', S, E')
        H' divides H: a key's head is that of several queries'.
    mask : torch.Tensor, optional
        What is added to scores, or where they are read; of a shape that expands to theirs.
    causal : bool
        Whether query i reads the keys up to i alone.
    scale, dropout : float
    dy : torch.Tensor of shape (N, H, L, E'), optional
        In a backward pass, the gradient of the output.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    dropout: float
    dy: Tensor | None = None

    @classmethod
    def of(cls, func: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Attend | None:
        """Return what a kernel is called with; None of nested tensors."""
        given = {**dict(zip(_arguments(func), arguments, strict=False)), **named}
        q, k, v = (given[name] for name in ("query", "key", "value"))
        if any(each.dim() != 4 or each.is_nested for each in (q, k, v)):
            return None
        scale = given.get("scale")
        return cls(
            q,
            k,
            v,
            mask=given.get("attn_mask", given.get("attn_bias")),
            causal=bool(given.get("is_causal", False)),
            scale=1 / sqrt(q.shape[-1]) if scale is None else float(scale),
            dropout=float(given.get("dropout_p", 0)),
            dy=given.get("grad_out", given.get("grad_out_")),
        )

    @property
    def lead(self) -> tuple[int, int]:
        """N and H."""
        return self.q.shape[0], self.q.shape[1]

    @property
    def pairs(self) -> int:
        """How many scores there are."""
        return self.lead[0] * self.lead[1] * self.q.shape[2] * self.k.shape[2]

    def layers(self, names: tuple[str, str], place: Any) -> tuple[Layer, Layer]:
        """Return its two layers.

        Parameters
        ----------
        names : two of str
            Of the scores and of the values.
        place : Place or MIXED
            Where the samples are among N x H.

        Raises
        ------
        WorkloadError
            If one can't be recorded, for its size.
        """
        B = self.lead[0] * self.lead[1]
        (L, E), (S, Ev) = self.q.shape[2:], self.v.shape[2:]
        return matmul(names[0], place, B, L, E, S), matmul(names[1], place, B, L, S, Ev)

    def first(self, entries: int) -> Attend:
        """Return that of the first of N alone, with a key's head for each of the queries'."""
        times = self.q.shape[1] // max(self.k.shape[1], 1)
        k, v = (each[:entries].repeat_interleave(times, 1) for each in (self.k, self.v))
        mask, dy = self.mask, self.dy
        if mask is not None:
            mask = mask.expand(*self.lead, self.q.shape[2], k.shape[2])[:entries]
        dy = None if dy is None else dy[:entries]
        return replace(self, q=self.q[:entries], k=k, v=v, mask=mask, dy=dy)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Return where probabilities are not zero, and which scores a mask leaves; None: all."""
        return self._masks(lambda at, P: P.to(self.v.dtype))

    def backward(self) -> tuple[Tensor, Tensor | None]:
        """Return where gradients of scores are not zero, and which probabilities' are needed."""
        dy = self.dy
        assert dy is not None, "gradients come of a backward pass"

        def gradient(at: tuple[slice, slice], P: Tensor) -> Tensor:
            P, kind = P.to(self.v.dtype).to(P.dtype), P.dtype
            dP = dy[at].to(kind) @ self.v[at].to(kind).mT
            found: Tensor = aten._softmax_backward_data(dP, P, -1, kind)
            return found

        return self._masks(gradient)

    def _masks(
        self, values: Callable[[tuple[slice, slice], Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Return where values made of probabilities are not zero, and which scores are read."""
        found = self._empty()
        wanted = None if self.mask is None else self._empty()
        for at in self._cuts():
            scores, P = self._scores(at)
            found[at] = values(at, P).bool()
            if wanted is not None:
                wanted[at] = ~is_masked(scores, P)
        if self.mask is None and self.causal:
            wanted = self._ahead().logical_not().expand_as(found)
        return found.flatten(0, 1), None if wanted is None else wanted.flatten(0, 1)

    def _ahead(self) -> Tensor:
        """Return which keys lie behind a query's own place, of all (L, S)."""
        shape = self.q.shape[2], self.k.shape[2]
        return torch.ones(shape, dtype=torch.bool, device=self.q.device).triu(1)

    def _empty(self) -> Tensor:
        shape = (*self.lead, self.q.shape[2], self.k.shape[2])
        return torch.empty(shape, dtype=torch.bool, device=self.q.device)

    def _cuts(self) -> Iterator[tuple[slice, slice]]:
        """Yield parts of N and H, one after another, that fit the memory."""
        N, H = self.lead
        each = max(self.q.shape[2] * self.k.shape[2], 1)
        heads = min(H, max(_AT_ONCE // each, 1))
        samples = max(_AT_ONCE // (each * heads), 1) if heads == H else 1
        for n in range(0, N, samples):
            for h in range(0, H, heads):
                yield slice(n, n + samples), slice(h, h + heads)

    def _scores(self, at: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
        """Return scores with the mask, and probabilities; of a row without keys zeros."""
        kind = torch.promote_types(self.q.dtype, torch.float32)
        scores = (self.q[at].to(kind) @ self.k[at].to(kind).mT).mul_(self.scale)
        if self.causal:
            scores.masked_fill_(self._ahead(), -torch.inf)
        if self.mask is not None and self.mask.dtype == torch.bool:
            scores.masked_fill_(~self.mask[at], -torch.inf)
        elif self.mask is not None:
            scores += self.mask[at].to(kind)
        return scores, aten._safe_softmax(scores, -1)


class Attention(Product):
    """Fused attention of the forward pass, and what its node in the graph does."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self._needed: int | None = None
        #: Of scores and of values.
        self._recordings: tuple[Recording, ...] = ()

    def attend(self, call: Attend, recordings: tuple[Recording, Recording], linked: bool) -> None:
        """Record what fprop reads, and dgrad and wgrad, if those are sure to read the same."""
        self._recordings = recordings
        sure = linked and not self.packs
        q, k, v = (sure and each.requires_grad for each in (call.q, call.k, call.v))
        with aside(call.q.device.type):
            self._record(_kept(call, recordings[0]), ["fprop"], _ops(q, k), _ops(q or k, v))

    def _record(
        self, call: Attend, always: list[OpName], scores: list[OpName], values: list[OpName]
    ) -> None:
        """Record both factors of both products for the ops that read them."""
        ours, theirs = self._recordings
        found, wanted = call.forward()
        reads: tuple[tuple[Operand, OpName], ...] = (("act", "wgrad"), ("weight", "dgrad"))
        for recording, ops, factors in (
            (ours, scores, (call.q.flatten(0, 1), call.k.flatten(0, 1))),
            (theirs, values, (found, call.v.flatten(0, 1).mT)),
        ):
            for (operand, op), factor in zip(reads, factors, strict=True):
                read = [*always, *([op] if op in ops else [])]
                kind = call.v.dtype if factor is found else None
                recording.record(operand, dict.fromkeys(read, factor), kind)
        if wanted is not None and "fprop" in always:
            ours.output("fprop", wanted)

    def counted(self, size: int) -> int:
        """Return what of the kernel's backward pass autograd asked for; the kernel does all."""
        return size if self._needed is None else self._needed

    def sees(self, func: Any, arguments: tuple[Any, ...], named: Any, out: Any) -> None:
        """Record the gradients of scores and values where the kernel's backward pass runs."""
        self._needed = None
        if func._overloadpacket not in BACKWARD:
            return
        call = Attend.of(func, arguments, named)
        if call is None:
            return
        node = current_node()
        asked = [is_asked_for(node, place) for place in range(len(node.next_functions))]
        q, k, v, bias = (*asked, False)[:4]  # a mask may be learnt, where a kernel allows it
        scores, values = _ops(q, k), _ops(q or k or bias, v)
        depths = (len(scores) * call.q.shape[-1], len(values) * call.v.shape[-1])
        self._needed = call.pairs * sum(depths)
        if self.held and not self._missed:
            with aside(call.q.device.type):
                self._gradients(_kept(call, self._recordings[0]), scores, values)

    def _gradients(self, call: Attend, scores: list[OpName], values: list[OpName]) -> None:
        ours, theirs = self._recordings
        if self.packs:
            self._record(call, [], scores, values)
        if "dgrad" in values:
            found, wanted = call.backward()
            if wanted is not None:
                theirs.output("dgrad", wanted)
            if scores:
                ours.record("grad_out", dict.fromkeys(scores, found), call.q.dtype)
        if values and call.dy is not None:
            theirs.record("grad_out", dict.fromkeys(values, call.dy.flatten(0, 1)))


def say_dropout(model: nn.Module, name: str) -> None:
    """Log once of a model that probabilities are recorded as they were before a dropout."""
    if model not in _said:
        _said.add(model)
        message = "%s: its kernel shows nobody what dropout left: recorded as if it left all"
        log.warning(message, name)


def _kept(call: Attend, recording: Recording) -> Attend:
    """Return what is recorded of a call, or all of it, where that lies apart."""
    place, heads = recording.layout.place, recording.layout.layer.groups
    if not recording.layout.each or place.outer > 1 or heads % call.lead[1]:
        return call.first(call.lead[0])
    return call.first(recording.kept * (heads // call.lead[1]))


def _ops(dgrad: bool, wgrad: bool) -> list[OpName]:
    runs: tuple[tuple[OpName, bool], ...] = (("dgrad", dgrad), ("wgrad", wgrad))
    return [op for op, asked in runs if asked]


@cache
def _arguments(func: Any) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)
