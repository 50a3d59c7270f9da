"""What figures are of: so many recorded steps, so many images of each batch, which ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swatsim.results import Results
from swatsim.workload.layer import OPS


@dataclass(frozen=True)
class Span:
    """How much of a training run results hold.

    Parameters
    ----------
    steps : int
        Recorded steps.
    images : int
        Of each step's batch, those that were recorded.
    batch_size : int
        0: the results don't say.
    ops : tuple of str
    """

    steps: int
    images: int
    batch_size: int
    ops: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in words: 6 steps of 8 of 128 images, and the ops if some are left out."""
        images = f"{self.images} image{'s' * (self.images != 1)}"
        if self.batch_size > self.images:
            images = f"{self.images} of {self.batch_size} images"
        words = f"{self.steps} step{'s' * (self.steps != 1)} of {images}"
        return words if set(OPS) <= set(self.ops) else f"{words}, {' and '.join(self.ops)} only"

    @property
    def mean(self) -> str:
        """What a mean step is of, in words."""
        return f"mean of {self}" if self.steps > 1 else str(self)

    @property
    def columns(self) -> dict[str, Any]:
        """The same as columns of a table; `from_row` reads them."""
        own = {"steps": self.steps, "images": self.images, "batch_size": self.batch_size}
        return {**own, "ops": " ".join(self.ops)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Span:
        """Return the span in a table's columns."""
        return cls(row["steps"], row["images"], row["batch_size"], tuple(row["ops"].split()))


def span_of(results: Results) -> Span:
    """Return how much of a training run results hold."""
    ops = {row["op"] for row in results.rows}
    return Span(
        steps=len({row["step"] for row in results.rows}),
        images=max(row["samples"] for row in results.rows),
        batch_size=results.provenance.get("parameters", {}).get("batch_size") or 0,
        ops=tuple(op for op in OPS if op in ops),
    )
