"""Frozen, checked data: the one place where pydantic's complaints become swatsim's errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from swatsim.arguments import whole
from swatsim.errors import SwatsimError, shown, unknown


def count(meaning: str, unit: str, at_least: int, at_most: int) -> Any:
    """Return the field of a whole-number parameter: its meaning, its unit, what is allowed."""
    return Field(description=meaning, ge=at_least, le=at_most, json_schema_extra={"unit": unit})


def one_of(known: Collection[str]) -> AfterValidator:
    """Return a validator that allows the names of a registry, those entered later included."""

    def check(value: str) -> str:
        if value not in known:
            *others, last = (repr(name) for name in known)
            raise ValueError(f"must be {', '.join(others)} or {last}")
        return value

    return AfterValidator(check)


#: A whole number of any library; no bool, no text, no float that happens to be whole.
Whole: TypeAlias = Annotated[int, Field(strict=True), BeforeValidator(whole)]


class FrozenRecord(BaseModel):
    """Base of every record that comes from outside: configs, layers, manifests.

    Frozen; unknown keys are refused and the nearest known one is named; a refusal raises
    `error_type` with all complaints on one line. Numbers of any library are Python's; a bool is no
    number, and bytes are no text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    error_type: ClassVar[type[SwatsimError]] = SwatsimError

    def __init__(self, /, **data: Any) -> None:
        cls = type(self)
        try:
            super().__init__(**{name: cls._own(name, value) for name, value in data.items()})
        except ValidationError as error:
            raise self.error_type(self._sentence(error, data)) from None

    @classmethod
    def _own(cls, name: str, value: Any) -> Any:
        """Return a field's value as Python's own kind of number, if it is a number."""
        if type(value) in _AS_THEY_ARE:
            return value
        kinds = _kinds_of(cls).get(name, _ANYTHING)
        if type(value).__module__ == "numpy" and not getattr(value, "shape", (1,)):
            # as it is written: of single precision 0.8 is 0.8
            value = value.item() if isinstance(value.item(), bool | int) else _float(value)
        if isinstance(value, bytes) or (isinstance(value, bool) and not kinds & {bool, Any}):
            return _Foreign(value)
        return whole(value) if kinds & {int, Any} else value

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what a complaint is about, for example ``layer 'conv1'``."""
        return cls.__name__

    @classmethod
    def _sentence(cls, error: ValidationError, data: Mapping[str, Any]) -> str:
        grouped: dict[str, list[Any]] = {}
        for item in error.errors():
            field = str(item["loc"][0]) if item["loc"] else ""
            grouped.setdefault(field, []).append(item)
        complaints = (_complaints(items, cls) for items in grouped.values())
        return f"{cls.subject(data)}: {'; '.join(complaints)}"


class _Foreign:
    """What must not be read as something else: a bool as a number, bytes as text."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return shown(self._value)


_ANYTHING = frozenset([Any])
#: What JSON is read as, but for bools: a step has thousands of records of nothing else.
_AS_THEY_ARE = frozenset([str, int, float, list, tuple, dict, type(None)])


@cache  # a step has thousands of records: what their fields may be is found out once
def _kinds_of(model: type[BaseModel]) -> dict[str, frozenset[Any]]:
    """Return the types that are somewhere in each field's annotation."""
    return {name: frozenset(_kinds(field.annotation)) for name, field in model.model_fields.items()}


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that are somewhere in an annotation."""
    if not get_args(annotation):
        return {annotation}
    whole_ones = (Literal, Callable)
    parts = () if get_origin(annotation) in whole_ones else get_args(annotation)
    return set().union(*(_kinds(part) for part in parts))


def _float(value: Any) -> Any:
    with suppress(TypeError, ValueError):
        return float(str(value))
    return value


def _complaints(items: list[Any], model: type[BaseModel]) -> str:
    """Return in words what is wrong with a field; of a union, what each kind would have to be."""
    first = items[0]
    kinds = [str(part) for item in items for part in item["loc"][1:2]]
    if len(items) == 1 or any(kind.isdigit() for kind in kinds):
        return "; ".join(_complaint(item, model) for item in items)
    whole = {**first, "loc": first["loc"][:1]}
    rest = [_complaint({**item, "loc": item["loc"][:1]}, model) for item in items[1:]]
    others = [words.partition("must be ")[2] or words for words in rest]
    return ", or ".join([_complaint(whole, model), *dict.fromkeys(others)])


def _complaint(item: Any, model: type[BaseModel]) -> str:
    """Return one pydantic error in words: field=value, then what is allowed."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = (field.alias or name for name, field in model.model_fields.items())
        return unknown("parameter", where, names)
    if item["type"] == "missing":
        return f"{where} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    wanted = message.removeprefix("Input should be ")
    word = message[:2]  # of "DRAM" the first letter stays
    wording = word[:1].lower() + message[1:] if word[1:].islower() else message
    wording = f"must be {wanted}" if wanted != message else wording
    return f"{where}={shown(item['input'], 60)} is not allowed: {wording}"
