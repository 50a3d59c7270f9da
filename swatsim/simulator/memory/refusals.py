"""Refusals of the planner: which buffer is too small, and what would do."""

from __future__ import annotations

from swatsim.errors import ConfigError
from swatsim.simulator.memory.config import MAX_KIB


class BufferTooSmallError(ConfigError):
    """A buffer that holds no block.

    Parameters
    ----------
    where, blocks : str
        The layer and the op; the extents of blocks that were given.
    name : str
        The parameter.
    got, needed : int
        KiB that it has, and the fewest that would do.
    whose : str
        The machine.
    """

    def __init__(
        self, where: str, blocks: str, name: str, got: int, needed: int, whose: str = ""
    ) -> None:
        self.where, self.blocks, self.name = where, blocks, name
        self.got, self.needed, self.whose = got, needed, whose
        super().__init__(self._sentence())

    def of(self, machine: str) -> BufferTooSmallError:
        """Return the same refusal, with whose buffer it is."""
        return BufferTooSmallError(
            self.where, self.blocks, self.name, self.got, self.needed, machine
        )

    def _sentence(self) -> str:
        of = f" of {self.whose}" if self.whose else ""
        given = f" of {self.blocks}" if self.blocks else ""
        advice = f"set {self.name} to at least {self.needed}"
        if self.needed > MAX_KIB:
            advice = f"it would need {self.needed}, and can have {MAX_KIB}: make blocks smaller"
        size = f"{self.name}={self.got}{of}"
        return (
            f"{self.where}: {size} is too small for one block{given}, which may fill half of it: "
            f"{advice}"
        )
