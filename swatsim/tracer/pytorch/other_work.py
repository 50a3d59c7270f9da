"""What a step does beside multiplying matrices: each operation as torch dispatches it, added up.

- **Forward** is what a module computes, and what is done outside of modules between the model's
  forward pass and the backward pass: losses. A checkpoint's recomputation is forward work once
  more, as its products are.
- **Backward** is what a node of the graph computes. Its module is the one that made the node; of a
  gradient that is added to a parameter's, the parameter's.
- **Optimizer** is what is done outside of both after a backward pass: clipping, unscaling, the
  optimizer, averages of weights; and gradients that are set to zero, whenever. It has no module.

What is done before the model runs (again) is the preparation of data, and not noted, unless an
optimizer of torch's ran since, or it reads a parameter, as an average of weights does; nor is
evaluation (`trains`), nor what is recorded or masked here.

Element-wise operations one after another, in the same module and phase, each of which reads what
the one before it made, are one chain. It reads what it did not make itself. It writes what it ends
with, and of what it makes on the way that whose memory is still held when the backward pass begins
(it is saved for it) or, in other phases, when the step ends (the state of an optimizer).

Forward and backward work grows with the batch, but for what is done with parameters alone, casts
of weights for one, with the gradients of what that made, and gradients that are added up.

A fused attention has a softmax inside: its scores are counted as elements, as far as its causal
mask leaves them, and no bytes, for they stay on the chip. Gates inside a recurrent layer that runs
as one kernel are not counted, nor a bias that a product adds itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from threading import Lock, local
from typing import Any

import torch
from torch import nn
from torch.optim import optimizer

from swatsim.tracefile.others import OtherWork
from swatsim.tracer.pytorch.chains import Chain, Key, Ledger
from swatsim.tracer.pytorch.movement import Movement, movement
from swatsim.tracer.pytorch.naming import Names
from swatsim.tracer.pytorch.private import current_node, next_node, number_of
from swatsim.tracer.pytorch.watch import Frame, trains
from swatsim.workload.phases import Phase

#: What a node's name has beside that of the operation that it is of.
_NODE = re.compile(r"Backward\d*$")


class _Thread(local):
    """What a thread is at.

    Attributes
    ----------
    numbers, modules : list of int, list of str
        From which node of the graph on which module was the innermost.
    frame : Frame or None
        The module whose operation was the last, and whether it trains.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.modules: list[str] = []
        self.frame: Frame | None = None
        self.trains = True


