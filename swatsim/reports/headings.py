"""How columns are shown to people: a heading with its unit, and numbers in that unit."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

#: Below it, a number has three digits; from it on, all before its point.
WHOLE = 1000
#: What is less is shown to be.
LEAST = 0.001


class Heading(NamedTuple):
    """A column's words, and by how much its numbers are multiplied for their unit.

    Parameters
    ----------
    words : str
    factor : float
    """

    words: str
    factor: float = 1


def _share(words: str) -> Heading:
    return Heading(f"{words}, %", 100)


#: By column; others are shown under their own names.
HEADINGS = {
    "area_mm2": Heading("area, mm2"),
    "baseline_cycles": Heading("baseline's cycles"),
    "baseline_dram_bytes": Heading("baseline's DRAM traffic, MB", 1e-6),
    "baseline_energy_pj": Heading("baseline's energy, mJ", 1e-9),
    "baseline_share": _share("of the baseline's time"),
    "baseline_time_ms": Heading("baseline's time, ms"),
    "bitmask_bytes": Heading("with a bitmask, bytes"),
    "bound_by": Heading("bound by"),
    "buffer_kib": Heading("buffers, KiB"),
    "clock_mhz": Heading("clock, MHz"),
    "density_act": _share("non-zero activations"),
    "density_grad_out": _share("non-zero gradients"),
    "density_output": _share("outputs wanted"),
    "density_weight": _share("non-zero weights"),
    "dram_bytes": Heading("DRAM traffic, MB", 1e-6),
    "dram_mb_per_s": Heading("DRAM, GB/s", 1e-3),
    "dtype": Heading("value type"),
    "elsewhere": _share("of the baseline's time elsewhere"),
    "energy_efficiency": Heading("energy efficiency"),
    "energy_pj": Heading("energy, mJ", 1e-9),
    "ideal": Heading("with both"),
    "ideal_pes": Heading("PEs that lose no cycle"),
    "images_per_s": Heading("images/s"),
    "lost_most_to": Heading("lost most to"),
    "macs_per_image": Heading("MMAC an image", 1e-6),
    "macs_share": _share("of the MACs"),
    "ms_per_image": Heading("time an image, ms"),
    "no_dram_wait": Heading("no waiting for DRAM"),
    "obeying_share": _share("of the groups obey"),
    "of_ideal": _share("of the ideal"),
    "of_ideal_layers": _share("layers, of the ideal"),
    "own_baseline": Heading("own baseline"),
    "own_speed_up": Heading("speed-up over the own baseline"),
    "power_w": Heading("power, W"),
    "reduction": _share("fewer"),
    "share": _share("of the step's time"),
    "share_held": _share("of a step's multiplications held"),
    "share_of_time": _share("of the time"),
    "sparsity": _share("MACs with a zero"),
    "speed_up": Heading("speed-up"),
    "speed_up_compute": Heading("speed-up of compute cycles"),
    "speed_up_compute_dense_operands": Heading("compute cycles, with no zero in the operands"),
    "speed_up_compute_zeros": Heading("compute cycles, by zeros"),
    "speed_up_dense_operands": Heading("speed-up with no zero in the operands"),
    "speed_up_layers": Heading("speed-up of the layers"),
    "speed_up_zeros": Heading("speed-up by zeros"),
    "time_ms": Heading("time, ms"),
    "vector_elements": Heading("values"),
}


def heading(column: str) -> str:
    """Return what stands over a column."""
    return HEADINGS.get(column, Heading(column.replace("_", " "))).words


def scaled(column: str, value: Any) -> Any:
    """Return a value in the unit of its column's heading."""
    factor = HEADINGS[column].factor if column in HEADINGS else 1
    return value * factor if factor != 1 and isinstance(value, int | float) else value


def number(value: Any) -> str:
    """Return a value as text."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "-"
    if isinstance(value, float) and 0 < abs(value) < LEAST:
        return f"<{LEAST:g}" if value > 0 else f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < WHOLE else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
