"""Which tensors of a step are parameters, or are computed from parameters alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from swatsim.tracer.pytorch.naming import Names, parts


@dataclass(frozen=True)
class Origin:
    """What a tensor is computed from, and nothing else.

    Parameters
    ----------
    name : str
        Of the parameter or buffer, or part of one, with the most elements among those; "" for
        constants.
    size : int
        Its elements.
    learnt : bool
        Whether a parameter is among them, not only buffers and constants.
    sources : frozenset of str
        The names of all of them.
    is_matrix : bool
        Whether the largest has two axes or more.
    """

    name: str = ""
    size: int = 0
    learnt: bool = False
    sources: frozenset[str] = frozenset()
    is_matrix: bool = False


CONSTANT = Origin()

#: What looks values up, adds them, or puts them beside others.
_LAID = frozenset(
    [
        *("embedding", "_embedding_bag", "_embedding_bag_forward_only", "index", "index_select"),
        *("gather", "take", "add", "sub", "rsub", "cat", "stack", "where", "copy", "index_put"),
        *("index_add", "index_copy", "scatter", "scatter_add", "slice_scatter", "select_scatter"),
        *("masked_fill", "masked_scatter"),
    ]
)
#: Products that are added to their first argument.
_ADDED_TO = frozenset({"addmm", "baddbmm", "addbmm", "addmv"})

#: Namespaces of functions whose products are seen, or that multiply nothing.
_SEEN = ("aten", "prim", "prims", "c10d", "_c10d_functional")

#: What makes values of nothing that are data all the same: noise, and memory to be filled.
_FRESH = ("rand", "normal", "empty", "bernoulli", "multinomial", "uniform", "dropout")


class Origins:
    """Follows parameters through the operations of a step; what it does not know is data.

    Tensors are known by identity, and weakly: none is kept alive, and one that takes the place of
    another inherits nothing.

    Parameters
    ----------
    names : Names
    modules : callable
        Gives the model's modules anew: parameters may be put in, or get their shapes, in a step.
    running : callable
        Whether the model runs: only then a parameter that is new is looked for.
    """

    def __init__(
        self,
        names: Names,
        modules: Callable[[], Mapping[str, nn.Module]],
        running: Callable[[], object],
    ) -> None:
        self._names, self._modules, self._running = names, modules, running
        #: Parameters of others.
        self._strangers: set[int] = set()
        self._known: dict[int, tuple[ref[Tensor], Origin]] = {}
        #: Parameters that functions of others than torch read: name -> function.
        self.foreign: dict[str, str] = {}
        #: Names of parameters that met data: in what only lays them there, and in anything else.
        self._laid: set[str] = set()
        self._met: set[str] = set()
        self._set_own()

    def of(self, tensor: Tensor) -> Origin | None:
        """Return what a tensor is computed from; None for data."""
        entry = self._known.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def weight(self, tensor: Tensor, frame: str) -> Origin | None:
        """Return the origin of what may be a weight, looking at its storage, too."""
        origin = self.of(tensor)
        name = self._names.of(tensor, frame)
        if name is None or (origin is not None and not origin.name):
            return origin
        if origin is not None and origin.learnt and not _is_part_of(name, origin.name):
            return replace(origin, name=name)
        owned = self._names.owner(tensor, frame)
        learnt = origin.learnt if origin is not None else owned is not None and _learns(owned)
        sources = frozenset({owned.name}) if owned is not None else frozenset()
        return Origin(name, tensor.numel(), learnt, sources)

    def follow(self, func: Any, arguments: Any, named: Any, out: Any) -> None:
        """Work out what the outputs of an operation are computed from."""
        of = self._read
        read = [of(each) for each in tensors(arguments)]
        if named:
            read += [of(each) for each in tensors(named.values())]
        if None in read and any(read) and self._running():  # no optimizer
            self._meets(func, arguments, named)
        if None in read and _makes_new(func):  # of which nothing is known, as of all data
            return
        if not read:
            if not any(word in func._schema.name for word in _FRESH):
                self._mark(out, CONSTANT)
            return
        known = [origin for origin in read if origin is not None]
        if 0 < len(known) < len(read) and func.namespace not in _SEEN:
            self._note(func, [origin for origin in known if origin.is_matrix])
        if len(known) == len(read):
            self._mark(out, self._joined(func, known, out))
        else:
            self._mark(out, None)

    def alone(self, arguments: Any, named: Any) -> int:
        """Return how many values the largest parameter has that an operation reads; 0 with data."""
        read = [self.of(each) for each in tensors((*arguments, *named.values()))]
        known = [origin for origin in read if origin is not None]
        return max((origin.size for origin in known), default=0) if len(known) == len(read) else 0

    def is_laid(self, name: str) -> bool:
        """Whether a parameter was looked up in, added to or put beside data, and nothing else."""
        return name in self._laid and name not in self._met

    def has_met(self, name: str) -> bool:
        """Whether an operation read a parameter, or what is computed from it, and data."""
        return name in self._laid or name in self._met

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Note that a tensor was computed out of sight from another alone."""
        self._mark(target, self.of(source))

    def _read(self, tensor: Tensor) -> Origin | None:
        """Return what a tensor is computed from, if it is a parameter that is new or moved, too."""
        origin = self.of(tensor)
        if not self._is_new(tensor, origin) or not self._running():
            return origin
        self._names.take(self._modules())
        self._set_own()
        if self._is_new(tensor, origin := self.of(tensor)):
            self._strangers.add(id(tensor))
        return origin

    def _is_new(self, tensor: Tensor, origin: Origin | None) -> bool:
        """Whether a parameter, or its storage (``weight.data = ...``), was not there before."""
        if not isinstance(tensor, nn.Parameter) or id(tensor) in self._strangers:
            return False
        # one that has no shape yet is nobody's; it is the same object once it has
        return not is_lazy(tensor) and (origin is None or self._names.owner(tensor) is None)

    def _set_own(self) -> None:
        for owned in self._names:
            for tensor in (owned.tensor, *parts(owned.tensor)):  # of a composed one each part
                if self.of(tensor) is None:
                    self._set(tensor, _of(owned.name, owned.tensor, owned.kind == "parameter"))

    def _meets(self, func: Any, arguments: Any, named: Any) -> None:
        """Note what an operation does with parameters, or what is computed of them, and data."""
        schema = getattr(func, "_schema", None)
        called = [argument.name for argument in schema.arguments] if schema else []
        for name, value in [*zip(called, arguments, strict=False), *named.items()]:
            for origin in map(self.of, tensors((value,))):
                if origin is not None and origin.learnt:
                    (self._laid if _lays(func, name) else self._met).update(origin.sources)

    def _note(self, func: Any, known: Iterable[Origin]) -> None:
        self.foreign |= {origin.name: func._schema.name for origin in known if origin.learnt}

    def _joined(self, func: Any, known: list[Origin], out: Any) -> Origin:
        largest = max(known, key=lambda origin: (origin.learnt, origin.size))
        if len(known) > 1:
            sources = frozenset().union(*(origin.sources for origin in known))
            return replace(largest, sources=sources) if sources != largest.sources else largest
        if largest.learnt and func.is_view and isinstance(out, Tensor):  # maybe a part of it
            return replace(largest, name=self._names.of(out) or largest.name)
        return largest

    def _mark(self, out: Any, origin: Origin | None) -> None:
        for each in tensors((out,)):
            if origin is not None:
                self._set(each, origin)
            elif self._known:
                self._known.pop(id(each), None)

    def _set(self, tensor: Tensor, origin: Origin) -> None:
        self._known[id(tensor)] = ref(tensor), origin


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among values, those in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


@cache
def _makes_new(func: Any) -> bool:
    """Whether an operation is one of torch's whose outputs are none of its arguments."""
    schema = getattr(func, "_schema", None)
    return schema is not None and schema.name.startswith("aten::") and not schema.is_mutable


@cache
def _lays(func: Any, argument: str) -> bool:
    """Whether an operation puts values of an argument with others, and multiplies them by none."""
    name = func._schema.name.removeprefix("aten::").removesuffix("_")
    if argument in ("attn_mask", "attn_bias"):
        return True
    return name in _LAID or (argument == "self" and name in _ADDED_TO)


def _of(name: str, tensor: Tensor, learnt: bool) -> Origin:
    return Origin(name, tensor.numel(), learnt, frozenset({name}), tensor.dim() > 1)


def _learns(owned: Any) -> bool:
    return bool(owned.kind == "parameter")


def _is_part_of(name: str, whole: str) -> bool:
    return name.partition("[")[0] == whole.partition("[")[0]
