"""What is written down while a network's forward pass is told: tensors kept, and operations.

Speaks convolution letters; C, H and W are of one sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swatsim.workload.phases import Phase
from swatsim.workload.tables import Saved
from swatsim.workload.work import VALUE, Extent, Part, Work


@dataclass(frozen=True)
class Tensor:
    """One sample of a module's output, named after that module.

    Parameters
    ----------
    name : str
    C, H, W : int
    zeros : bool
        Whether values are zero by nature, as behind a ReLU. A mean is as dense as what it is of.
    trained : bool
        Whether a gradient flows to it: not to the input.
    shared : bool
        Whether it is the same for all samples.
    """

    name: str
    C: int
    H: int = 1
    W: int = 1
    zeros: bool = False
    trained: bool = True
    shared: bool = False

    @property
    def extent(self) -> Extent:
        """How many elements it has."""
        elements = self.C * self.H * self.W
        return Extent(0, elements) if self.shared else Extent(elements)

    @property
    def part(self) -> Part:
        """The tensor, to read or to write."""
        return Part(self.name, self.extent)

    @property
    def gradient(self) -> Part:
        """Its gradient."""
        return Part(f"gradient of {self.name}", self.extent)


def image(C: int, size: int) -> Tensor:
    """Return a network's input."""
    return Tensor("input", C, size, size, trained=False)


def fixed(elements: int, name: str = "", width: int = VALUE) -> Part:
    """Return a tensor that does not grow with the batch, such as a norm's weights."""
    return Part(name, Extent(0, elements), width)


class Tape:
    """What modules keep and do, in order.

    Attributes
    ----------
    saved : list of Saved
    products : int
        How many products there were.
    """

    def __init__(self) -> None:
        self.saved: list[Saved] = []
        self.products = 0
        self._ahead: list[Work] = []
        self._back: list[Work] = []  # in the order of the forward pass
        self._uses: Counter[Tensor] = Counter()

    @property
    def works(self) -> list[Work]:
        """What is done beside the products, forward and then backward."""
        return [*self._ahead, *self._back[::-1]]

    def keep(self, kind: str, name: str, x: Tensor, part: str = "") -> None:
        """Note that a module keeps a tensor; `part` is which of its own that is."""
        self.saved.append(Saved(name, kind, x.C, x.H, x.W, x.name, part))

    def ahead(
        self, module: str, function: str, reads: Sequence[Part], writes: Sequence[Part], **more: Any
    ) -> None:
        """Note an operation of the forward pass."""
        self._ahead.append(self._work(module, "forward", function, reads, writes, **more))

    def back(
        self, module: str, function: str, reads: Sequence[Part], writes: Sequence[Part], **more: Any
    ) -> None:
        """Note an operation of the backward pass: what is noted last runs first."""
        self._back.append(self._work(module, "backward", function, reads, writes, **more))

    def use(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Note that something reads a tensor; gradients of several readers are added up."""
        self._uses[x] += 1
        if self._uses[x] > 1 and x.trained:
            one, other = x.gradient, replace(x.gradient, name="")
            self.back(x.name.rpartition(".")[0], "add", [one, other], [one], elementwise=True)
        return x if y is None else y

    def _work(
        self,
        module: str,
        phase: Phase,
        function: str,
        reads: Sequence[Part],
        writes: Sequence[Part],
        **more: Any,
    ) -> Work:
        own = {"products": self.products, **more}
        return Work(module, phase, function, tuple(reads), tuple(writes), **own)
