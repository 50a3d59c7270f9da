"""How Numba compiles the kernels: as one module each, with what only kernels call inside.

Numba makes machine code of each function and of two wrappers around it, and optimises a function
once more in each that calls it. Here a function that only kernels call is brought as far as LLVM's
language and no further; a kernel is optimised and becomes machine code once, whole. Both belong to
our decorators alone: what a user compiles with Numba in the same process is compiled as ever.
"""

from __future__ import annotations

from typing import Any, ClassVar

from llvmlite import binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import AnnotateTypes, DumpParforDiagnostics, NativeLowering
from numba.core.types import Boolean, Function, Number
from numba.core.typing.context import Context
from numba.core.untyped_passes import (
    FindLiterallyCalls,
    FixupArgs,
    InlineInlinables,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    WithLifting,
)

#: Types of whose operations Numba is asked once.
NUMBERS = (Number, Boolean)
#: What kernels go without: they have neither `with` nor functions inside, nor literals to unroll.
UNUSED = (
    WithLifting,
    MakeFunctionToJitFunction,
    InlineInlinables,
    FindLiterallyCalls,
    LiteralUnroll,
    LiteralPropagationSubPipelinePass,
    AnnotateTypes,
    DumpParforDiagnostics,
)


class _Library(JITCodeLibrary):
    """LLVM's code of a function, before what it calls is linked in."""

    def _optimize_functions(self, module: Any) -> None:
        """Take off what lowering leaves: all else is done when everything is inlined."""
        module.data_layout = self._codegen._data_layout
        passes = llvm.create_new_function_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        builder = self._codegen._pass_builder()
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)

    def add_linking_library(self, library: Any) -> None:
        super().add_linking_library(library)  # type: ignore[no-untyped-call]
        if isinstance(library, _InnerLibrary):
            for it in library._linking_libraries:
                self.add_linking_library(it)


class _KernelLibrary(_Library):
    def _optimize_final_module(self) -> None:
        """Optimise once, at the level that costs a third less and runs as fast."""
        passes, builder = self._codegen._module_pass_manager(opt=2)
        passes.run(self._final_module, builder)


class _InnerLibrary(_Library):
    def finalize(self) -> None:
        """Leave it as it is: whoever links it in optimises it, and makes machine code of it."""
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _InnerLowering(NativeLowering):
    """Lowering to what can be linked in, and not called: Numba knows it by an object."""

    _name = "swatsim_inner_lowering"

    def run_pass(self, state: Any) -> bool:
        super().run_pass(state)  # type: ignore[no-untyped-call]
        entry = object()
        state.targetctx.insert_user_function(entry, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=entry)
        return True


class _Typing(Context):
    """What Numba knows of types, asked once a function for an operation on numbers of some types.

    Numba tries all that an operator may mean each time that it meets it, in each of the rounds in
    which it finds a function's types.
    """

    __slots__ = ("_known",)

    def __init__(self, own: Context) -> None:
        self.__dict__ = own.__dict__  # what is declared meanwhile is declared for all
        self._known: dict[Any, Any] = {}

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        ask = super().resolve_function_type
        if kws or not isinstance(func, Function) or not all(isinstance(it, NUMBERS) for it in args):
            return ask(func, args, kws)  # type: ignore[no-untyped-call]
        if (func, args) not in self._known:
            self._known[func, args] = ask(func, args, kws)  # type: ignore[no-untyped-call]
        return self._known[func, args]


class Kernel(Compiler):
    """Compiles a function that Python calls, with all that it calls."""

    library: ClassVar[type[_Library]] = _KernelLibrary

    def __init__(self, *arguments: Any) -> None:
        # here, as it loads what Numba compiles with: a process that finds its kernels needs none;
        # and first, as Numba's own looks for new intrinsics
        from swatsim.compiled.intrinsics import Generated

        super().__init__(*arguments)  # type: ignore[no-untyped-call]
        self._generated = Generated
        self.state.typingctx = _Typing(self.state.typingctx)

    def define_pipelines(self) -> list[Any]:
        """Return the passes of Numba's own compiler that a kernel needs, and `Generated`."""
        state = self.state
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        (passes,) = super().define_pipelines()  # type: ignore[no-untyped-call]
        passes.passes = [(it, why) for it, why in passes.passes if it not in UNUSED]
        passes.add_pass_after(self._generated, FixupArgs)
        return self._ready(passes)

    def _ready(self, passes: Any) -> list[Any]:
        passes._finalized = False
        passes.finalize()
        return [passes]


class Inner(Kernel):
    """Compiles a function that only kernels call, as far as that is of use."""

    library = _InnerLibrary

    def define_pipelines(self) -> list[Any]:
        """Return the passes of a kernel, without machine code and wrappers for Python."""
        flags = self.state.flags
        flags.no_compile = flags.no_cpython_wrapper = True
        (passes,) = super().define_pipelines()
        passes.passes = [
            (_InnerLowering if it is NativeLowering else it, why) for it, why in passes.passes
        ]
        return self._ready(passes)


def only_linked(inner: Any, alone: Any) -> Any:
    """Return Numba's object for an inner function, which runs another of it for Python."""

    def add(result: Any) -> None:
        inner.overloads[tuple(result.signature.args)] = result

    inner.add_overload, inner._compile_for_args = add, alone._compile_for_args
    return inner
