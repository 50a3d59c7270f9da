"""Recurrent layers that torch runs as one fused kernel: as the two products that each step is.

The kernel hides what the gradients of its weights read, those of the gates before their
nonlinearities: they are computed once more, aside, from what its backward pass is given.
T steps of N samples; C inputs, H hidden values; 4H gates: input, forget, cell, output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swatsim.tracer.pytorch.factors import Part
from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.modules import linear
from swatsim.tracer.pytorch.private import aside, current_node, is_asked_for
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.samples import Place
from swatsim.workload.layer import OpName

aten = torch.ops.aten

#: What runs as one kernel and can be recorded.
FUSED = (aten.mkldnn_rnn_layer,)
#: How torch numbers the kinds of recurrent layers.
_LSTM = 2


@dataclass(frozen=True)
class Recurrence:
    """One direction of one layer of an LSTM, as the kernel gets it.

    Parameters
    ----------
    x : torch.Tensor, shape (T, N, C)
    w_ih, w_hh : torch.Tensor, shape (4H, C) and (4H, H)
    biases : tuple of torch.Tensor, shape (4H,)
    h0, c0 : torch.Tensor, shape (N, H)
    h : torch.Tensor, shape (T, N, H)
        The output.
    reverse : bool
        Whether the last step comes first.
    """

    x: Tensor
    w_ih: Tensor
    w_hh: Tensor
    biases: tuple[Tensor, ...]
    h0: Tensor
    c0: Tensor
    h: Tensor
    reverse: bool

    @classmethod
    def of(cls, func: Any, arguments: Sequence[Any], out: Any) -> Recurrence | None:
        """Return what a call of the kernel computes; None of sequences that are packed."""
        backward = func._overloadpacket is aten.mkldnn_rnn_layer_backward
        reverse, mode, has_biases, lengths = (13, 14, 17, 20) if backward else (7, 9, 12, 8)
        if arguments[mode] != _LSTM or arguments[lengths]:
            return None
        biases = tuple(arguments[3:5]) if arguments[has_biases] else ()
        h = arguments[7] if backward else out[0]
        x, w_ih, w_hh = arguments[:3]
        h0, c0 = arguments[5:7]
        return cls(x, w_ih, w_hh, biases, h0, c0, h, arguments[reverse])

    @property
    def h_before(self) -> Tensor:
        """What each step reads of the one before it: (T, N, H)."""
        first = self.h0.unsqueeze(0)
        order = (self.h[1:], first) if self.reverse else (first, self.h[:-1])
        return torch.cat(order)

    def parts(self, names: Sequence[str], place: Any) -> list[Part]:
        """Return its two layers.

        Parameters
        ----------
        names : sequence of str
            Of w_ih's and of w_hh's.
        place : Place, MIXED or None
            Where the samples are in x, and in h.
        """
        with aside():
            pairs = ((self.x, self.w_ih), (self.h_before, self.w_hh))
        return [
            Part(linear(name, *weight.shape), act, weight, place, _same, _same, _same)
            for name, (act, weight) in zip(names, pairs, strict=True)
        ]

    def first(self, samples: int) -> Recurrence:
        """Return that of the first samples alone."""
        x, h = self.x[:, :samples], self.h[:, :samples]
        return replace(self, x=x, h=h, h0=self.h0[:samples], c0=self.c0[:samples])

    def gate_gradients(self, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None) -> Tensor:
        """Return the gradients of the gates before their nonlinearities.

        Parameters
        ----------
        dy : torch.Tensor of shape (T, N, H), optional
            Of the output.
        dh, dc : torch.Tensor of shape (N, H), optional
            Of both last states.

        Returns
        -------
        torch.Tensor of float32, shape (T, N, 4H)
        """
        gates, cells, c0 = self._again()
        w_hh = self.w_hh.float()
        zero = torch.zeros_like(c0)
        dh = zero if dh is None else dh.float()
        dc = zero if dc is None else dc.float()
        found = torch.empty_like(torch.cat(gates, 2))
        for t in reversed(self._order):
            i, f, g, o = (gate[t] for gate in gates)
            before = self._before(cells, c0, t)
            dh = dh if dy is None else dh + dy[t].float()
            c = cells[t].tanh()
            dc = dc + dh * o * (1 - c * c)
            each = (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g))
            found[t] = torch.cat((*each, dh * c * o * (1 - o)), 1)
            dh, dc = found[t] @ w_hh, dc * f
        return found

    @property
    def _order(self) -> range:
        steps = range(len(self.x))
        return steps[::-1] if self.reverse else steps

    def _again(self) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Return gates (T, N, H) each, cells (T, N, H) and c0 as the forward pass had them."""
        x, h, c0 = self.x.float(), self.h_before.float(), self.c0.float()
        sums = x @ self.w_ih.float().T + h @ self.w_hh.float().T
        sums = sum((bias.float() for bias in self.biases), sums)
        i, f, g, o = sums.chunk(4, 2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cells, added = torch.empty_like(i), i * g
        for t in self._order:
            cells[t] = f[t] * self._before(cells, c0, t) + added[t]
        return (i, f, g, o), cells, c0

    def _before(self, values: Tensor, first: Tensor, t: int) -> Tensor:
        if t == self._order[0]:
            return first
        return values[t + 1 if self.reverse else t - 1]


def _same(tensor: Tensor) -> Tensor:
    return tensor


class Recurrent(Product):
    """A fused recurrent layer of the forward pass, and what its node in the graph does."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self._needed: int | None = None
        self._recordings: list[Recording] = []

    def recur(self, call: Recurrence, linked: bool) -> None:
        """Record what fprop reads, and dgrad and wgrad, if those are sure to read the same."""
        sure = linked and not self.packs
        learn = [sure and weight.requires_grad for weight in (call.w_ih, call.w_hh)]
        back = [sure and call.x.requires_grad, sure and (len(call.x) > 1 or call.h0.requires_grad)]
        for (part, recording), learns, goes in zip(self.parts, learn, back, strict=True):
            weights: tuple[OpName, ...] = ("fprop", "dgrad") if goes else ("fprop",)
            acts: tuple[OpName, ...] = ("fprop", "wgrad") if learns else ("fprop",)
            recording.record("weight", dict.fromkeys(weights, part.weight))
            recording.record("act", dict.fromkeys(acts, part.act))
            self._recordings.append(recording)
        self.parts = []  # with all states of the layer

    def counted(self, size: int) -> int:
        """Return what of the kernel's backward pass autograd asked for; the kernel does all."""
        if self._needed is None:
            self.held = False  # not by the kernel: for gradients that are differentiated again
            return size
        return self._needed

    def sees(self, func: Any, arguments: tuple[Any, ...], named: Any, out: Any) -> None:
        """Record the gradients of the gates, and what else the kernel's backward pass reads."""
        self._needed = None
        if func._overloadpacket is not aten.mkldnn_rnn_layer_backward:
            return
        call = Recurrence.of(func, arguments, out)
        if call is None:
            return
        ran, rows = _asked_for(len(call.x)), call.x[..., 0].numel()
        macs = (rows * weight.numel() for weight in (call.w_ih, call.w_hh))
        self._needed = sum(each * len(ops) for each, ops in zip(macs, ran, strict=True))
        if self.held:
            with aside():
                self._gradients(call, arguments[10:13], ran)

    def _gradients(
        self, call: Recurrence, given: Sequence[Tensor | None], ran: Sequence[list[OpName]]
    ) -> None:
        found = self._gates(call, given)
        reads = ((call.x, call.w_ih), (call.h_before, call.w_hh))
        for recording, (act, weight), ops in zip(self._recordings, reads, ran, strict=True):
            if self.packs and "dgrad" in ops:
                recording.record("weight", {"dgrad": weight})
            if self.packs and "wgrad" in ops:
                recording.record("act", {"wgrad": act})
            if ops:
                recording.record("grad_out", dict.fromkeys(ops, found))

    def _gates(self, call: Recurrence, given: Sequence[Tensor | None]) -> Tensor:
        """Return the gradients of the gates, of the samples that are recorded if that will do."""
        recording = self._recordings[0]
        dy, dh, dc = given
        if recording.layout.place == Place(0, len(call.x), 1):
            kept = recording.kept
            call, dy = call.first(kept), None if dy is None else dy[:, :kept]
            dh, dc = (None if each is None else each[:kept] for each in (dh, dc))
        return call.gate_gradients(dy, dh, dc).to(call.x.dtype)


def _asked_for(steps: int) -> tuple[list[OpName], list[OpName]]:
    """Return which ops of w_ih and of w_hh the node that runs needs.

    Gradients of earlier steps need that of each later state, whatever is asked for.
    """
    node = current_node()
    x, w_ih, w_hh, h0 = (is_asked_for(node, place) for place in (0, 1, 2, 5))
    runs: tuple[tuple[OpName, bool], ...] = (("dgrad", x), ("wgrad", w_ih))
    own: tuple[tuple[OpName, bool], ...] = (("dgrad", h0 or steps > 1), ("wgrad", w_hh))
    return [op for op, asked in runs if asked], [op for op, asked in own if asked]
