"""What bounds a step's time, and what would change it: the first thing that is said of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from swatsim.columns import Role
from swatsim.counters import BUCKETS, DRAM_BYTES, DRAM_WAITS
from swatsim.reports import tables
from swatsim.reports.labels import times
from swatsim.reports.span import percent, span_of
from swatsim.reports.tables import Summary, quotient
from swatsim.results import Results
from swatsim.table import column_of
from swatsim.workload.phases import OTHER

#: What may bound a step, in words.
BOUNDS: Mapping[str, str] = {
    "dram": "waiting for DRAM",
    "vector": "everything else (the vector unit)",
    "buffers": "waiting for buffers",
    "pes": "the PEs' own cycles",
}
#: What could be otherwise, each by itself and both.
CHANGES = ("no_dram_wait", "ideal_pes", "ideal")
#: What of a row that is computed from.
_NEEDED = (
    *("op", "cycles", "cycles_compute", "macs_effectual", "pes", "lanes"),
    *("dram_mb_per_s", "clock_mhz", *DRAM_WAITS, *DRAM_BYTES),
)
#: A factor from which on a change is worth a word.
LEAST = 1.005


@dataclass(frozen=True)
class Verdict:
    """What bounds a mean step, and by how much it would be faster were it otherwise.

    Parameters
    ----------
    subject : str
        Whose time it is: "a step", or "a step's layers" where results have nothing else.
    bound : str
        What takes the largest share of the time: dram, vector, buffers or pes.
    shares : mapping of str to float
        The share of each of these in the time: of waiting for DRAM, layers and everything else
        alike, and of an operand that is pruned through DRAM in each step; of the vector unit at
        work; of PEs that wait for buffers; of PEs that compute. They add up to 1.
    lost : str
        Of the layers, the bucket that takes most PE-cycles without effectual work, in words.
    effectual : float
        Of the PE-cycles in which the PEs compute, the share whose product counts.
    no_dram_wait, ideal_pes, ideal : float
        So many times as fast would the step be: were DRAM never waited for; did as many multipliers
        compute nothing but products without a zero, on this DRAM, which carries as many bytes as it
        does (a bound); with both. What the vector unit works at stays in all of them.
    speed_up_no_dram_wait : float
        Speed-up over the baseline, did neither of the two ever wait for DRAM.
    """

    subject: str
    bound: str
    shares: Mapping[str, float]
    lost: str
    effectual: float
    no_dram_wait: float
    ideal_pes: float
    ideal: float
    speed_up_no_dram_wait: float

    @property
    def share(self) -> float:
        """The share of the time that what bounds it takes."""
        return self.shares[self.bound]

    @property
    def changes(self) -> Mapping[str, float]:
        """By how much faster it would be, by what were otherwise."""
        return {name: getattr(self, name) for name in CHANGES}

    @property
    def sentence(self) -> str:
        """What bounds it and what would change it, in one sentence without its full stop."""
        if isnan(self.share):
            return f"Nothing bounds {self.subject}: no cycle is taken"
        words = f"{BOUNDS[self.bound]}, {percent(self.share)} of the time of {self.subject}"
        if self.bound == "pes":
            lost = f"; lost most to: {self.lost.partition(' (')[0]}" if self.lost else ""
            words += (
                f" ({percent(self.effectual)} of their lane-cycles are products that count{lost})"
            )
        return f"Bound by {words}: {self._changes}"

    @property
    def _changes(self) -> str:
        """Return what would change it; both together only where that is more than one alone."""
        over = f"{times(self.speed_up_no_dram_wait)} over a baseline that waits as little"
        limits = _exceeds(self.ideal, self.ideal_pes)
        known = {
            f"were DRAM never waited for, {{}} ({over})": self.no_dram_wait,
            f"with PEs that lose no cycle{', on this DRAM,' * limits} at best {{}}": self.ideal_pes,
        }
        found = [how.format(_faster(factor)) for how, factor in known.items() if factor >= LEAST]
        if _exceeds(self.ideal, max(self.no_dram_wait, self.ideal_pes, 1)):
            found.append(self._both.format(_faster(self.ideal)))
        if not found:
            return "neither a DRAM that is never waited for nor ideal PEs would change it"
        return "; ".join(found)

    @property
    def _both(self) -> str:
        """What is said of both, by which of them was said something before."""
        dram, pes = (factor >= LEAST for factor in (self.no_dram_wait, self.ideal_pes))
        if dram and pes:
            return "with both {}"
        if dram:
            return "and with PEs that lose no cycle besides, {}"
        if pes:
            return "were DRAM never waited for besides, {}"
        return "were DRAM never waited for and did PEs lose no cycle, {}"


def verdict(results: Results) -> Verdict:
    """Return what bounds a step of results, all recorded ones together.

    Of rows of layers, waiting for DRAM is the buckets of `DRAM_WAITS`; everything else waits where
    its bytes take longer than its values. So many times as fast would it be, to the cycle,
    simulated with an ideal DRAM. The ideal is that of `of_ideal`.

    Raises
    ------
    ResultsError
        If the rows are of more than one trace, machine or baseline.
    """
    return tables.summarise(results).once(_verdict)


def _verdict(results: Summary) -> Verdict:
    ours, theirs = (_times(results.all_of(role)) for role in (Role.MACHINE, Role.BASELINE))
    layers, whole = results.of_layers, ours["cycles"]
    lost = f"lane_cycles_{tables.lost_most_to(layers)}"
    parts = {
        "dram": whole - ours["no_dram_wait"],
        "vector": sum(row["cycles_compute"] for row in results.others_of(Role.MACHINE)),
        "pes": layers["cycles_compute"],
    }
    parts["buffers"] = whole - sum(parts.values())
    compute = layers["cycles_compute"] * layers["pes"] * layers["lanes"]
    clocks = ours["clock_mhz"], theirs["clock_mhz"]
    faster = clocks[0] / clocks[1] if all(clocks) else 1.0
    return Verdict(
        subject=span_of(results).subject,
        bound=max(parts, key=lambda name: parts[name]),
        shares={name: quotient(cycles, whole) for name, cycles in parts.items()},
        lost=BUCKETS[lost].label if lost in BUCKETS else "",
        effectual=quotient(layers["lane_cycles_effectual"], compute),
        **{name: quotient(whole, ours[name]) for name in CHANGES},
        speed_up_no_dram_wait=quotient(theirs["no_dram_wait"] * faster, ours["no_dram_wait"]),
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return cycles as they are, and were they otherwise, and the clock."""
    found: dict[str, float] = dict.fromkeys(("cycles", *CHANGES), 0)
    for values in zip(*(column_of(rows, name) for name in _NEEDED), strict=True):
        for name, value in _of_row(dict(zip(_NEEDED, values, strict=True))).items():
            found[name] += value
    found["clock_mhz"] = rows[-1]["clock_mhz"]
    return found


def _of_row(row: Mapping[str, Any]) -> dict[str, int]:
    taken = int(row["cycles"])
    if row["op"] == OTHER:
        compute = int(row["cycles_compute"])
        return {"cycles": taken, "no_dram_wait": compute, "ideal_pes": taken, "ideal": compute}
    multipliers = row["pes"] * row["lanes"]
    waited = sum(row[name] for name in DRAM_WAITS) // multipliers
    ideal = tables.ideal_cycles(row)
    return {
        "cycles": taken,
        "no_dram_wait": taken - waited,
        "ideal_pes": max(ideal, _transfer(row)),
        "ideal": ideal,
    }


def _transfer(row: Mapping[str, Any]) -> int:
    """Return the cycles in which DRAM carries an op's bytes."""
    carried, speed = sum(row[name] for name in DRAM_BYTES), row["dram_mb_per_s"]
    return -(-carried * row["clock_mhz"] // speed) if speed else 0


def _exceeds(factor: float, other: float) -> bool:
    """Whether a factor is more than another, by what is worth a word; both may be infinite."""
    return factor > other and factor >= other * LEAST


def _faster(factor: float) -> str:
    return f"{times(factor)} as fast" if isfinite(factor) else times(factor)
