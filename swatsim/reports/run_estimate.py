"""What is estimated of a whole run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swatsim.displayed import Displayed
from swatsim.reports.run_costs import LEAKING, TIME
from swatsim.reports.run_phases import Phase
from swatsim.reports.run_words import headline
from swatsim.results import Results
from swatsim.sampling import Estimate

if TYPE_CHECKING:
    import pandas as pd

#: Of a run's quantities, those that are totals, and their units.
UNITS: Mapping[str, str] = {
    TIME: "ms",
    "energy_pj": "pJ",
    LEAKING: "pJ",
    "cycles": "cycles",
    "cycles_compute": "cycles",
}
#: What is no total.
THROUGHPUT = "images_per_s"


@dataclass(frozen=True, repr=False)
class RunEstimate(Displayed):
    """What a whole training run costs, as far as its recorded steps tell.

    Parameters
    ----------
    run_steps : int
        Steps of the run.
    images : float
        Of all its steps: as many of each as the figures are of.
    images_of_step : int
        Of the largest step.
    machine, against, source : str
        The machine, its baseline, and the trace with how much of it was used.
    phases : tuple of Phase
        How the run was cut: at steps that somebody stated, and where the recorded level jumps,
        halfway between two recorded steps. The intervals know that it may have jumped anywhere
        between the two.
    ours, baseline : dict of str to Estimate
        Totals by column: `time_ms`, `energy_pj` (what happens), `energy_with_leakage_pj`, `cycles`,
        `cycles_compute`; and `images_per_s`. What is not known of a machine is missing.
    ratios : dict of str to Estimate
        The baseline's by ours: `speed_up` in time (in cycles where a clock is not known),
        `speed_up_compute`, `energy_efficiency`. Where results have everything that a step does,
        `speed_up_layers` too, of its layers alone, and `elsewhere`: of the baseline's cycles the
        share that is not in layers.
    share : float or None
        Of all that the recorded steps multiplied, what the results, and so the totals, are of;
        None: it is not known.
    warnings : tuple of str
        Why not to trust the intervals, and what is not in the totals.
    notes : tuple of str
        How whole batches were estimated; empty where the figures are of the images that are held.
    results : Results
        The recorded steps, of which the run is estimated. Those of whole batches can't be written:
        counts of waiting may be below zero where a batch's cost was extended.
    others_left_out : str
        Why the totals are of layers alone; "": they are of all that a step does.
    """

    run_steps: int
    images: float
    images_of_step: int
    machine: str
    against: str
    source: str
    phases: tuple[Phase, ...]
    ours: dict[str, Estimate]
    baseline: dict[str, Estimate]
    ratios: dict[str, Estimate]
    share: float | None
    warnings: tuple[str, ...]
    results: Results
    notes: tuple[str, ...] = ()
    others_left_out: str = ""

    @property
    def recorded(self) -> int:
        """Steps of the run that were recorded."""
        return sum(len(phase.steps) for phase in self.phases)

    def per_step(self, name: str, *, baseline: bool = False) -> Estimate:
        """Return a total's mean step."""
        return (self.baseline if baseline else self.ours)[name].times(1 / self.run_steps)

    def per_image(self, name: str, *, baseline: bool = False) -> Estimate:
        """Return a total's mean image."""
        return (self.baseline if baseline else self.ours)[name].times(1 / self.images)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a quantity: of whom, its unit, value and interval, and of totals a mean step's.

        Columns are `of` (machine, baseline, or ratio: of the two), `quantity`, `unit`, `value`,
        `low`, `high` (95 %; not a number where there is no interval), `per_step`, `per_image`.
        """
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for of, found in (("machine", self.ours), ("baseline", self.baseline)):
            for name, it in found.items():
                means = (it.value / self.run_steps, it.value / self.images)
                of_step, of_image = means if name in UNITS else (None, None)
                row = _row(of, name, UNITS.get(name, "images/s"), it)
                yield {**row, "per_step": of_step, "per_image": of_image}
        for name, it in self.ratios.items():
            yield {**_row("ratio", name, "1", it), "per_step": None, "per_image": None}

    @property
    def frame(self) -> pd.DataFrame:
        """`rows` as a pandas frame."""
        import pandas as pd  # a third of a second that a command need not pay

        return pd.DataFrame(self.rows)

    def _lines(self) -> list[str]:
        warnings = [f"{len(self.warnings)} warnings: see .warnings"] if self.warnings else []
        return [headline(self), f"from {self.source}", *warnings]


def _row(of: str, name: str, unit: str, it: Estimate) -> dict[str, Any]:
    interval = {"low": it.low, "high": it.high}
    return {"of": of, "quantity": name, "unit": unit, "value": it.value, **interval}
