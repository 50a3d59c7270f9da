"""What a public function is given, checked before it does anything: kinds, not ranges."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, ParamSpec, TypeAlias, TypeGuard, TypeVar

from swatsim.errors import SwatsimError, shown

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: Gives the value that is used, or raises ValueError: "must be ..".
Check: TypeAlias = Callable[[Any], Any]


def arguments(
    error: type[SwatsimError], **checks: Check
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that checks a function's arguments before it does anything.

    Parameters
    ----------
    error : type
        A child of SwatsimError: what a refusal raises. It names the argument, and what is allowed.
    **checks : callable of object to object
        By argument. They may convert: a whole number of any library becomes Python's.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        form = signature(function)
        assert checks.keys() <= form.parameters.keys(), "only arguments that there are"
        who = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

        @wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            given = form.bind(*args, **kwargs)
            for name, check in checks.items():
                if name in given.arguments:
                    value = given.arguments[name]
                    given.arguments[name] = accepted(error, who, name, value, check)
            return function(*given.args, **given.kwargs)

        return checked

    return decorate


def accepted(error: type[SwatsimError], who: str, name: str, value: Any, check: Check) -> Any:
    """Return one argument as its check accepts it; what is not allowed is refused by name."""
    try:
        return check(value)
    except ValueError as refusal:
        message = f"{who}: {name}={shown(value)} is not allowed: {refusal}"
        raise error(message, of_argument=True) from None


def whole(value: Any) -> Any:
    """Return a whole number of any library as Python's; anything else as it is, to be refused."""
    # before NumPy 2.3 its bools were indices, with a warning
    if not isinstance(value, int) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError, AttributeError):
            return operator.index(value)
    return value


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is Python's whole number: no bool, no float that happens to be whole."""
    return isinstance(value, int) and not isinstance(value, bool)


def count_of(value: Any) -> int:
    """Return a whole number of any library as Python's; -1 for anything else, or below 0."""
    number = whole(value)
    return number if is_whole(number) and number >= 0 else -1


def whole_number(value: Any) -> int:
    """Allow a whole number of any library; no bool, no text, no float that happens to be whole."""
    number = whole(value)
    if not is_whole(number):
        raise ValueError("must be a whole number")
    return number


def exact(value: Any) -> Fraction:
    """Return a number as the fraction that its decimal writes: 0.7 is 7/10.

    Raises
    ------
    ValueError
        If it is not a finite real number.
    """
    if isinstance(value, Fraction):
        return Fraction(value)
    if not isinstance(value, bool) and isinstance(value, numbers.Real | Decimal):
        with suppress(ValueError):  # of what is not finite, and of thousands of digits
            return _written(str(value))
    raise ValueError("must be a finite number, such as 0.8")


@lru_cache(maxsize=10_000)
def _written(number: str) -> Fraction:
    """Return the fraction that a decimal writes; a policy is asked for its own in every step."""
    return Fraction(number)


def share(interval: str, meaning: str = "") -> Callable[[Any], Fraction]:
    """Return a check of a share of a whole, in an interval such as ``(0, 1]``: an exact fraction.

    Parameters
    ----------
    interval : str
        From 0 to 1: a square bracket includes the end beside it, a round one does not.
    meaning : str
        What else a refusal says.
    """
    zero, one = interval.startswith("["), interval.endswith("]")

    def check(value: Any) -> Fraction:
        with suppress(ValueError):
            part = exact(value)
            if 0 < part < 1 or (zero and part == 0) or (one and part == 1):
                return part
        raise ValueError(f"must be a number in {interval}{meaning}")

    return check


#: The share of values that is dropped.
sparsity = share("[0, 1)", "; 0.8 drops 80 % of the values, 0 none")
#: The share of values that is there.
density = share("(0, 1]", "; 0.5 leaves half of the values")
#: The same, where nothing may be left.
density_or_none = share("[0, 1]")


def mask_like(value: Any) -> Any:
    """Allow a NumPy array of bool, of two dimensions or more."""
    kind = str(getattr(value, "dtype", "")), getattr(value, "ndim", 0)
    if type(value).__module__ != "numpy" or kind[0] != "bool" or kind[1] < 2:
        raise ValueError("must be a numpy array of bool with two dimensions or more")
    return value


def string(value: Any) -> str:
    """Allow text."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def flag(value: Any) -> bool:
    """Allow a bool, of NumPy too."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        with suppress(TypeError, ValueError):
            return bool(value)
    raise ValueError("must be True or False")


def path_like(value: Any) -> Any:
    """Allow a path as this system can write it."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError("must be a path")
    try:
        writable = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        writable = False
    if not writable or not os.fspath(value):
        raise ValueError("must be a path, of characters that names of files can have")
    return value


def function(value: Any) -> Any:
    """Allow what can be called."""
    if not callable(value) or isinstance(value, type):
        raise ValueError("must be a function")
    return value


def mapping(value: Any) -> Any:
    """Allow a mapping with names as its keys."""
    if not isinstance(value, Mapping) or not all(issubclass(it, str) for it in {*map(type, value)}):
        raise ValueError("must be a dict with names as its keys")
    return value


def iterable(value: Any) -> Any:
    """Allow what gives one thing after another; text, and a dict, give parts of themselves."""
    if isinstance(value, str | bytes | Mapping | type) or not isinstance(value, Iterable):
        raise ValueError("must be a sequence")
    return value


def instance_of(*kinds: type) -> Check:
    """Allow objects of some types."""
    names = " or ".join(kind.__name__ for kind in kinds)

    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise ValueError(f"must be a {names}")
        return value

    return check


def having(*names: str) -> Check:
    """Allow objects with some methods: what a user's own class has."""

    def check(value: Any) -> Any:
        methods = [getattr(value, name, None) for name in names]
        if isinstance(value, type) or not all(map(callable, methods)):
            raise ValueError(f"must have the methods {' and '.join(names)}")
        return value

    return check


def maybe(check: Check) -> Check:
    """Allow None as well."""
    return either(check, none)


def none(value: Any) -> None:
    """Allow None alone."""
    if value is not None:
        raise ValueError("must be None")


def either(*checks: Check) -> Check:
    """Allow what any of some checks allows."""

    def check(value: Any) -> Any:
        wanted = []
        for each in checks:
            try:
                return each(value)
            except ValueError as refusal:
                wanted.append(str(refusal).removeprefix("must be "))
        *others, last = wanted
        raise ValueError(f"must be {', '.join(others)} or {last}" if others else f"must be {last}")

    return check


def several(each: Check, what: str) -> Check:
    """Allow a sequence, array or set, of values that a check allows; it becomes a list."""

    def check(value: Any) -> list[Any]:
        wrong = ValueError(f"must be a sequence of them: {what}")
        try:
            return [each(item) for item in iterable(value)]
        except (TypeError, ValueError):
            raise wrong from None

    return check
