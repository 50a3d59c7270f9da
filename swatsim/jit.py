"""Kernels: functions that are compiled when they are first called.

Numba is loaded then, and not before, for that takes longer than a run that finds all that it counts
in a store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Array = TypeVar("Array", bound=np.ndarray[Any, Any])

#: Held while a kernel is made: threads call one for the first time together.
_MAKING = RLock()


class Kernel(Generic[Parameters, Result]):
    """A function that Numba compiles as soon as it is called, or a kernel that calls it is.

    Whatever else Numba's own object has, it has too: ``kernel.py_func`` is the function.
    """

    def __init__(self, function: Callable[Parameters, Result], is_inner: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._function, self._is_inner = function, is_inner
        self._made: Any = None

    def __call__(self, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        """Run it.

        Raises
        ------
        SwatsimError
            If the user has turned Numba's compiler off. As plain Python the kernels would not be
            slow only: NumPy's small integers overflow where Numba's grow.
        """
        result: Result = (self._made or self._make())(*arguments, **named)
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of which the class has its own
            raise AttributeError(name)
        return getattr(self._made or self._make(), name)

    @property
    def _numba_type_(self) -> Any:
        """What Numba asks of a value that a kernel names: the compiled kernel's own."""
        return (self._made or self._make())._numba_type_

    def _make(self) -> Any:
        from swatsim import compiled  # Numba: not for those whose counts are all kept

        make = compiled.linked if self._is_inner else compiled.compiled
        with _MAKING:
            self._made = self._made or make(self._function)
        return self._made


def jit(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a kernel that is compiled on first use, without the GIL, and cached for later."""
    return Kernel(function)


def inner(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that only kernels call: it is compiled inside each of them.

    As a kernel (`jit`) it would take twice as long to compile, as would whatever calls it.
    """
    return Kernel(function, is_inner=True)


class _Popcount:
    """The number of ones of a word of 64 bits, in a kernel."""

    def __call__(self, word: np.uint64) -> np.uint64:
        raise NotImplementedError("popcount is for kernels alone")

    @property
    def _numba_type_(self) -> Any:
        """What Numba asks of a value that a kernel names."""
        from swatsim.compiled import type_of_popcount  # Numba, which asks

        return type_of_popcount()


#: In a kernel: the number of ones of a word of 64 bits.
popcount: Callable[[np.uint64], np.uint64] = _Popcount()


def read_only(array: Array) -> Array:
    """Return an array in C order that can't be written to: a view, where it is in C order.

    Numba compiles a kernel anew for arrays that can be written to, and for those of another order:
    what is read alone, and comes now as it was recorded and now as a copy, goes through this.
    """
    view: Any = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    found: Array = view
    return found
