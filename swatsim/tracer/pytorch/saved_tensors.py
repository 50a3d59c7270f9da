"""What autograd saves for the backward pass, measured."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from weakref import finalize

import torch
from torch import Tensor, nn

from swatsim.tracer.pytorch.naming import parts
from swatsim.tracer.pytorch.private import Hooks, is_recomputation, saved_tensor_hooks
from swatsim.tracer.pytorch.watch import Stack, checked_names

log = logging.getLogger(__name__)

#: What is held: by which module (None: by any), and where it lies.
_Key: TypeAlias = tuple[str | None, int]


class Kept:
    """Measures the most that autograd holds at once of what a model's modules save, by module.

    Counted are the storages of the tensors that it saves (saved-tensor hooks), whole and each
    once, but for those of parameters and buffers, which are there anyway. A storage counts from
    when it is saved until the graph lets go of it: in the backward pass, unless ``retain_graph``,
    or when the graph is dropped. So gradient accumulation keeps what one of its passes keeps, two
    forward passes before one backward pass add up, and the region of a checkpoint keeps what it
    recomputes, while that lasts. What the loss keeps, outside of the model, is not counted, nor
    what a checkpoint's function computes outside of the model's modules.
    `workload.measured.compare` sets it beside the model of `workload.footprint`.

    The training is the one without: no tensor is copied, and one that was changed in place since
    it was saved is refused as ever, which torch itself leaves to whoever has such hooks. Where
    others have saved-tensor hooks already when the model runs, such as ``save_on_cpu`` around it,
    what is kept is theirs, and nothing is counted. A model that itself calls a gradient of
    torch.func can't be measured: torch raises, for that allows no such hooks.

    ::

        with Kept(model) as kept:
            loss = criterion(model(x), y)
            loss.backward()
        kept.modules, kept.total

    Parameters
    ----------
    model : torch.nn.Module

    Raises
    ------
    RecordingError
        If `model` is no module, or this torch lacks what tells that others have hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        checked_names(model)
        self._root = model
        self._own: set[int] = set()
        self._hooks: Any = None
        self._ledger = _Ledger()
        self._failed = False
        self._stack = Stack(model, self._moved)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def modules(self) -> dict[str, int]:
        """Module, as in ``model.named_modules()`` -> the most bytes that it keeps at once.

        Each storage once, shared with other modules or not. Each module's own most, which need not
        be when all together keep the most: what a checkpoint recomputes is kept late. A function
        counts for the module that calls it; "" is the model.
        """
        return {name: size for name, size in self._ledger.most.items() if name is not None}

    @property
    def total(self) -> int:
        """The most bytes that all modules together keep at once, each storage once."""
        return self._ledger.most.get(None, 0)

    def close(self) -> None:
        """Stop measuring."""
        self._stack.remove()

    def describe(self) -> Mapping[str, Any]:
        """Return what was measured, as JSON; empty if nothing ran, or it can't be measured."""
        if self._failed or not self.total:
            return {}
        return {"modules": self.modules, "total": self.total}

    def _moved(self) -> None:
        depth = len(self._stack.frames)
        if depth == 1 and self._hooks is None:
            self._begin()
        elif not depth and self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None

    def _begin(self) -> None:
        theirs = saved_tensor_hooks()
        if theirs is not None and not is_recomputation(theirs):
            return
        own = (*self._root.parameters(), *self._root.buffers())  # by now: they may have moved
        self._own = {place for tensor in own for place, _ in self._storages(tensor)}
        pack, unpack = (self._pack, _unpack) if theirs is None else self._watched(theirs)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
        with suppress(RuntimeError):  # where torch allows none, as in a transform of torch.func
            hooks.__enter__()
            self._hooks = hooks

    def _pack(self, tensor: Tensor) -> _Packed:
        return _Packed(_alias(tensor), partial(self._ledger.release, self._hold(tensor)))

    def _watched(self, theirs: Hooks) -> Hooks:
        """Return a checkpoint's hooks, watched: what they are given is held until it dies."""

        def pack(tensor: Tensor) -> Any:
            held = _alias(tensor)
            finalize(held, self._ledger.release, self._hold(tensor)).atexit = False
            return theirs[0](held)

        return pack, theirs[1]

    def _hold(self, tensor: Tensor) -> list[_Key]:
        """Count what is saved, and return what to release of it."""
        frame = self._stack.frames[-1]
        module = "" if frame.module is self._root else frame.name
        storages = [found for found in self._storages(tensor) if found[0] not in self._own]
        return [self._ledger.hold(key, *found) for found in storages for key in (module, None)]

    def _storages(self, tensor: Tensor) -> list[tuple[int, int]]:
        """Return where a tensor lies, and how many bytes are there; nothing if it does not say."""
        try:
            with torch._C.DisableTorchFunction():
                return storages(tensor)
        except Exception as error:  # noqa: BLE001  (no training ends for it)
            if not self._failed:
                message = "what autograd keeps is not measured: a %s does not say: %s"
                log.warning(message, type(tensor).__name__, error)
            self._failed = True
            return []


