"""What a step takes on a real GPU, estimated: it stands beside the cycles, and is no part of them.

An op takes max(compute cycles / clock / efficiency, bytes / bandwidth) + pruning + launch, where
pruning is its bytes by the bandwidth. The efficiencies, of dense and of compressed operands, and
the launch are fitted to published times; ``benchmarks/paper/gpu_time.py`` does so, and writes
``gpu_time.toml``, with the times that were kept apart and what is estimated for them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from swatsim.columns import Role
from swatsim.counters import OP_BYTES
from swatsim.reports import differences
from swatsim.reports.labels import shown
from swatsim.reports.span import span_of
from swatsim.results import Results
from swatsim.table import where
from swatsim.workload.phases import OTHER

FITTED = Path(__file__).with_suffix(".toml")
#: What may be changed in a preset: the hardware is the same.
SAME_HARDWARE = {"dtype", "macs", "prune_each_step"}
#: Of an estimate in ops that leave most multipliers idle, the share from which on it is said.
MUCH = 0.1

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """A published time, and what is estimated for it.

    Parameters
    ----------
    what : str
        Kind, sizes, what is pruned.
    measured_us, estimated_us : float
    """

    what: str
    measured_us: float
    estimated_us: float

    @property
    def factor(self) -> float:
        """By which the estimate is too long, or too short: at least 1."""
        ratio = self.estimated_us / self.measured_us
        return max(ratio, 1 / ratio)


@dataclass(frozen=True)
class Model:
    """A fitted GPU.

    Parameters
    ----------
    gpu : str
        Its name, for people.
    values : str
        Value type of the products that were measured.
    pes, clock_mhz, dram_mb_per_s : int
        Of the preset: of other hardware there is no estimate.
    rates : mapping of str to int
        Of each value type that runs on its matrix units, the multiplications of a core and cycle.
    efficiency_dense, efficiency_sparse : float
        Share of the peak rate that is reached, in (0, 1].
    launch_us : float
        Of an op.
    fit, test : sequence of Compared
        Fitted to, and kept apart.
    """

    gpu: str
    values: str
    pes: int
    clock_mhz: int
    dram_mb_per_s: int
    rates: Mapping[str, int]
    efficiency_dense: float
    efficiency_sparse: float
    launch_us: float
    fit: Sequence[Compared] = ()
    test: Sequence[Compared] = ()

    def time_us(self, row: Row) -> float:
        """Return what an op takes, in microseconds, from its row of results."""
        efficiency = self.efficiency_sparse if row["compressed"] else self.efficiency_dense
        compute = row["cycles_compute"] / self.clock_mhz / efficiency
        pruned = row["dram_bytes_prune"]
        moved = sum(row[name] for name in OP_BYTES) - pruned
        carried = max(compute, self._carried(moved)) + self._carried(pruned)
        return float(carried + self.launch_us)

    def _carried(self, size: int) -> float:
        return size / self.dram_mb_per_s  # MB/s are bytes a microsecond

    def is_of(self, row: Row) -> bool:
        """Whether a row is of this hardware, and of a value type that it has a rate for."""
        same = (row[name] == getattr(self, name) for name in ("pes", "clock_mhz", "dram_mb_per_s"))
        return all(same) and row["lanes"] == self.rates.get(row["dtype"])

    @property
    def error(self) -> str:
        """How far off it is where it was not fitted, in words."""
        if not self.test:
            worst = max(self.fit, key=lambda one: one.factor)
            return (
                "no measured row was kept apart: error not known; the "
                f"{len(self.fit)} times of {self.values} products that it was fitted on it gives "
                f"within a factor of {worst.factor:.2f}"
            )
        factors = [one.factor for one in self.test]
        worst = max(self.test, key=lambda one: one.factor)
        return (
            f"of {len(factors)} measured times that it was not fitted on it is off by a factor of "
            f"{median(factors):.2f} in the median, and of {worst.factor:.1f} at worst: {worst.what}"
        )


@dataclass(frozen=True)
class Estimate:
    """What a step takes on a real GPU.

    Parameters
    ----------
    model : Model
    time_ms : float
        Of a step: the mean of the recorded ones.
    baseline_ms : float or None
        Of the same step on the baseline, if that is of the same hardware.
    idle : float
        Share of the time in ops that leave most multipliers without a product.
    """

    model: Model
    time_ms: float
    baseline_ms: float | None
    idle: float

    def __str__(self) -> str:
        """Return it in words, with its error."""
        taken, theirs = (shown("time_ms", it) for it in (self.time_ms, self.baseline_ms))
        beside = "" if self.baseline_ms is None else f" (baseline {theirs})"
        return (
            f"Estimated on a real {self.model.gpu}, beside the cycles: {taken} "
            f"of a step's layers{beside}; {self.model.error}{self._caveat}"
        )

    @property
    def _caveat(self) -> str:
        if self.idle < MUCH:
            return ""
        return (
            f"; {100 * self.idle:.0f} % of it is in ops too small to give half of the multipliers "
            "work, where a library would cut otherwise: there it is too long"
        )


@cache
def models() -> Mapping[str, Model]:
    """Return the fitted GPUs, by preset."""
    entries = tomllib.loads(FITTED.read_text(encoding="utf-8"))
    return {preset: _model(entry) for preset, entry in entries.items()}


def _model(entry: Mapping[str, Any]) -> Model:
    compared = {
        use: tuple(Compared(**one) for one in entry.get(use, ())) for use in ("fit", "test")
    }
    return Model(**{**entry, **compared})


def estimate(results: Results) -> Estimate | None:
    """Return what a step takes on the real GPU that results are of; None where they are of none.

    Of presets whose hardware was changed, and of value types that their matrix units don't have,
    there is none.
    """
    ours = _of_role(results, Role.MACHINE)
    model = _model_of(results, Role.MACHINE, ours)
    if model is None:
        return None
    theirs = _of_role(results, Role.BASELINE)
    times = [model.time_us(row) for row in ours]
    idle = sum(time for time, row in zip(times, ours, strict=True) if _mostly_idle(row))
    steps = 1000 * span_of(results).steps
    same = _model_of(results, Role.BASELINE, theirs) is model
    baseline = sum(map(model.time_us, theirs)) / steps if same else None
    return Estimate(model, sum(times) / steps, baseline, idle / sum(times) if idle else 0.0)


def sentences(results: Results) -> list[str]:
    """Return the estimate in words, without its full stop; why there is none of a type of values.

    Nothing of other hardware.
    """
    if (found := estimate(results)) is not None:
        return [str(found)]
    model = _preset_of(results, Role.MACHINE)
    types = dict.fromkeys(row["dtype"] for row in _of_role(results, Role.MACHINE))
    if model is None or not set(types) - set(model.rates):
        return []
    return [
        f"No estimate for a real {model.gpu}: its matrix units multiply {' or '.join(model.rates)} "
        f"here, and values are {' and '.join(types)} (--dtype {next(iter(model.rates))})"
    ]


def _of_role(results: Results, role: Role) -> Sequence[Row]:
    rows = where(results.rows, "role", lambda it: it == role)
    return where(rows, "op", lambda op: op != OTHER)


def _preset_of(results: Results, role: Role) -> Model | None:
    """Return the model of a preset, if no more was changed in it than the hardware allows."""
    known = differences.of_results(results, role)
    return None if set(known.chosen) - SAME_HARDWARE else models().get(known.preset)


def _model_of(results: Results, role: Role, rows: Sequence[Row]) -> Model | None:
    model = _preset_of(results, role)
    return model if model is not None and all(map(model.is_of, rows)) else None


def _mostly_idle(row: Row) -> bool:
    compute: int = row["cycles_compute"] * row["pes"] * row["lanes"]
    return 2 * int(row["lane_cycles_unmapped"]) > compute
