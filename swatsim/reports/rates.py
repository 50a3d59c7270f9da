"""What one step takes, by the step, the image, the second, the watt and the square millimetre."""

from __future__ import annotations

from math import isnan, nan

from swatsim.reports import labels, tables
from swatsim.reports.tables import Row
from swatsim.workload.layer import FLOPS_PER_MAC

#: mW for so many ms, in pJ.
PJ_PER_MW_MS = 1e6


def rates(row: Row, steps: int, images: int) -> Row:
    """Return what a mean step of a row of totals takes, by the step, the image and the second.

    Parameters
    ----------
    row : dict
        Totals of `steps` recorded steps, as `swatsim.reports.tables` has them, of a machine or of
        its baseline.
    steps : int
    images : int
        Samples of each step that the results hold.

    Returns
    -------
    dict
        `time_ms`; `ms_per_image`; `images_per_s`; `energy_pj`, of what happens; `leakage_pj`, what
        the machine leaks in that time, and `energy_with_leakage_pj`, both; `energy_pj_per_image`,
        of what happens; `power_dynamic_w`, of what happens, and `power_w`, with leakage;
        `tops_dense` and `tops_effectual`, 10**12 operations a second, two a MAC: of all MACs,
        padding too, that the dense step has, and of those whose factors are both non-zero;
        `tops_per_w_dense` and `tops_per_w_effectual`, the same by `power_w`; `area_mm2`,
        `leakage_mw`; `tops_per_mm2_dense` and `tops_per_mm2_effectual`. Not a number where a clock,
        an energy, an area or a leakage that it needs is not known.
    """
    step = tables.per_step(row, steps)
    time, energy = step["time_ms"], _known(step["energy_pj"])
    area, leakage = (_known(row[name]) for name in ("area_mm2", "leakage_mw"))
    leaked = leakage * time * PJ_PER_MW_MS
    power = tables.quotient(energy + leaked, time) / 1e9
    found = {
        "time_ms": time,
        "ms_per_image": time / images,
        "images_per_s": tables.quotient(1000 * images, time),
        "energy_pj": energy,
        "leakage_pj": leaked,
        "energy_with_leakage_pj": energy + leaked,
        "energy_pj_per_image": energy / images,
        "power_dynamic_w": tables.quotient(energy, time) / 1e9,
        "power_w": power,
        "area_mm2": area,
        "leakage_mw": leakage,
    }
    for name in ("dense", "effectual"):
        speed = tables.quotient(FLOPS_PER_MAC * step[f"macs_{name}"], time) / 1e9
        found[f"tops_{name}"] = speed
        found[f"tops_per_w_{name}"] = tables.quotient(speed, power)
        found[f"tops_per_mm2_{name}"] = tables.quotient(speed, area)
    return found


def of_step(row: Row, steps: int, images: int) -> Row:
    """Return what `swatsim.reports.tables.per_step` has of a row of totals, and then `rates`."""
    means = tables.per_step(row, steps)
    others = {name: it for name, it in rates(row, steps, images).items() if name not in means}
    return {**means, **others}


def watts(found: Row) -> str:
    """Return the power among what `rates` found in words, as to leakage; "" if it is not known."""
    both, alone = (labels.shown(f"power{of}_w", found[f"power{of}_w"]) for of in ("", "_dynamic"))
    if isnan(found["power_dynamic_w"]):
        return ""
    if isnan(found["power_w"]):
        return f"{alone} without leakage, which is not known"
    return f"{alone} without leakage, {both} with it"


def _known(value: float | None) -> float:
    return nan if value is None else value
