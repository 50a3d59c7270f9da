"""What a whole run takes, in words and in units that people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from swatsim.reports.labels import trimmed
from swatsim.reports.run_costs import LEAKING, TIME
from swatsim.reports.span import percent
from swatsim.sampling import Estimate

if TYPE_CHECKING:
    from swatsim.reports.run_estimate import RunEstimate

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
#: From so much on, in ms and in pJ, the unit; the largest first.
_TIMES = ((1.728e8, 8.64e7, "days"), (7.2e6, 3.6e6, "h"), (1.2e5, 6e4, "min"), (1e3, 1e3, "s"))
_ENERGIES = (
    *((3.6e17, 3.6e18, "kWh"), (1e15, 1e15, "kJ"), (1e12, 1e12, "J"), (1e9, 1e9, "mJ")),
    *((1e6, 1e6, "uJ"), (1e3, 1e3, "nJ")),
)


class Quantity(NamedTuple):
    """How a quantity of a run is called and written.

    Parameters
    ----------
    words : str
    write : callable of float to str
    """

    words: str
    write: Callable[[float], str]


def duration(milliseconds: float) -> str:
    """Return a time in ms, s, min, h or days."""
    return _in_units(milliseconds, _TIMES, "ms")


def energy(picojoules: float) -> str:
    """Return an energy in pJ to kJ, or in kWh."""
    return _in_units(picojoules, _ENERGIES, "pJ")


def count(value: float) -> str:
    """Return a number with a decimal prefix."""
    limit, prefix = next(((it, name) for it, name in _PREFIXES if abs(value) >= it), (1.0, ""))
    return f"{trimmed(value / limit)} {prefix}".rstrip()


def times(value: float) -> str:
    """Return a ratio; a dash where there is none."""
    return f"{value:.2f}x" if isfinite(value) else "-"


def _in_units(value: float, units: tuple[tuple[float, float, str], ...], smallest: str) -> str:
    for least, scale, unit in units:
        if abs(value) >= least:
            return f"{trimmed(value / scale)} {unit}"
    return f"{trimmed(value)} {smallest}"


QUANTITIES: Mapping[str, Quantity] = {
    TIME: Quantity("time", duration),
    "energy_pj": Quantity("energy without leakage", energy),
    LEAKING: Quantity("energy with leakage", energy),
    "images_per_s": Quantity("images a second", trimmed),
    "cycles": Quantity("cycles", count),
    "cycles_compute": Quantity("compute cycles", count),
    "speed_up": Quantity("speed-up", times),
    "speed_up_layers": Quantity("speed-up, layers alone", times),
    "elsewhere": Quantity("of the baseline's time elsewhere", percent),
    "energy_efficiency": Quantity("energy without leakage, the baseline's / this", times),
    "speed_up_compute": Quantity("speed-up, compute only", times),
}


def within(estimate: Estimate) -> str:
    """Return half the interval's width as a share of the value."""
    if not estimate.known:
        return "alike" if estimate.alike else "unknown"
    if not estimate.variance:
        return "exact"
    share = 100 * estimate.half_width / estimate.value
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"


def headline(run: RunEstimate) -> str:
    """Return what a run takes in one sentence, without its full stop."""
    images = f"{run.images_of_step} image{'s' * (run.images_of_step != 1)}"
    layers = ", layers alone," if run.others_left_out else ""
    what = TIME if TIME in run.ours else "cycles"
    unit = "" if what == TIME else " cycles"
    words = f"{_takes(run, what)}{unit}{_of_energy(run)}"
    return (
        f"A run of {run.run_steps} steps of {images}{layers} takes {words} on {run.machine}; "
        f"{_beside(run)}"
    )


def _takes(run: RunEstimate, name: str) -> str:
    found, quantity = run.ours[name], QUANTITIES[name]
    interval = f" (+-{within(found)})" if found.known and found.variance else ""
    return f"{quantity.write(found.value)}{interval}"


def _of_energy(run: RunEstimate) -> str:
    if "energy_pj" not in run.ours:
        return ""
    with_it = f"; {_takes(run, LEAKING)} with leakage" if LEAKING in run.ours else ""
    return f" and {_takes(run, 'energy_pj')} without leakage{with_it}".replace("; ", ", ")


def _beside(run: RunEstimate) -> str:
    """Return how it compares with the baseline."""
    found = run.ratios["speed_up"]
    between = f" (95 %: {times(found.low)} to {times(found.high)})" if found.known else ""
    theirs = TIME if TIME in run.baseline and TIME in run.ours else "cycles"
    base = QUANTITIES[theirs].write(run.baseline[theirs].value)
    unit = "" if theirs == TIME else " cycles"
    return f"{run.against} takes {base}{unit}: a speed-up of {times(found.value)}{between}"