class _Ledger:
    """What is held, by whom, and the most that it ever was.

    Releases come from anywhere, a garbage collection in the middle of `hold` even: they wait in a
    queue until the next `hold`. A most can change in none but that.
    """

    def __init__(self) -> None:
        self.most: dict[str | None, int] = {}
        self._held: dict[str | None, int] = {}
        self._holders: dict[_Key, int] = {}
        self._sizes: dict[_Key, int] = {}
        self._released: deque[list[_Key]] = deque()

    def hold(self, module: str | None, place: int, size: int) -> _Key:
        """Add one holder of a storage, and return what to release."""
        while self._released:
            for key in self._released.popleft():
                self._drop(key)
        key = (module, place)
        holders = self._holders[key] = self._holders.get(key, 0) + 1
        if holders == 1:
            self._sizes[key] = size
            held = self._held[module] = self._held.get(module, 0) + size
            self.most[module] = max(held, self.most.get(module, 0))
        return key

    def release(self, keys: list[_Key]) -> None:
        """Take one holder off each of some storages."""
        self._released.append(keys)

    def _drop(self, key: _Key) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._held[key[0]] -= self._sizes.pop(key)


class _Packed:
    """A saved tensor, which autograd holds in its place: its end tells that the graph let go."""

    __slots__ = ("release", "tensor", "version")

    def __init__(self, tensor: Tensor, release: Callable[[], None]) -> None:
        self.tensor = tensor
        self.version = _version(tensor)
        self.release = release

    def __del__(self) -> None:
        self.release()


def _alias(tensor: Tensor) -> Tensor:
    """Return a tensor of the same storage and version that nobody else has, without a history.

    An output that the node which computes it held by itself would hold that node: none would die.
    """
    with torch._C.DisableTorchFunction():
        try:
            return tensor.detach()
        except Exception:  # noqa: BLE001  (of a subclass; no training ends for it)
            return tensor


def _unpack(packed: _Packed) -> Tensor:
    """Return a saved tensor, unless it was changed since, as torch checks where nobody has hooks.

    Raises
    ------
    RuntimeError
        With torch's words.
    """
    tensor = packed.tensor
    if (version := _version(tensor)) != packed.version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace "
            f"operation: [{tensor.type()} {list(tensor.shape)}] is at version {version}; expected "
            f"version {packed.version} instead. Hint: enable anomaly detection to find the "
            "operation that failed to compute its gradient, with "
            "torch.autograd.set_detect_anomaly(True)."
        )
    return tensor


def _version(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor._version


def storages(tensor: Tensor) -> list[tuple[int, int]]:
    """Return where the storages of a tensor are, and the bytes of each; empty ones are left out."""
    found = (part.untyped_storage() for part in parts(tensor))
    # one without data, as on the meta device, is known by itself
    return [(it.data_ptr() or it._cdata, it.nbytes()) for it in found if it.nbytes()]
