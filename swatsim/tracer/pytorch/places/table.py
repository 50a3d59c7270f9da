"""The rule of each of torch's operations, and where its arguments are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from swatsim.tracer.pytorch.places.call import Arguments, Rule
from swatsim.tracer.pytorch.places.moves import LEAVING, MOVES
from swatsim.tracer.pytorch.places.pointwise import POINTWISE, pointwise
from swatsim.tracer.pytorch.places.products import PRODUCTS
from swatsim.tracer.pytorch.places.routing import ROUTING, STARTS

RULES: dict[str, Rule] = {**MOVES, **POINTWISE, **PRODUCTS, **ROUTING, **STARTS}


@dataclass(frozen=True)
class Operation:
    """What is known of an operation before it runs.

    Attributes
    ----------
    rule : callable | None
        None if nothing is known of where it puts samples.
    named : mapping
        Position and default of each argument.
    writes, overwritten : tuple of str
        The arguments that it writes to, and those of them that it doesn't read.
    starts, leaves : bool
        Whether it has a rule for arguments that nothing is known of, or that are of one sample.
    """

    rule: Rule | None
    named: Arguments
    writes: tuple[str, ...]
    overwritten: tuple[str, ...]
    starts: bool
    leaves: bool = False


_OPERATIONS: dict[Any, Operation] = {}


def operation(func: Any) -> Operation:
    """Return what is known of an operation, looked up once."""
    found = _OPERATIONS.get(func)
    if found is None:
        found = _OPERATIONS[func] = _operation(func)
    return found


def _operation(func: Any) -> Operation:
    schema = getattr(func, "_schema", None)
    if schema is None:  # a higher-order operation
        return Operation(None, {}, (), (), False)
    named = {
        one.name: (-1 if one.kwarg_only else i, one.default_value)
        for i, one in enumerate(schema.arguments)
    }
    writes = [one for one in schema.arguments if one.alias_info and one.alias_info.is_write]
    over = tuple(one.name for one in writes if one.is_out)
    name = schema.name.removeprefix("aten::")
    written = tuple(one.name for one in writes)
    rule = _rule(name, func)
    return Operation(rule, named, written, over, name in STARTS, rule in LEAVING)


def _rule(name: str, func: Any) -> Rule | None:
    called = f"{name}.{func._overloadname}"
    for one in (called, called.replace("_.", "."), name, name.removesuffix("_")):
        if one in RULES:
            return RULES[one]
    return pointwise if torch.Tag.pointwise in func.tags else None
