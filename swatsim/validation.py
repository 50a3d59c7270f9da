"""Frozen, checked data: the one place where pydantic's complaints become swatsim's errors."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from swatsim.errors import SwatsimError, shown, unknown


def count(meaning: str, unit: str, at_least: int, at_most: int) -> Any:
    """Describe a whole-number parameter: what it means, its unit, what is allowed."""
    return Field(description=meaning, ge=at_least, le=at_most, json_schema_extra={"unit": unit})


def one_of(known: Collection[str]) -> AfterValidator:
    """Allow the names of a registry: what is entered there is allowed at once."""

    def check(value: str) -> str:
        if value not in known:
            *others, last = (repr(name) for name in known)
            raise ValueError(f"must be {', '.join(others)} or {last}")
        return value

    return AfterValidator(check)


def whole(value: Any) -> Any:
    """Turn a whole number of any library into Python's; what is none stays, to be refused."""
    if not isinstance(value, int):
        with suppress(TypeError, AttributeError):
            return operator.index(value)
    return value


#: A whole number of any library; no bool, no text, no float that happens to be whole.
Whole: TypeAlias = Annotated[int, Field(strict=True), BeforeValidator(whole)]


class Checked(BaseModel):
    """Base of every record that comes from outside: configs, layers, manifests.

    Frozen; unknown keys are refused and the nearest known one is named; a refusal raises
    `error_type` with all complaints on one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    error_type: ClassVar[type[SwatsimError]] = SwatsimError

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise self.error_type(self._sentence(error, data)) from None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Say what the complaint is about, for example ``layer 'conv1'``."""
        return cls.__name__

    @classmethod
    def _sentence(cls, error: ValidationError, data: Mapping[str, Any]) -> str:
        grouped: dict[str, list[Any]] = {}
        for item in error.errors():
            field = str(item["loc"][0]) if item["loc"] else ""
            grouped.setdefault(field, []).append(item)
        complaints = (_complaints(items, cls) for items in grouped.values())
        return f"{cls.subject(data)}: {'; '.join(complaints)}"


def _complaints(items: list[Any], model: type[BaseModel]) -> str:
    """Word all that is wrong with a field; of a union, what each kind would have to be."""
    first = items[0]
    kinds = [str(part) for item in items for part in item["loc"][1:2]]
    if len(items) == 1 or any(kind.isdigit() for kind in kinds):
        return "; ".join(_complaint(item, model) for item in items)
    whole = {**first, "loc": first["loc"][:1]}
    rest = [_complaint({**item, "loc": item["loc"][:1]}, model) for item in items[1:]]
    others = [words.partition("must be ")[2] or words for words in rest]
    return ", or ".join([_complaint(whole, model), *dict.fromkeys(others)])


def _complaint(item: Any, model: type[BaseModel]) -> str:
    """Word one pydantic error: field=value, then what is allowed."""
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
    wording = f"must be {wanted}" if wanted != message else message[:1].lower() + message[1:]
    return f"{where}={shown(item['input'], 60)} is not allowed: {wording}"
