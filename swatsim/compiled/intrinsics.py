"""What kernels use of NumPy and Python, generated where it is used.

To Numba `np.zeros`, `min` and the like are functions written in Python, which it compiles as it
does a kernel: again for each type, and with machine code that nobody calls. Here each is the few
instructions that it comes to, with the same results and types. Kernels are written as ever.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils, ir
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.typing.npydecl import parse_dtype, parse_shape
from numba.extending import intrinsic
from numba.np import arrayobj

_intrinsic: Any = intrinsic


def _new(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Generate a new array in C order, whose memory is as it was found."""
    kind, shape = signature.return_type, signature.args[0]
    whole = types.UniTuple(types.intp, kind.ndim) if kind.ndim > 1 else types.intp
    sizes = context.cast(builder, arguments[0], shape, whole)
    sizes = cgutils.unpack_tuple(builder, sizes) if kind.ndim > 1 else [sizes]
    strides = [context.get_constant(types.intp, arrayobj.get_itemsize(context, kind))]
    for size in reversed(sizes):
        strides.insert(0, builder.mul(strides[0], size))
    align = context.get_preferred_array_alignment(kind.dtype)
    memory = context.nrt.meminfo_alloc_aligned(builder, strides[0], align)
    of_items = context.get_data_type(kind.dtype).as_pointer()
    data = builder.bitcast(context.nrt.meminfo_data(builder, memory), of_items)
    array = arrayobj.make_array(kind)(context, builder)
    arrayobj.populate_array(array, data, sizes, strides[1:], strides[-1], memory)
    return array


def _set_all(context: Any, builder: Any, array: Any, kind: Any, value: Any) -> None:
    with cgutils.for_range(builder, array.nitems) as loop:
        place = builder.gep(array.data, [loop.index])
        arrayobj.store_item(context, builder, kind, value, place)


def _array(shape: Any, dtype: Any) -> Any:
    return types.Array(parse_dtype(dtype), parse_shape(shape), "C")(shape, dtype)


def _empty(context: Any, shape: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _new(context, builder, signature, arguments)._getvalue()

    return _array(shape, dtype), generate


def _zeros(context: Any, shape: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = _new(context, builder, signature, arguments)
        cgutils.memset(builder, array.data, builder.mul(array.itemsize, array.nitems), 0)
        return array._getvalue()

    return _array(shape, dtype), generate


def _ones(context: Any, shape: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        array = _new(context, builder, signature, arguments)
        _set_all(context, builder, array, kind, context.get_constant(kind.dtype, 1))
        return array._getvalue()

    return _array(shape, dtype), generate


def _fill(context: Any, array: Any, value: Any) -> Any:
    if array.layout != "C":
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, given = signature.args
        one = context.cast(builder, arguments[1], given, kind.dtype)
        _set_all(
            context, builder, arrayobj.make_array(kind)(context, builder, arguments[0]), kind, one
        )
        return context.get_dummy_value()

    return types.none(array, value), generate


def _chosen(compare: Any) -> Any:
    """Return `min` or `max` of two numbers: as Numba's, the first where both are equal."""

    def choose(context: Any, first: Any, second: Any) -> Any:
        kind = context.unify_types(first, second)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held, other = (
                context.cast(builder, value, of, kind)
                for value, of in zip(arguments, signature.args, strict=True)
            )
            is_other = context.get_function(compare, types.boolean(kind, kind))
            return builder.select(is_other(builder, (other, held)), other, held)

        return kind(first, second), generate

    return choose


def _whole(context: Any, value: Any) -> Any:
    """Return `int` of a number: as Numba's, one of its own width where it is whole."""
    kind = value if isinstance(value, types.Integer) else types.intp

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], signature.args[0], kind)

    return kind(value), generate


OF_NUMPY = {"empty": _intrinsic(_empty), "zeros": _intrinsic(_zeros), "ones": _intrinsic(_ones)}
OF_PYTHON = {
    "min": (min, _intrinsic(_chosen(operator.lt))),
    "max": (max, _intrinsic(_chosen(operator.gt))),
    "int": (int, _intrinsic(_whole)),
}
FILL = _intrinsic(_fill)


@register_pass(mutates_CFG=False, analysis_only=False)
class Generated(FunctionPass):
    """Puts these in the place of what a kernel calls."""

    _name = "swatsim_generated"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # is abstract in Numba's own

    def run_pass(self, state: Any) -> bool:
        """Look at a function before it has types: at names, their attributes and calls."""
        blocks = state.func_ir.blocks.values()
        every = [it for block in blocks for it in block.find_insts(ir.Assign)]
        made = {it.target.name: it for it in every}
        for it in every:
            self._put(state, it, _replaced(it, made))
            method = _filling(it, made)
            if method is not None:
                it.value.args = [method.value.value, *it.value.args]
                self._put(state, method, FILL)
        return True

    def _put(self, state: Any, it: Any, found: Any) -> None:
        if found is not None:
            it.value = ir.Global(found._name, found, it.loc)
            state.func_ir._definitions[it.target.name] = [it.value]


def _replaced(it: Any, made: Any) -> Any:
    """Return what stands for a value that a kernel names; None for most."""
    value = it.value
    if isinstance(value, ir.Global):
        of, ours = OF_PYTHON.get(value.name, (None, None))
        return ours if value.value is of else None
    if isinstance(value, ir.Expr) and value.op == "getattr":
        base = made.get(value.value.name)
        of = None if base is None else base.value
        is_numpy = isinstance(of, ir.Global) and of.value is np
        return OF_NUMPY.get(value.attr) if is_numpy else None
    return None


def _filling(it: Any, made: Any) -> Any:
    """Return where the method is got that a call calls, if it is an array's `fill`."""
    if not isinstance(it.value, ir.Expr) or it.value.op != "call":
        return None
    method = made.get(it.value.func.name)
    of = None if method is None else method.value
    is_fill = isinstance(of, ir.Expr) and of.op == "getattr" and of.attr == "fill"
    return method if is_fill else None
