"""A policy is declared once, and none is forgotten; that no list of them stands elsewhere holds
`tests/test_one_declaration.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from swatsim import policies
from swatsim.policies import POLICIES
from swatsim.policies.allocation import ALLOCATIONS, Word
from swatsim.policies.method import Method, PolicyValue


def declared() -> Iterator[type[PolicyValue]]:
    """Every policy that some file of `policies` declares, forgotten ones too."""
    for module in iter_modules(policies.__path__, "swatsim.policies."):
        for it in vars(import_module(module.name)).values():
            if inspect.isclass(it) and issubclass(it, PolicyValue) and it.__module__ == module.name:
                yield it


def test_no_policy_is_forgotten() -> None:
    found = [it for it in declared() if not inspect.isabstract(it) and it is not PolicyValue]
    methods = {it for it in found if "method" in vars(it)}
    assert methods == set(POLICIES.values())
    assert all(POLICIES[it.method] is it for it in methods if issubclass(it, Method))
    bases = {it for it in found if issubclass(it, Method)} - methods
    assert {it.__name__ for it in bases} == {"PersistentMask", "DropGrow", "NOfM"}
    assert {it.__name__ for it in found if it not in bases} <= set(policies.__all__)


def test_a_policy_says_in_a_line_what_it_is() -> None:
    for kind in POLICIES.values():
        assert re.fullmatch(r"[A-Z].{20,90}\.", kind.summary())


def test_words_of_allocations_are_those_that_there_are() -> None:
    assert get_args(Word) == tuple(ALLOCATIONS)
