"""What one step takes, by the step, the image, the second and the watt."""

from __future__ import annotations

from math import nan

from swatsim.reports import tables
from swatsim.reports.tables import Row
from swatsim.workload.flops import FLOPS_PER_MAC


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
        `time_ms`; `ms_per_image`; `images_per_s`; `energy_pj`; `energy_pj_per_image`; `power_w`,
        that energy over that time; `tops_dense` and `tops_effectual`, 10**12 operations a second,
        two a MAC: of all MACs, padding too, that the dense step has, and of those whose factors are
        both non-zero; `tops_per_w_dense` and `tops_per_w_effectual`, the same by `power_w`. Not a
        number where a clock, or an energy, is not known.
    """
    step = tables.per_step(row, steps)
    time, energy = step["time_ms"], _known(step["energy_pj"])
    power = tables.quotient(energy, time) / 1e9
    found = {
        "time_ms": time,
        "ms_per_image": time / images,
        "images_per_s": tables.quotient(1000 * images, time),
        "energy_pj": energy,
        "energy_pj_per_image": energy / images,
        "power_w": power,
    }
    for name in ("dense", "effectual"):
        speed = tables.quotient(FLOPS_PER_MAC * step[f"macs_{name}"], time) / 1e9
        found |= {f"tops_{name}": speed, f"tops_per_w_{name}": tables.quotient(speed, power)}
    return found


def _known(value: float | None) -> float:
    return nan if value is None else value
