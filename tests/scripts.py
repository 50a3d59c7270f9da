"""The scripts of benchmarks/, loaded as modules: what they write into pages is held to them."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


@cache
def load(name: str) -> ModuleType:
    """Return a script by its path in benchmarks/, without `.py`; what it imports lies beside it."""
    spec = importlib.util.spec_from_file_location(
        f"script_{name.replace('/', '_')}", ROOT / "benchmarks" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    kept = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    sys.modules[module.__name__] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = kept
    return module
