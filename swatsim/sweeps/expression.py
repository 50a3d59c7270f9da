"""Constraints: arithmetic and comparisons of a machine's parameters, and nothing else.

They come from a file that somebody may have been sent, so nothing in them is executed: a sentence
that holds anything but numbers, words, parameters and operators is refused.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from swatsim.errors import ConfigError, unknown

Value = bool | int | float | str

#: What parsing and working out something that is no constraint raises.
_NONE = (
    *(SyntaxError, TypeError, ValueError, ArithmeticError),
    *(RecursionError, MemoryError, Warning),
)

#: No constraint needs more.
LONGEST = 300

_ARITHMETIC: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def holds(constraint: str, values: Mapping[str, Value]) -> bool:
    """Whether a constraint holds of parameters, for example ``tiles * rows <= 64``.

    Parameters
    ----------
    constraint : str
        Comparisons of parameters, numbers and words in quotes, with + - * / // %, and, or, not.
    values : mapping of str to bool, int, float or str

    Raises
    ------
    ConfigError
        If it is none, names an unknown parameter, or can't be worked out.
    """
    if len(constraint) > LONGEST:
        raise ConfigError(f"constraint {_short(constraint)} is longer than {LONGEST} characters")
    try:
        value = _value(_parsed(constraint.strip()), values)
    except ConfigError as error:
        raise ConfigError(f"constraint {constraint!r}: {error}") from None
    except _NONE as error:
        raise ConfigError(
            f"constraint {constraint!r} can't be worked out ({error}): write a comparison of "
            'parameters, such as "tiles * rows * columns * lanes == 4096"'
        ) from None
    if not isinstance(value, bool):
        raise ConfigError(
            f"constraint {constraint!r} gives {value!r}, must give true or false: compare it with "
            "something, as in == 4096"
        )
    return value


@lru_cache(1000)
def _parsed(constraint: str) -> ast.expr:
    """Return a constraint's syntax tree; what Python would only warn of is a mistake here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ast.parse(constraint, mode="eval").body


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _value(node: ast.AST, values: Mapping[str, Value]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in values:
            raise ConfigError(unknown("parameter", node.id, values))
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        sides = [_value(side, values) for side in (node.left, node.right)]
        if any(isinstance(side, str) for side in sides):
            words = _short(ast.unparse(node))
            raise ConfigError(f"{words} is not allowed: only numbers can be computed with")
        return _ARITHMETIC[type(node.op)](*sides)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand, values)
    if isinstance(node, ast.BoolOp):
        parts = [_value(part, values) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare):
        return _compare(node, values)
    raise ConfigError(
        f"{ast.unparse(node)!r} is not allowed: only parameters, numbers, words in quotes, "
        "+ - * / // %, comparisons, and, or, not"
    )


def _compare(node: ast.Compare, values: Mapping[str, Value]) -> bool:
    sides = [_value(side, values) for side in (node.left, *node.comparators)]
    for sign, left, right in zip(node.ops, sides, sides[1:], strict=False):
        if type(sign) not in _COMPARISONS:
            raise ConfigError(f"{ast.unparse(node)!r} is not allowed: compare with == != < <= > >=")
        if isinstance(left, str) != isinstance(right, str):
            raise ConfigError(f"{left!r} can't be compared with {right!r}")
        if not _COMPARISONS[type(sign)](left, right):
            return False
    return True
