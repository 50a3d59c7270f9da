"""What Numba compiles, and keeps: its options, and a cache that can't be stale, nor damaged.

Numba's own file cache looks at the file of the function that is compiled, not at the helpers and
constants that it uses from other modules, so it can return code that is out of date; and it loads
whatever bytes it finds. Here the folder is named after a hash of every source of the package, the
versions of what compiles and the settings that change the code, and each file has a digest.

It is loaded when a kernel is called for the first time: `jit` has the kernels until then.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps
from numba.extending import intrinsic

from swatsim import cache
from swatsim.compiled.once import held
from swatsim.errors import SwatsimError
from swatsim.provenance import sources

log = logging.getLogger(__name__)

numba_config: Any = numba.config  # its attributes are made at run time

#: Numba's versions whose compiler `pipeline` knows from inside, and tests have seen. With any other
#: kernels are compiled as anybody's are: in twice the time, and equal.
KNOWN = ((0, 68),)

#: What is said of the first kernel that is not in the cache, or is damaged there.
COMPILING = "compiling kernels: some seconds, once for each machine and op"

#: What kernels call that is there as soon as Numba's runtime is.
BUILT_IN = ("llvm.", "NRT_", "Py", "_Py", "numba_", "mem")


def _version() -> str | None:
    """Return the digest of all that compiled code depends on; None without sources."""
    seen = hashlib.blake2b(digest_size=8)
    versions = (numba.__version__, llvmlite.__version__, np.__version__)
    settings = (sys.implementation.cache_tag, numba_config.BOUNDSCHECK)
    seen.update(repr((*versions, *settings)).encode())
    seen.update(sources().encode())
    return seen.hexdigest() if sources() else None


def _folder() -> Path | None:
    version = _version()
    if version is None:
        log.warning("kernels are compiled anew in each process: no sources to tell versions by")
    return None if version is None or numba_config.DISABLE_JIT else cache.folder_of(version)


_FOLDER = _folder()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that is compiled on first use, without the GIL, and cached for later.

    If the user has turned Numba's compiler off, one that refuses to be called.
    """
    if numba_config.DISABLE_JIT:
        return _refused
    dispatcher = _dispatcher(function)
    code = dispatcher.py_func.__code__
    if _FOLDER is not None and Path(code.co_filename).is_file():
        name = (function.__module__, function.__qualname__, code.co_firstlineno)
        dispatcher._cache = _Cache(repr((*name, _hash_of(code.co_filename))), _FOLDER)
        _compile_once(dispatcher)
    kernel: Callable[..., Any] = dispatcher
    return kernel


def _compile_once(dispatcher: Any) -> None:
    """Let Numba's object compile nothing that another process compiles into the same cache."""
    compile_here = dispatcher.compile

    def compile_or_wait(signature: Any) -> Any:
        path = dispatcher._cache.path(signature, dispatcher.targetctx.codegen())
        if path.exists():
            return compile_here(signature)
        _say_once(COMPILING, logging.INFO)
        with held(path):
            return compile_here(signature)  # which looks for the file first

    dispatcher.compile = compile_or_wait


def linked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is compiled inside each kernel that calls it: it is in no cache.

    Where Python calls it, as tests do, it is compiled alone, anew in each process.
    """
    if numba_config.DISABLE_JIT or not is_known():
        return compiled(function)
    from swatsim.compiled import pipeline  # of versions that are known

    both = _dispatcher(function, is_inner=True), _dispatcher(function)
    kernel: Callable[..., Any] = pipeline.only_linked(*both)
    return kernel


def is_known() -> bool:
    """Whether kernels are compiled by `pipeline`: by the version of Numba."""
    return tuple(map(int, numba.__version__.split(".")[:2])) in KNOWN


def _dispatcher(function: Callable[..., Any], is_inner: bool = False) -> Any:
    """Return Numba's object for a function; options are the same for all, or it compiles twice."""
    if not is_known():
        return numba.njit(nogil=True)(function)
    from swatsim.compiled import pipeline  # of versions that are known

    of = pipeline.Inner if is_inner else pipeline.Kernel
    options: dict[str, Any] = {"nogil": True, "no_cfunc_wrapper": True, "pipeline_class": of}
    return numba.njit(**options)(function)


def _population(context: Any, word: Any) -> Any:
    """Generate LLVM's ctpop: one instruction where the processor has it, in vectors too."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_intrinsic: Any = intrinsic
_popcount = _intrinsic(_population)


def type_of_popcount() -> Any:
    """Return what kernels are told that `swatsim.jit.popcount` is."""
    return cpu_target.typing_context.resolve_value_type(_popcount)


def _refused(*arguments: object, **named: object) -> NoReturn:
    raise SwatsimError(
        "NUMBA_DISABLE_JIT is set: kernels count right only when they are compiled; unset it"
    )


class _Cache(NullCache):
    """What Numba asks for a kernel's compiled code, and gives it to: a file for each signature.

    A kernel can be compiled all the same: files that are damaged or can't be read, and disks that
    are full, cost a compilation, and no more.
    """

    def __init__(self, kernel: str, folder: Path) -> None:
        self._kernel, self._folder = kernel, folder

    @property
    def cache_path(self) -> str:
        """The folder, for Numba's statistics."""
        return str(self._folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the cached code for a signature, or None."""
        path = self.path(sig, target_context.codegen())
        try:
            content = cache.read(path)
            if content is not None:
                _prepare(target_context, is_plain=bool(content[0]))
                stored, reduced = pickle.loads(memoryview(content)[1:])
                if stored == sig:
                    return CompileResult._rebuild(target_context, *reduced)
        except Exception as error:  # noqa: BLE001  (a pickle raises whatever it likes)
            _say_once(f"cached kernels can't be used, and are compiled anew ({_reason(error)})")
        _say_once(COMPILING, logging.INFO)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the code for a signature to the cache, if that can be done."""
        if data.library.has_dynamic_globals:  # it holds addresses of this process
            return
        try:
            content = bytes([_is_plain(data.library)]) + dumps((sig, data._reduce()))
            cache.write(self.path(sig, data.codegen), content)
        except Exception as error:  # noqa: BLE001  (a pickle raises whatever it likes)
            _say_once(f"compiled kernels can't be kept ({_reason(error)})")

    def path(self, sig: Any, codegen: Any) -> Path:
        """Return the file of the code for a signature."""
        whole = repr((self._kernel, sig, codegen.magic_tuple()))  # the last one is the processor
        name = hashlib.blake2b(whole.encode(), digest_size=20).hexdigest()
        return self._folder / f"{name}.kernel"


def _prepare(target_context: Any, is_plain: bool) -> None:
    """Make ready what a kernel runs on: with all that Numba compiles, only where it needs that.

    To load that takes as long as to load Numba, and SciPy with it.
    """
    if is_plain:
        rtsys.initialize(target_context)
    else:
        target_context.refresh()


def _is_plain(library: Any) -> bool:
    """Whether compiled code calls nothing that is there only once some module is loaded."""
    module = library._final_module
    outside = (it for it in (*module.functions, *module.global_variables) if it.is_declaration)
    return all(it.name.startswith(BUILT_IN) for it in outside)


@functools.cache
def _hash_of(file: str) -> str:
    """Return the hash of a kernel's own file: it may lie outside of the package."""
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()


def _reason(error: Exception) -> str:
    """Return an error's text without names of files: of many that fail alike, one is logged."""
    return getattr(error, "strerror", None) or str(error)


@functools.cache
def _say_once(message: str, level: int = logging.WARNING) -> None:
    log.log(level, message)
