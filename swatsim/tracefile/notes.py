"""The PyTorch tracer's notes of a step. Notes are anybody's: other forms are left alone."""

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
class SavedTensors:
    """Bytes of what autograd held of saved tensors, at most: see `swatsim.tracer.pytorch.Kept`.

    Parameters
    ----------
    modules : dict of str to int
        Module -> bytes, each module's own most; "" is the model.
    total : int
        Bytes, the most at once.
    """

    modules: dict[str, int]
    total: int


_Form = TypeVar("_Form")

_DRIFTS, _SAVED_TENSORS = TypeAdapter(dict[str, Drift]), TypeAdapter(SavedTensors)
_NOT_MODELLED = TypeAdapter(dict[str, list[str]])
_NOT_RECORDED = TypeAdapter(dict[str, str])


def drifts(notes: Mapping[str, Any]) -> dict[str, Drift]:
    """Return by operand how its density drifted; empty without a note of it."""
    policy = notes.get("policy")
    note = policy.get("drift") if isinstance(policy, dict) else None
    return _read(_DRIFTS, note) or {}


def not_modelled(notes: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return by module what multiplied in it and is in no mask, as swatsim 0.1 noted it."""
    return _read(_NOT_MODELLED, notes.get("not_modelled")) or {}


def not_recorded(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return by layer why a trace can't hold it; empty without a note of it."""
    return _read(_NOT_RECORDED, notes.get("not_recorded")) or {}


def saved_tensors(notes: Mapping[str, Any]) -> SavedTensors | None:
    """Return what autograd saved for the backward pass; None without a note of it."""
    return _read(_SAVED_TENSORS, notes.get("kept"))


def _read(form: TypeAdapter[_Form], note: Any) -> _Form | None:
    try:
        return form.validate_python(note)
    except ValidationError:
        return None
