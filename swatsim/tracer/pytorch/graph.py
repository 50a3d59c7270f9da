"""What a forward pass saves for its backward pass: by which node of the graph, in which module.

A tensor is seen twice: when autograd saves it, which tells the module that runs, and the order; and
when a node of the finished graph is asked for it, which tells the operation and the tensor's part
in it. So nothing here lists what saves something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from swatsim.tracer.pytorch.saved_tensors import storages
from swatsim.tracer.pytorch.watch import Frame, Stack, names

#: Nodes that multiply matrices: what they call their input, and their weight.
PRODUCTS = {
    "addmm": ("mat1", "mat2"),
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "linear": ("input", "weight"),
    "convolution": ("input", "weight"),
}

#: Functions that on some devices are a product with a mask, and on others a node of their own.
_DROPOUTS = {
    *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
    *(functional.alpha_dropout, functional.feature_alpha_dropout, torch.dropout),
}

#: Nodes that give what they are given, or a part of it, in another shape or type.
_VIEWS = re.compile("T|Transpose|Permute|.*View|Reshape.*|Split.*|Slice|Select|Unbind|.*queeze")
_SAME = re.compile(rf"({_VIEWS.pattern}|Expand|ToCopy|Clone|Alias|Chunk)Backward\d*")


@dataclass(eq=False)
class Saved:
    """A storage that a node saves.

    Parameters
    ----------
    module : str
        As in ``model.named_modules()``; "" is the model.
    frame : Frame
        The call of that module.
    own : str or None
        The parameter or buffer that it is, or is a view of.
    time : int
        When it was saved.
    place, size : int
        Where the storage lies, and its bytes.
    shape : tuple of int
        The tensor's.
    dtype : torch.dtype
    is_dropout : bool
        Whether a dropout saves it.
    node : torch.autograd.graph.Node or None
        None if the output does not lead to it.
    part : str
        What the node calls it.
    """

    module: str
    frame: Frame
    own: str | None
    time: int
    place: int
    size: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_dropout: bool
    node: Any = None
    part: str = ""

    @property
    def operation(self) -> str:
        """What the node computes, in torch's words: ``max_pool2d``, ``native_layer_norm``."""
        return operation(self.node) if self.node is not None else "other"

    @property
    def elements(self) -> int:
        """Elements of the whole storage."""
        return self.size // self.dtype.itemsize

    @property
    def what(self) -> tuple[str, str, str]:
        """What it is, whatever the size of the batch."""
        return self.module, self.operation, self.part


class ForwardPass:
    """Watches one forward pass.

    Parameters
    ----------
    model : torch.nn.Module
    before : callable of (time, Frame, module, arguments, named arguments)
        Called when a module begins to run.

    Attributes
    ----------
    saved : list of Saved
        In the order in which they were saved; after `run` those that the graph holds.
    names : dict of int to str
        Place of a storage -> the innermost module that gave it last.
    """

    def __init__(self, model: nn.Module, before: Callable[..., None]) -> None:
        self.saved: list[Saved] = []
        self.names: dict[int, str] = {}
        self._time = 0
        self._model, self._before = model, before
        named = [*model.named_parameters(), *model.named_buffers()]
        self._own = {place: name for name, it in named for place, _ in storages(it)}
        self._called = {id(module): name for name, module in names(model).items()}
        self._tokens: list[ReferenceType[_Token]] = []
        self._asked: list[Saved] = []
        self._dropout = _Dropouts()
        self._stack: Stack

    def run(self, *arguments: Any) -> Any:
        """Return the model's output, which keeps the graph; `saved` is known afterwards."""
        self._stack = Stack(self._model)
        hooks = [hook for module in self._model.modules() for hook in self._hooks(module)]
        saving = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        try:
            with saving, self._dropout:
                output = self._model(*arguments)
        finally:
            self._stack.remove()
            for hook in hooks:
                hook.remove()
        for node in nodes(output):
            self._ask(node)
        tokens = [token for it in self._tokens if (token := it()) is not None]
        self.saved = [saved for token in tokens for saved in token.saved]
        return output

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _hooks(self, module: nn.Module) -> list[Any]:
        return [
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave),
        ]

    def _enter(self, module: nn.Module, arguments: Any, named: dict[str, Any]) -> None:
        self._before(self._tick(), self._stack.frames[-1], module, arguments, named)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        name = self._called.get(id(module), "")
        if isinstance(output, Tensor) and not list(module.children()):
            self.names.update({place: name for place, _ in storages(output)})

    def _pack(self, tensor: Tensor) -> _Token:
        found = []
        for place, size in storages(tensor) if self._stack.frames else []:
            frame = self._stack.frames[-1]
            module = "" if frame.module is self._model else frame.name
            own, dropout = self._own.get(place), self._dropout.depth > 0
            where = (module, frame, own, self._tick(), place, size)
            found.append(Saved(*where, tuple(tensor.shape), tensor.dtype, dropout))
        token = _Token(tensor.detach(), found)
        self._tokens.append(ref(token))
        return token

    def _unpack(self, token: _Token) -> Tensor:
        self._asked += token.saved
        return token.tensor

    def _ask(self, node: Any) -> None:
        """Ask a node for what it saves: it is unpacked, and so known."""
        for attribute in dir(node):
            if attribute.startswith("_saved_") or attribute == "saved_tensors":
                self._asked = []
                getattr(node, attribute)
                for saved in self._asked:
                    saved.node, saved.part = node, attribute.removeprefix("_saved_")


class _Token:
    """What autograd holds in a tensor's place."""

    def __init__(self, tensor: Tensor, saved: list[Saved]) -> None:
        self.tensor, self.saved = tensor, saved


class _Dropouts(TorchFunctionMode):
    """Notes when a dropout runs."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.depth += func in _DROPOUTS
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.depth -= func in _DROPOUTS


def nodes(output: Any) -> list[Any]:
    """Return the nodes of autograd's graph that an output leads to."""
    open_nodes = [it.grad_fn for it in tensors(output) if it.grad_fn is not None]
    seen = set(open_nodes)
    while open_nodes:
        following = {node for node, _ in open_nodes.pop().next_functions if node is not None}
        open_nodes += following - seen
        seen |= following
    return [*seen]


def tensors(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """Yield the tensors in an output, of whatever it is made."""
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, Mapping):
        value = [*value.values()]
    elif not isinstance(value, list | tuple | set):
        value = [*getattr(value, "__dict__", {}).values()]
    for each in value if depth else ():
        yield from tensors(each, depth - 1)


def operation(node: Any) -> str:
    """Return what a node computes, in torch's words."""
    name = re.sub(r"Backward\w*$", "", type(node).__name__)
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[a-zA-Z0-9])(?=[A-Z][a-z])", "_", name).lower()


def weight_of(node: Any) -> Tensor | None:
    """Return the parameter that a product multiplies by, or of which a part; None if none is."""
    name = operation(node)
    following = node.next_functions
    # the weight is the second factor; before it there may be a bias, which is added
    index = {"addmm": 2, "baddbmm": 2, "mm": 1, "bmm": 1, "linear": 1, "convolution": 1}[name]
    node = following[index][0]
    while node is not None and _SAME.fullmatch(type(node).__name__):
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)
