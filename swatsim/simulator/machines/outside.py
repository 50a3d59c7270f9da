"""Machines from outside this package: modules that have MACHINES as it has.

A name of such a machine imports its module, so it runs code: names come from a command line, a
sweep's specification or a call, never from a trace or from results.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from swatsim.errors import ConfigError
from swatsim.provenance import fingerprint
from swatsim.simulator.mechanism import Mechanism


def machines_of(module: str) -> tuple[Mechanism, ...]:
    """Return the machines of a module, by its dotted name.

    It is looked for in the working directory too, as `python -m` does.

    Raises
    ------
    ConfigError
        If it is no module's name, can't be imported, or has no MACHINES.
    """
    # of "NAME.[" Python would import NAME before it finds that the rest is no module
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(
            f"{module!r} is no module's name: expected MODULE:PRESET, MODULE as in an import"
        )
    machines = getattr(_imported(module), "MACHINES", None)
    if not isinstance(machines, tuple) or not all(
        isinstance(machine, Mechanism) for machine in machines
    ):
        raise ConfigError(
            f"module {module!r} has no MACHINES: it must be a tuple of swatsim.Mechanism, as in "
            "examples/own_machine.py"
        )
    return machines


@lru_cache
def sources_of(module: str) -> str:
    """Return a fingerprint of a module's code (16 hex digits), of a package of all its modules.

    Empty if it has no source file: then it can't be told.
    """
    path = getattr(_imported(module), "__file__", None)
    if path is None:
        return ""
    file = Path(path)
    return fingerprint(file.parent if file.name == "__init__.py" else file)


def _imported(module: str) -> ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    sys.path.append(here := os.getcwd())
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  (a stranger's module may raise anything)
        raise ConfigError(
            f"can't import machines from module {module!r}: {type(error).__name__}: {error}; it "
            "must be importable from the working directory or installed"
        ) from None
    finally:
        sys.path.reverse()
        sys.path.remove(here)
        sys.path.reverse()
