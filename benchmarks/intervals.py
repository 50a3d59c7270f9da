"""How often the intervals of `swatsim estimate` cover a run's true total, and how wide they are.

    python benchmarks/intervals.py

Made-up runs of 1000 steps of several families, of which some are recorded: evenly spaced ones, the
first and the last among them. Prints a table, and puts it into its page. Left out, and counted,
are runs that get no interval, and those that get the warning that the recorded steps alias with the
policy's period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from pages import put

import swatsim
from swatsim.results import Results

STEPS = 1000
#: How many are recorded.
COUNTS = (4, 6, 10, 20, 50)
RUNS = 1000
SEED = 17

#: Draws a run's level at each step; the period too where the policy has one.
Course = Callable[[np.random.Generator], np.ndarray | tuple[np.ndarray, int]]

_AT = np.arange(STEPS)


def _flat(rng: np.random.Generator) -> np.ndarray:
    return np.full(STEPS, 1000.0)


def _drifting(rng: np.random.Generator) -> np.ndarray:
    return 1000 - rng.uniform(-500, 500) * _AT / STEPS


def _wandering(rng: np.random.Generator) -> np.ndarray:
    return 1000 + np.cumsum(rng.normal(0, 5, STEPS))


def _jumping(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.integers(1, STEPS) > _AT, 1000.0, 500.0)


def _jumping_twice(rng: np.random.Generator) -> np.ndarray:
    first, second = np.sort(rng.choice(np.arange(1, STEPS), 2, replace=False))
    levels = rng.uniform(300, 1000, 3)
    return levels[(first <= _AT).astype(int) + (second <= _AT)]


def _warm_up(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.integers(10, 300) > _AT, 1000.0, 500.0)


def _ramp(rng: np.random.Generator) -> np.ndarray:
    return 500 + 500 * np.clip(1 - _AT / rng.integers(50, 600), 0, 1)


def _cubic(rng: np.random.Generator) -> np.ndarray:
    return 500 + 500 * np.clip(1 - _AT / rng.integers(50, 600), 0, 1) ** 3


def _saw_tooth(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw a period, and the step at which the first tooth begins."""
    period = rng.integers(5, 400)
    return 1000 - 400 * ((_AT + rng.integers(period)) % period) / period, int(period)


#: Family -> a run's level at each step, and by how much of it steps scatter.
FAMILIES: Mapping[str, tuple[Course, float]] = {
    "flat": (_flat, 0.05),
    "drift": (_drifting, 0.02),
    "random walk": (_wandering, 0.01),
    "one jump": (_jumping, 0.01),
    "one jump, exact": (_jumping, 0.0),
    "two jumps": (_jumping_twice, 0.01),
    "dense warm-up": (_warm_up, 0.02),
    "linear ramp": (_ramp, 0.01),
    "cubic schedule": (_cubic, 0.01),
    "saw-tooth": (_saw_tooth, 0.01),
}


@dataclass(frozen=True)
class Row:
    """One family at one number of recorded steps.

    `covered` is the share of intervals that hold the truth, of the cycles' and of the speed-ups'
    the smaller one; `half_width` the median of the cycles', by the truth; `used` the share of runs
    that have an interval, and no warning of an alias.
    """

    family: str
    recorded: int
    covered: float
    half_width: float
    used: float


def table(
    counts: Sequence[int] = COUNTS,
    runs: int = RUNS,
    families: Mapping[str, tuple[Course, float]] = FAMILIES,
) -> list[Row]:
    """Run every family at every number of recorded steps."""
    rng = np.random.default_rng(SEED)
    return [_row(rng, name, count, runs) for name in families for count in counts]


def _row(rng: np.random.Generator, family: str, count: int, runs: int) -> Row:
    level, scatter = FAMILIES[family]
    covered, widths = {"cycles": 0, "speed_up": 0}, []
    for _ in range(runs):
        drawn = level(rng)
        levels, every = drawn if isinstance(drawn, tuple) else (drawn, 1)
        run = levels * rng.normal(1, scatter, STEPS)
        found = swatsim.estimate(_results(_recorded(count), run, every), STEPS)
        cycles, speed_up = found.ours["cycles"], found.ratios["speed_up"]
        if cycles.known and not any("the policy has a period" in line for line in found.warnings):
            covered["cycles"] += cycles.low <= run.sum() <= cycles.high
            covered["speed_up"] += speed_up.low <= 1000 * STEPS / run.sum() <= speed_up.high
            widths.append(cycles.half_width / run.sum())
    used = len(widths)
    return Row(family, count, min(covered.values()) / used, median(widths), used / runs)


def _recorded(count: int) -> list[int]:
    """Choose the first step, the last one, and evenly spaced ones between."""
    return [round(i * (STEPS - 1) / (count - 1)) for i in range(count)]


def _results(steps: Sequence[int], run: np.ndarray, every: int) -> Results:
    """Make results of one op a step; the dense baseline takes 1000 cycles."""
    rows = [
        {
            **{"trace": "made up", "trace_id": "1", "step": step, "samples": 1},
            **{"layer": "a", "op": "fprop", "function": "", "phase": ""},
            **{"machine": role, "variant": "", "role": role, "energy_pj": None},
            **{"cycles": cycles, "cycles_compute": cycles},
        }
        for step in steps
        for role, cycles in (("machine", float(run[step])), ("baseline", 1000.0))
    ]
    return Results(rows, {"parameters": {"policy": {"name": "made up", "every": every}}})


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Write coverage, and the median half-width, family by number of recorded steps."""
    counts = list(dict.fromkeys(row.recorded for row in rows))
    yield f"| runs | {' | '.join(f'{count} steps recorded' for count in counts)} |"
    yield "|---|" + "---:|" * len(counts)
    for family, (_, scatter) in FAMILIES.items():
        cells = (
            f"{100 * row.covered:.1f} %, +-{100 * row.half_width:.2g} %"
            + (f" ({100 - 100 * row.used:.0f} % left out)" if row.used < 1 else "")
            for row in rows
            if row.family == family
        )
        yield f"| {family}, steps scatter by {100 * scatter:g} % | {' | '.join(cells)} |"


def main() -> None:
    made = list(lines(table()))
    print("\n".join(made))
    put("intervals", made)


if __name__ == "__main__":
    main()
