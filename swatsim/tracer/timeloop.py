"""Densities of a layer in a Timeloop problem, as Sparseloop reads them, drawn as masks.

Timeloop's text has no masks: a density model that takes real data "is not exposed yet" (NVlabs
/timeloop, issue 240). What it has, a problem's `densities` by data space (its
src/workload/workload.cpp and density-models/), is drawn so that the model holds exactly:

- ``hypergeometric``: ceil(density x size) values anywhere in the tensor, each place as likely;
- ``fixed-structured`` (and ``fixed``, or a number alone): each tile has that share. So n of every m
  neighbours along the channels, for the smallest n/m that is the density.

Of `Weights` and `Inputs`; `Outputs` are no operand of a training step. ``banded`` is of square
matrices, and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from swatsim.arguments import density
from swatsim.errors import RecordingError, listed, shown
from swatsim.files import read_bounded
from swatsim.tracer.stored import Density
from swatsim.workload.layer import Layer, Operand
from swatsim.workload.windows import Mask

Draw = Callable[[Fraction, tuple[int, ...], int, np.random.Generator], Mask]

#: A problem has a hundred lines.
MAX_BYTES = 2**20
#: Timeloop's data space -> the operand that it is in a forward pass.
DATA_SPACES: Mapping[str, Operand] = {"Weights": "weight", "Inputs": "act"}
#: No hardware has longer groups.
MAX_GROUP = 64
#: Sizes that a problem and a layer both have, if it says them.
SIZES = ("C", "M", "R", "S")


def of_problem(path: Path) -> dict[str, Density]:
    """Return the densities of one layer's problem, in a file that is called as the layer is.

    Raises
    ------
    RecordingError
        If it is no problem, or has no density of `DATA_SPACES` that can be drawn.
    """
    problem = _problem(path)
    instance = problem.get("instance", problem)
    given = instance.get("commonDensity", instance.get("densities"))
    if isinstance(given, Mapping) and "distribution" not in given:
        said = {name: given[name] for name in DATA_SPACES if name in given}
    else:
        said = dict.fromkeys(DATA_SPACES, given) if given is not None else {}
    if not said:
        raise RecordingError(
            f"{path} has no densities of {listed(DATA_SPACES)}: a problem of Timeloop has them "
            "under problem, instance, densities"
        )
    refuses = partial(_refusal, {name: instance.get(name) for name in SIZES})
    return {
        f"{path.stem}.{DATA_SPACES[name]}": _density(f"{path} ({name})", one, refuses)
        for name, one in said.items()
    }


def _problem(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise RecordingError(f"{path} can't be read without PyYAML: pip install pyyaml") from None
    try:
        loaded = yaml.safe_load(read_bounded(path, MAX_BYTES))
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML of plain values: {error}") from None
    problem = loaded.get("problem", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(problem, Mapping) or not isinstance(problem.get("instance", {}), Mapping):
        raise RecordingError(f"{path} has no problem of Timeloop in it")
    return problem


def _density(where: str, said: Any, refuses: Callable[[Layer], str]) -> Density:
    model = said if isinstance(said, Mapping) else {"distribution": "fixed", "density": said}
    kind = str(model.get("distribution")).replace("_", "-")
    if kind not in _DRAWN:
        raise RecordingError(
            f"{where}: distribution={shown(model.get('distribution'))} is not read: allowed are "
            f"{listed(_DRAWN)}"
        )
    try:
        share = density(model.get("density"))
    except ValueError as error:
        raise RecordingError(
            f"{where}: density={shown(model.get('density'))} is not allowed: {error}"
        ) from None
    if _DRAWN[kind] is _in_groups and share.denominator > MAX_GROUP:
        raise RecordingError(
            f"{where}: density={float(share)} is of no pattern: {kind} is drawn as n of every m, "
            f"m at most {MAX_GROUP}; take hypergeometric, or n/m"
        )
    return Density(where, share, _DRAWN[kind], refuses)


def _refusal(sizes: Mapping[str, Any], layer: Layer) -> str:
    """Return in which size a problem differs from a layer; "": in none that it has."""
    for name, size in zip(SIZES, (layer.C, layer.K, layer.R, layer.S), strict=True):
        grouped = size // layer.groups if name in "CM" else size
        if sizes[name] not in (None, size, grouped):
            return f"it has {name}={shown(sizes[name])}, layer {layer.name!r} {size}"
    return ""


def _anywhere(share: Fraction, shape: tuple[int, ...], axis: int, rng: np.random.Generator) -> Mask:
    size = prod(shape)
    mask = np.zeros(size, np.bool_)
    mask[rng.choice(size, ceil(share * size), replace=False, shuffle=False)] = True
    return mask.reshape(shape)


def _in_groups(
    share: Fraction, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> Mask:
    """Return a mask with n of every m along the channels; what is left of a group has some."""
    n, m = share.numerator, share.denominator
    channels, rest = shape[axis], (*shape[:axis], *shape[axis + 1 :])
    score = rng.random((*rest, -(-channels // m), m), dtype=np.float32)
    kept = score.argsort(axis=-1, kind="stable").argsort(axis=-1) < n
    mask = kept.reshape(*rest, -1)[..., :channels]
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


_DRAWN: Mapping[str, Draw] = {
    "hypergeometric": _anywhere,
    "fixed-structured": _in_groups,
    "fixed": _in_groups,
}
