"""What the PyTorch tracer notes of a step. Notes are anybody's: other forms are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True)
class Drift:
    """Densities of an operand whose threshold is reused: see `swatsim.policies.sparsifier.Drift`.

    Parameters
    ----------
    asked, last, least, most : float
    """

    asked: float
    last: float
    least: float
    most: float


@dataclass(frozen=True)
class Kept:
    """What autograd kept for the backward pass: see `swatsim.tracer.pytorch.Kept`.

    Parameters
    ----------
    modules : dict of str to int
        Bytes.
    total : int
        Bytes.
    """

    modules: dict[str, int]
    total: int


_Form = TypeVar("_Form")

_DRIFTS, _KEPT = TypeAdapter(dict[str, Drift]), TypeAdapter(Kept)
_NOT_MODELLED = TypeAdapter(dict[str, list[str]])


def drifts(notes: Mapping[str, Any]) -> dict[str, Drift]:
    """Tell by operand how its density drifted; empty where that is not noted."""
    policy = notes.get("policy")
    noted = policy.get("drift") if isinstance(policy, dict) else None
    return _read(_DRIFTS, noted) or {}


def not_modelled(notes: Mapping[str, Any]) -> dict[str, list[str]]:
    """Tell by module what multiplied in it and is in no mask; empty where that is not noted."""
    return _read(_NOT_MODELLED, notes.get("not_modelled")) or {}


def kept(notes: Mapping[str, Any]) -> Kept | None:
    """Tell what autograd kept; None where that is not noted."""
    return _read(_KEPT, notes.get("kept"))


def _read(form: TypeAdapter[_Form], noted: Any) -> _Form | None:
    try:
        return form.validate_python(noted)
    except ValidationError:
        return None
