"""What figures are of: so many recorded steps, so many images of each batch, which ops.

And of what share of all that a step multiplies: below `MOST` of it a figure says so itself. And
whether they are a step's, or its layers' alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any

from swatsim.results import Results
from swatsim.table import column_of
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER

#: From this share of a step's multiplications on, figures are called a step's.
MOST = 0.95
#: What is less has no tenth of a percent.
LEAST = 0.0005
#: Why something is not known of results that don't say it.
EARLIER = "an earlier version simulated it"


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
    share : float or None
        Of all multiply-accumulates of these steps, forward and backward, those of the layers and
        ops here; None: it is not known.
    left_out : str
        Why what multiplies no matrices is in no figure; "": it is in them.
    """

    steps: int
    images: int
    batch_size: int
    ops: tuple[str, ...]
    share: float | None = None
    left_out: str = ""

    def __str__(self) -> str:
        """Return it in words: 6 steps of 8 of 128 images, and the ops if some are left out."""
        images = f"{self.images} image{'s' * (self.images != 1)}"
        if self.batch_size > self.images:
            images = f"{self.images} of {self.batch_size} images"
        words = f"{self.steps} step{'s' * (self.steps != 1)} of {images}"
        words += "" if self.whole else f", {' and '.join(self.ops)} only"
        return f"{words}, {percent(self.share)} of their multiplications" if self.partial else words

    @property
    def whole(self) -> bool:
        """Whether no op is left out."""
        return set(OPS) <= set(self.ops)

    @property
    def partial(self) -> bool:
        """Whether it is known that much of a step's multiplications is missing."""
        return self.share is not None and self.share < MOST

    @property
    def of_what(self) -> str:
        """What a figure is of, in words: "" where it is a step's, or that is not known."""
        if not self.partial:
            return ""
        those = "the trace holds" if self.whole else "were simulated"
        return f"of the {percent(self.share)} of a step's multiplications that {those}"

    @property
    def subject(self) -> str:
        """Whose figures they are, in words: a step's, or those of its layers alone."""
        return "a step's layers" if self.left_out else "a step"

    @property
    def mean(self) -> str:
        """What a mean step is of, in words."""
        return f"mean of {self}" if self.steps > 1 else str(self)

    @property
    def columns(self) -> dict[str, Any]:
        """The same as columns of a table; `from_row` reads them."""
        own = {"steps": self.steps, "images": self.images, "batch_size": self.batch_size}
        others = {"share": self.share, "others_left_out": self.left_out}
        return {**own, "ops": " ".join(self.ops), **others}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Span:
        """Return the span in a table's columns."""
        images = row["images"], row["batch_size"]
        left_out = row.get("others_left_out", EARLIER)
        return cls(row["steps"], *images, tuple(row["ops"].split()), row.get("share"), left_out)


def percent(share: float | None) -> str:
    """Return a share in percent; one below `MOST`, or below all, is not rounded up to it."""
    value = 100 * (share or 0.0)
    if value < 10:
        return f"{value:.2g} %" if value >= 0.1 or not value else "less than 0.1 %"
    whole = f"{value:.0f}"
    crosses = any(value < bound <= float(whole) for bound in (100 * MOST, 100))
    return f"{floor(10 * value) / 10 if crosses else whole} %"


def tenths(share: float) -> str:
    """Return a share in percent to a tenth; what is not zero does not look so."""
    return "<0.1 %" if 0 < share < LEAST else f"{100 * share:.1f} %"


def span_of(results: Results) -> Span:
    """Return how much of a training run results hold."""
    ops = {*column_of(results.rows, "op")}
    return Span(
        steps=len({*column_of(results.rows, "step")}),
        images=max(column_of(results.rows, "samples")),
        batch_size=results.provenance.get("parameters", {}).get("batch_size") or 0,
        ops=tuple(op for op in OPS if op in ops),
        share=results.share,
        left_out=_left_out(results, ops),
    )


def _left_out(results: Results, ops: Collection[str]) -> str:
    parameters = results.provenance.get("parameters", {})
    return "" if OTHER in ops else str(parameters.get("others_left_out", EARLIER))
