"""What stands in for a module's forward while a tracer is open."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.tracer.pytorch.arithmetic import Linear, arithmetic_of
from swatsim.tracer.pytorch.layers import Call
from swatsim.tracer.pytorch.modules import Plain, describe, linear
from swatsim.workload.layer import Layer

#: Makes the `Call` of a layer that runs on an input: (layer, input, arithmetic, training, and the
#: axis of the samples in an input of three axes, None for the one that the user named).
Caller: TypeAlias = Callable[[Layer, Tensor, Any, bool, int | None], Call]

#: torch's own, and what stands in for it in a thread that runs an attention module.
_linear = functional.linear
_redirected: ContextVar[Callable[..., Tensor] | None] = ContextVar("redirected", default=None)
_lock = threading.Lock()
_redirections = 0

#: How many attention modules are patched, and whether torch had its fast paths on before the first.
_patched = 0
_fastpath = True


class ForwardPatch:
    """Stands in for the forward of a convolution or linear layer."""

    def __init__(self, call: Caller, name: str, module: Plain) -> None:
        self.names = [name]
        self._call = call
        self._outside: Callable[..., Any] | None = None
        self._module = module

    @property
    def weights(self) -> dict[str, Tensor]:
        """The layer's weight, unless it is computed anew in each step."""
        weight = self._module.weight
        return {self.names[0]: weight} if isinstance(weight, nn.Parameter) else {}

    def attach(self) -> None:
        """Stand in for the module's own forward."""
        vars(self._module)["forward"] = self

    def detach(self) -> None:
        """Restore the module's own forward."""
        if vars(self._module).get("forward") is self:
            del vars(self._module)["forward"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to copy and pickle it: as the module's own forward, which the copy has."""
        return getattr, (self._module, "forward")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Return the module's output, computed outside of whatever is compiled."""
        if self._outside is None and "torch._dynamo" in sys.modules:
            # only now: it loads the compiler, which takes seconds
            self._outside = torch.compiler.disable(self._run)
        return (self._outside or self._run)(*arguments, **named)

    def _run(self, input: Tensor, output_size: Any = None) -> Tensor:
        module: Any = self._module
        if not isinstance(input, Tensor) or not input.dim():
            refused: Tensor = type(module).forward(module, input)  # torch says what is wrong
            return refused
        more = None if output_size is None else _output_padding(module, input, output_size)
        layer = describe(self.names[0], module, input, more)
        call = self._call(layer, input, arithmetic_of(module, more), module.training, None)
        return call(input, module.weight, module.bias)


class AttentionPatch(ForwardPatch):
    """Stands in for the forward of nn.MultiheadAttention, which calls F.linear, no modules.

    Its projections are layers ``NAME.in_proj_q``, ``_k``, ``_v`` and ``NAME.out_proj``; its two
    products of activations are left as they are.
    """

    def __init__(self, call: Caller, name: str, module: nn.MultiheadAttention) -> None:
        self.names = [f"{name}.in_proj_{letter}" for letter in "qkv"] + [f"{name}.out_proj"]
        self._call = call
        self._outside = None
        self._attention = module
        self._module: Any = module

    @property
    def weights(self) -> dict[str, Tensor]:
        """The projections' weights, views of one parameter where torch has them in one."""
        own = self._attention
        parts = _projections(own)
        return dict(zip(self.names, [*parts, own.out_proj.weight], strict=True))

    def attach(self) -> None:
        """Stand in for the module's own forward; torch's fast paths would run past it."""
        super().attach()
        _count_patched(1)

    def detach(self) -> None:
        """Restore the module's own forward."""
        super().detach()
        _count_patched(-1)

    def _run(self, *arguments: Any, **named: Any) -> Any:
        """Return the output of the module's own forward, with its projections run sparsely."""
        module = self._attention
        with redirected_linear(Projections(module, self._project)):
            return type(module).forward(module, *arguments, **named)

    def _project(
        self, tokens: Tensor, parts: Sequence[Projection], run: Callable[[], Tensor]
    ) -> Tensor:
        outputs = []
        for name, weight, bias, _ in parts:
            layer = linear(f"{self.names[0].rpartition('.')[0]}.{name}", *weight.shape)
            call = self._call(layer, tokens, Linear(), self._attention.training, 1)
            outputs.append(call(tokens, weight, bias))
        return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]


class Projection(NamedTuple):
    """One projection of an attention module, among those that torch computes as one.

    Parameters
    ----------
    name : str
    weight : torch.Tensor, shape (K, C)
    bias : torch.Tensor or None, shape (K,)
    first : int
        Its first column in the output.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    first: int


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
            return [Projection("out_proj", weight, bias, 0)] if last else []
        count, rest = divmod(len(weight), size)
        if x.dim() != 3 or rest or not 1 <= count <= len(self._letters):
            return []
        letters, self._letters = self._letters[:count], self._letters[count:]
        biases = (None,) * count if bias is None else bias.split(size)
        return [
            Projection(f"in_proj_{letter}", part, own, i * size)
            for i, (letter, part, own) in enumerate(
                zip(letters, weight.split(size), biases, strict=True)
            )
        ]


def _projections(module: Any) -> list[Tensor]:
    if module.in_proj_weight is not None:
        return list(module.in_proj_weight.chunk(3))
    return [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]


def _output_padding(module: Any, x: Tensor, output_size: Any) -> tuple[int, ...]:
    geometry = (module.stride, module.padding, module.kernel_size)
    axes = len(module.kernel_size)
    padding = module._output_padding(x, output_size, *geometry, axes, module.dilation)
    return tuple(padding)


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


def _count_patched(change: int) -> None:
    """Keep torch's fast paths off until the last patch is gone, in whatever order they go."""
    global _patched, _fastpath
    with _lock:
        if not _patched:
            _fastpath = torch.backends.mha.get_fastpath_enabled()
        _patched += change
        torch.backends.mha.set_fastpath_enabled(_fastpath and not _patched)


def _dispatch(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    chosen = _redirected.get()
    return (chosen or _linear)(input, weight, bias)


# what `torch.compiler.disable` marks; the compiler then calls a patch, and does not look into it
ForwardPatch.__call__._torchdynamo_disable = True  # type: ignore[attr-defined]