class OtherWorks:
    """Notes the operations of one step that multiply no matrices.

    Parameters
    ----------
    model : torch.nn.Module
    names : Names
        Of its parameters.
    frames : callable
        Gives the modules that run in this thread, the innermost last.
    """

    def __init__(self, model: nn.Module, names: Names, frames: Callable[[], list[Frame]]) -> None:
        self._model, self._names, self._frames = model, names, frames
        self._noted, self._outside = Ledger(), Ledger()
        self._of_policy: Counter[OtherWork] = Counter()
        self._chain: Chain | None = None
        self._here, self._lock = _Thread(), Lock()
        self._numbers: tuple[list[int], list[str]] = ([], [])
        #: Of operations on parameters alone, the node that each may have made, and its name.
        self._made: dict[int, str] = {}
        #: What is done outside of modules: nothing to be noted if None.
        self._phase: Phase | None = "optimizer"
        self._stepping = self._is_backward = False
        self._handles = [
            optimizer.register_optimizer_step_pre_hook(self._steps),
            optimizer.register_optimizer_step_post_hook(self._stepped),
        ]

    def close(self) -> None:
        """Note no more."""
        for handle in self._handles:
            handle.remove()

    def works(self) -> list[OtherWork]:
        """Return what the step did, in the order in which it first did each."""
        with self._lock:
            self._finish()
            self._noted.take(self._outside)
            self._noted.settle()
            done = [key.work(times) for key, times in self._noted.times.items()]
            own = [work.model_copy(update={"times": n}) for work, n in self._of_policy.items()]
            return done + own

    def add(self, works: Iterable[OtherWork]) -> None:
        """Add what a policy does of its own."""
        with self._lock:
            for work in works:
                self._of_policy[work.model_copy(update={"times": 1})] += work.times

    def moves(self) -> None:
        """Note that another module is the innermost, or none."""
        frames, here = self._frames(), self._here
        if not self._numbers[0]:  # gradients may be computed in a thread that runs no module
            self._numbers = here.numbers, here.modules
        here.numbers.append(next_node())
        here.modules.append(frames[-1].name if frames else "")

    def enters(self, module: nn.Module) -> None:
        """Note that the model runs, or a part of it: what was done before prepared its data."""
        with self._lock:
            self._finish()
            dropped, self._outside = self._outside, Ledger()
            zeroed = {it: n for it, n in dropped.times.items() if _zeroes(it)}
            self._noted.times.update(zeroed)
            self._phase = "forward" if trains(self._model, module) else None

    def _product(self, func: Any, args: Any, named: dict[str, Any], size: int, node: Any) -> None:
        """Note a product, which ends a chain; of attention the softmax in it."""
        with self._lock:
            self._finish()
            if "attention" not in func._overloadpacket.__name__:
                return
            where, scores = self._where(node), _scores(func, args, named, size)
            if where is not None and scores:
                functions = ("softmax", "softmax_backward")[: 1 if node is None else 2]
                done = tuple((function, scores, 0, 0) for function in functions)
                dtype = next(each for each in args if isinstance(each, torch.Tensor)).dtype
                self._noted.times[Key(*where, dtype, done, 0, 0, None)] += 1

    def see(
        self,
        func: Any,
        args: Any,
        named: dict[str, Any],
        out: Any,
        size: int,
        node: Any,
        own: int = 0,
    ) -> None:
        """Note an operation that was done.

        Parameters
        ----------
        func, args, named, out
            As `movement` takes them.
        size : int
            Its multiply-accumulates.
        node
            Of the graph, whose gradient is computed; None where none is.
        own : int
            Of an operation on parameters alone the values of the largest one, else 0.
        """
        if size:
            self._product(func, args, named, size, node)
            return
        try:
            done = movement(func, args, named, out)
        except (NotImplementedError, RuntimeError):  # a layout that has no storage
            return
        if done is None:
            return
        with self._lock:
            where = self._where(node)
            if where is not None:
                self._add(*where, done, self._of_weights(done, node, own))

    def _of_weights(self, done: Movement, node: Any, own: int) -> bool:
        """Whether it is known that an operation works on parameters alone, or their gradients.

        One that makes more values than a parameter has may have spread it over the samples, and
        one that looks values up may do so for each.
        """
        if node is None:
            known = 0 < done.elements <= own and not done.kind.touches
            if known:
                self._made[next_node() - 1] = done.kind.function.replace("_", "")
            return known
        variable = getattr(node, "variable", None)
        if variable is not None:
            return self._names.owner(variable) is not None
        return self._made.get(number_of(node)) == _NODE.sub("", type(node).__name__).lower()

    def _add(self, phase: Phase, module: str, done: Movement, of_weights: bool) -> None:
        chain, elementwise, outside = self._chain, done.kind.elementwise, phase == "optimizer"
        if chain is None or not (elementwise and chain.goes_on(phase, module, done)):
            self._finish()
            chain = self._chain = Chain(phase, module, done, of_weights and not outside)
        else:
            chain.add(done)
            chain.of_weights &= of_weights
        if outside and not self._stepping:
            owners = (self._names.owner(tensor) for _, tensor in done.read.values())
            chain.reads_model |= any(owner is not None for owner in owners)
        if not elementwise:
            self._finish()

    def _finish(self) -> None:
        """End the chain."""
        chain, self._chain = self._chain, None
        if chain is not None:
            pending = chain.phase == "optimizer" and not (self._stepping or chain.reads_model)
            (self._outside if pending else self._noted).add(chain)

    def _where(self, node: Any) -> tuple[Phase, str] | None:
        """Return phase and module; None of what is not noted."""
        if node is not None:
            return self._backward(node)
        frames = self._frames()
        if not frames:
            recomputed = self._is_backward and current_node() is not None
            phase: Phase | None = "forward" if recomputed else self._phase
            self._is_backward &= phase != "forward"
            return None if phase is None else (phase, "")
        frame, here = frames[-1], self._here
        if frame is not here.frame:
            here.frame, here.trains = frame, trains(self._model, frame.module)
        self._is_backward = False
        return ("forward", frame.name) if here.trains else None

    def _backward(self, node: Any) -> tuple[Phase, str]:
        """Return the phase of gradients, and the module whose node computes them."""
        if not self._is_backward:
            self._is_backward = True
            self._finish()
            self._noted.settle("forward")
            self._phase = "optimizer"
        variable = getattr(node, "variable", None)
        if variable is not None:
            owned = self._names.owner(variable)
            return "backward", "" if owned is None else owned.module
        numbers, modules = (self._here.numbers, self._here.modules)
        if not numbers:
            numbers, modules = self._numbers
        place = bisect_right(numbers, number_of(node)) - 1
        return "backward", modules[place] if place >= 0 else ""

    def _steps(self, *_: Any) -> None:
        """Note that an optimizer begins: what was done since the gradients was for it."""
        with self._lock:
            self._finish()
            self._noted.take(self._outside)
            self._outside = Ledger()
            self._stepping = True

    def _stepped(self, *_: Any) -> None:
        with self._lock:
            self._finish()
            self._stepping = False


def _zeroes(key: Key) -> bool:
    """Whether gradients are set to zero: the only thing in an optimizer's phase before a step."""
    return all(function in ("zero_", "_foreach_zero_") for function, *_ in key.done)


def _scores(func: Any, args: Any, named: dict[str, Any], size: int) -> int:
    """Return how many scores an attention has that a causal mask does not hide, by its MACs."""
    names = (argument.name for argument in func._schema.arguments)
    given = {**dict(zip(names, args, strict=False)), **named}
    if "query" not in given:
        return 0
    query, key, value = (given[name] for name in ("query", "key", "value"))
    products = 2 if "backward" in func._overloadpacket.__name__ else 1
    scores = size // (products * (query.size(-1) + value.size(-1)))
    if not given.get("is_causal") or query.dim() < 4:
        return int(scores)
    L, S = query.size(-2), key.size(-2)
    return int(scores // (L * S) * sum(min(row + 1, S) for row in range(L)))
