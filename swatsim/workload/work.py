"""What a network does beside multiplying matrices: operations, and the tensors they read and write.

One operation reads each of its inputs once and writes each of its outputs once, as a recorder that
watches a framework's operations has it; functions are called as torch calls them on a GPU. Values
are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from swatsim.workload.phases import Phase

#: Bytes of an element.
VALUE, INDEX, FLAG = 4, 8, 1


@dataclass(frozen=True)
class Extent:
    """Elements of a tensor.

    Parameters
    ----------
    sample : int
        For each sample.
    fixed : int
        Beside those.
    """

    sample: int
    fixed: int = 0

    def of(self, batch: int) -> int:
        """Return the elements for a batch."""
        return self.sample * batch + self.fixed


@dataclass(frozen=True)
class Part:
    """A tensor that an operation reads or writes.

    Parameters
    ----------
    name : str
        Tensors of one name are one; one without a name is met nowhere else.
    extent : Extent
    width : int
        Bytes of an element.
    """

    name: str
    extent: Extent
    width: int = VALUE

    def bytes(self, batch: int) -> int:
        """Return its bytes for a batch."""
        return self.extent.of(batch) * self.width


@dataclass(frozen=True)
class Work:
    """One operation that multiplies no matrices.

    Parameters
    ----------
    module : str
        Which module runs it; "" is the model.
    phase : {"forward", "backward", "optimizer"}
    function : str
        In torch's words.
    reads, writes : tuple of Part
    elementwise : bool
        Whether each value that it writes is made of those at the same place in what it reads.
    extent : Extent, optional
        Values that it works on; by default those of its largest tensor.
    products : int
        How many products lie before it in the forward pass: none lies between two operations of the
        same number.
    """

    module: str
    phase: Phase
    function: str
    reads: tuple[Part, ...]
    writes: tuple[Part, ...]
    elementwise: bool = False
    extent: Extent | None = None
    products: int = 0

    def elements(self, batch: int) -> int:
        """Return how many values it works on, for a batch."""
        if self.extent is not None:
            return self.extent.of(batch)
        return max(part.extent.of(batch) for part in (*self.reads, *self.writes))

    def read(self, batch: int) -> int:
        """Return the bytes that it reads, for a batch."""
        return sum(part.bytes(batch) for part in self.reads)

    def written(self, batch: int) -> int:
        """Return the bytes that it writes, for a batch."""
        return sum(part.bytes(batch) for part in self.writes)
