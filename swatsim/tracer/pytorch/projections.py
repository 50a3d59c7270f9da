"""The projections of torch's attention, which calls F.linear and no modules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

#: torch's own, and what stands in for it in a thread that runs an attention module.
_linear = functional.linear
_redirected: ContextVar[Callable[..., Tensor] | None] = ContextVar("redirected", default=None)
_lock = threading.Lock()
_redirections = 0


class Projection(NamedTuple):
    """One projection of an attention module, among those that torch computes as one.

    Parameters
    ----------
    name : str
    weight : torch.Tensor, shape (K, C)
    bias : torch.Tensor or None, shape (K,)
    """

    name: str
    weight: Tensor
    bias: Tensor | None


class Projections:
    """F.linear for one call of an attention module: one projection after the other.

    Parameters
    ----------
    module : torch.nn.MultiheadAttention
    project : callable of (tokens, projections, run)
        Gives the output; tokens are (T, N, C), whatever ``batch_first`` says of the module, and
        `run` is what would have been done without: by torch, or by who redirected before.
    """

    def __init__(
        self,
        module: nn.MultiheadAttention,
        project: Callable[[Tensor, Sequence[Projection], Callable[[], Tensor]], Tensor],
    ) -> None:
        self._module = module
        self._project = project
        self._samples, self._letters = 1, "qkv"
        self._before = _redirected.get() or torch.ops.aten.linear

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the output of one projection, or of two or three that torch runs as one."""
        parts = self._parts(x, weight, bias)
        if not parts:
            return self._before(x, weight, bias)
        if x.dim() == 3:
            self._samples = x.shape[1]
        tokens = x.reshape(-1, self._samples, x.shape[-1])  # the last one's rows are flat
        y = self._project(tokens, parts, lambda: self._before(x, weight, bias))
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _parts(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Projection]:
        """Return the projections in a call of F.linear: q, k and v of 3-D inputs, then the last.

        Not by the weight, which a parametrization makes anew. None of a parametrization's own.
        """
        size = self._module.embed_dim
        if x.dim() == 2:
            last = not self._letters and weight.shape == (size, size)
            return [Projection("out_proj", weight, bias)] if last else []
        count, rest = divmod(len(weight), size)
        if x.dim() != 3 or rest or not 1 <= count <= len(self._letters):
            return []
        letters, self._letters = self._letters[:count], self._letters[count:]
        biases = (None,) * count if bias is None else bias.split(size)
        return [
            Projection(f"in_proj_{letter}", part, own)
            for letter, part, own in zip(letters, weight.split(size), biases, strict=True)
        ]


@contextmanager
def redirected_linear(linear: Callable[..., Tensor]) -> Iterator[None]:
    """Replace F.linear, as torch's own functions call it in this thread.

    torch.nn.functional.multi_head_attention_forward looks it up in its module when it is called:
    there is no other place between its projections and the products.
    """
    token = _redirected.set(linear)
    _redirect(1)
    try:
        yield
    finally:
        _redirect(-1)
        _redirected.reset(token)


def _redirect(change: int) -> None:
    global _redirections, _linear
    with _lock:
        if not _redirections:  # it may be another's by now, who gets it back
            _linear = functional.linear
        _redirections += change
        functional.linear = _dispatch if _redirections else _linear


def _dispatch(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    chosen = _redirected.get()
    return (chosen or _linear)(input, weight, bias)
