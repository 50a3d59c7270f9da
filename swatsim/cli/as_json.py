"""``--json``: what a verb has to say as one JSON object on standard output, and nothing else there.

Progress and logs are on standard error. What is not known, not a number or infinite is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import click

from swatsim._version import __version__

JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object and nothing else; its keys are explained in it, under keys.",
)

_RATIO = "ratio of two numbers of one unit"
_SHARE = "share, from 0 to 1"
#: Of keys that are no column of results: their unit, and what they are if the name doesn't say it.
KEYS: Mapping[str, str] = {
    "time_ms": "ms: a mean step's",
    "baseline_time_ms": "ms: a mean step's, of the baseline",
    "ms_per_image": "ms",
    "images_per_s": "images a second",
    "energy_pj": "pJ: without leakage",
    "energy_pj_per_image": "pJ: without leakage",
    "leakage_pj": "pJ: what the machine leaks in that time",
    "energy_with_leakage_pj": "pJ",
    "power_w": "W: with leakage",
    "power_dynamic_w": "W: without leakage",
    "tops_dense": "10**12 operations a second, two a MAC: all MACs of the dense step",
    "tops_effectual": "10**12 operations a second, two a MAC: MACs without a zero",
    "tops_per_w_dense": "10**12 operations a second a W: all MACs of the dense step",
    "tops_per_w_effectual": "10**12 operations a second a W: MACs without a zero",
    "tops_per_mm2_dense": "10**12 operations a second a mm2: all MACs of the dense step",
    "tops_per_mm2_effectual": "10**12 operations a second a mm2: MACs without a zero",
    "areas": "by table of energies and areas, what a machine is made up of",
    "cycles": "cycles",
    "cycles_compute": "cycles: without the memory system",
    "baseline_cycles": "cycles: of the baseline",
    "speed_up": f"{_RATIO}: the baseline's time by the machine's",
    "speed_up_dense_operands": f"{_RATIO}: the speed-up that operands without a zero have",
    "speed_up_zeros": f"{_RATIO}: what zeros add to that",
    "speed_up_compute": f"{_RATIO}: of compute cycles",
    "speed_up_compute_dense_operands": f"{_RATIO}: as without compute, of compute cycles",
    "speed_up_compute_zeros": f"{_RATIO}: as without compute, of compute cycles",
    "speed_up_no_dram_wait": f"{_RATIO}: over the baseline, did neither wait for DRAM",
    "own_speed_up": f"{_RATIO}: over the own baseline",
    "energy_efficiency": f"{_RATIO}: the baseline's energy by the machine's",
    "of_ideal": f"{_SHARE}: the ideal's time by the machine's",
    "of_ideal_compute": f"{_SHARE}: the same of compute cycles",
    "utilisation": f"{_SHARE}: lane-cycles whose product counts",
    "elsewhere": f"{_SHARE}: of the baseline's time, that which is not in layers",
    "policy": f"{_SHARE}: of the machine's time, that of the method itself",
    "share": f"{_SHARE}: of the whole",
    "baseline_share": f"{_SHARE}: of the baseline's whole",
    "share_up_to_here": f"{_SHARE}: of this row and all before it",
    "shares": f"{_SHARE}: of a step's time, by what takes it",
    "no_dram_wait": f"{_RATIO}: so many times as fast, were DRAM never waited for",
    "ideal_pes": f"{_RATIO}: so many times as fast with PEs that lose no cycle",
    "ideal": f"{_RATIO}: so many times as fast with both",
    "bound_share": f"{_SHARE}: of a step's time, what takes most of it",
    "macs_per_image": "multiply-accumulates of the layers and ops, dense, an image",
    "effectual": f"{_SHARE}: lane-cycles whose product counts, of those in which PEs compute",
    "density": f"{_SHARE}: values that are not zero",
    "images": "images of each step that are in the results",
    "samples": "samples of each step that are in the trace",
    "batch_size": "images of a step",
    "steps": "recorded steps",
    "masks": "masks",
    "nodes": "ops of layers, and what modules do of everything else",
    "layers_with_given": "layers with a mask that was not drawn, by operand",
    "events": "events of the timeline, all of them",
    "tile": "which one, from 0",
    "tiles": "tiles of the op",
    "window": "cycles: the first that is drawn, and the one behind the last",
    "elements": "values",
    "weights": "values",
    "bytes": "bytes",
    "limit": "bytes that are kept at most",
    "entries": "counts of an op that are kept",
    "fixed": "values that are there whatever the batch",
    "modules": "modules of the network",
    "operations": "operations",
    "multipliers": "multipliers",
    "pes": "PEs",
    "lanes": "multipliers of a PE",
    "peak_tops": "10**12 operations a second, two a product, none skipped",
    "vector_width": "values a cycle of the vector unit",
    "value": "in the unit beside it",
    "low": "in the unit beside it: of a 95 % interval the lower end",
    "high": "in the unit beside it: of a 95 % interval the upper end",
    "per_step": "in the unit beside it: of a mean step",
    "per_image": "in the unit beside it: of a mean image",
    "run_steps": "steps of the whole run",
    "images_of_step": "images of each step that the figures are of",
    "first": "step: a phase's first",
    "last": "step: a phase's last",
    "products": f"{_SHARE}: of dense multiply-accumulates those without a zero",
    "time": "ms: a mean step's; cycles where a clock is not known",
    "points": "points of the sweep",
    "compute": "points to compute",
    "kept": "points that were finished before",
    "impossible": "points that no machine can be",
    "computations": "different computations among them",
    "other_parts": "points to compute that belong to other parts of the sweep",
    "processes": "processes",
    "seconds": "s",
    "cpu_seconds": "s: on one process",
    "stored": "computations that the store of counts has already",
}
#: Of any other key, by its end: the unit.
SUFFIXES: Mapping[str, str] = {
    "_without_digest": "steps",
    "_ms": "ms",
    "_w": "W",
    "_pj": "pJ",
    "_cycles": "cycles",
    "_bytes": "bytes",
    "_kib": "KiB",
    "_mhz": "MHz",
    "_mb_per_s": "MB/s",
    "_mm2": "mm2",
    "_seconds": "s",
    " weight": f"{_SHARE}: values that are not zero of what an op reads",
    " act": f"{_SHARE}: values that are not zero of what an op reads",
    " grad_out": f"{_SHARE}: values that are not zero of what an op reads",
    "_layers": "as the key without _layers, of a step's layers alone",
}


def write(command: str, found: Mapping[str, Any]) -> None:
    """Print a JSON object: what is found, which command found it, and what its keys mean."""
    plain = _plain(found)
    keys = {key: meaning for key in sorted(_numbers(plain)) if (meaning := meaning_of(key))}
    whole = {"command": command, "swatsim": __version__, **plain, "keys": keys}
    click.echo(json.dumps(whole, indent=1, allow_nan=False))


def meaning_of(key: str) -> str:
    """Return a key's unit and meaning; "" if nothing is known of it."""
    from swatsim.columns import COLUMNS  # loads NumPy, which no help waits for

    if key in KEYS:
        return KEYS[key]
    column = next((column for column in COLUMNS if column.name == key), None)
    if column is not None:
        return f"{column.unit}: {column.meaning}"
    return next((unit for suffix, unit in SUFFIXES.items() if key.endswith(suffix)), "")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return str(value) if isinstance(value, Path) else [_plain(one) for one in value]


def _numbers(value: Any, key: str = "") -> Iterator[str]:
    """Yield the keys that have a number, or none where there may be one."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _numbers(one, name if key != "shares" else key)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key
