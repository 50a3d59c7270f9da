"""Policies and networks are declared once: all else that names them comes from there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import get_args

import pytest

from swatsim import policies
from swatsim.policies import POLICIES
from swatsim.policies.allocation import ALLOCATIONS, Word
from swatsim.policies.method import Method, PolicyValue
from swatsim.workload.networks import NETWORKS

PACKAGE = Path(policies.__file__).parents[1]
#: Where they are declared; what a paper published is data about networks.
DECLARED = {"policies", "workload/networks.py", "reproduce/swat_published.py"}


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
    assert {it.__name__ for it in bases} == {"KeptMask", "DropGrow"}
    assert {it.__name__ for it in found if it not in bases} <= set(policies.__all__)


def test_a_policy_says_in_a_line_what_it_is() -> None:
    for kind in POLICIES.values():
        assert re.fullmatch(r"[A-Z].{20,90}\.", kind.summary())


def test_words_of_allocations_are_those_that_there_are() -> None:
    assert get_args(Word) == tuple(ALLOCATIONS)


def texts(path: Path) -> Iterator[tuple[int, list[str]]]:
    """What a file says as one: each text, and the texts in a list, tuple, set, dict or Literal."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts = [*node.elts]
        elif isinstance(node, ast.Dict):
            parts = node.keys
        elif isinstance(node, ast.Constant):
            parts = [node]
        found = [it.value for it in parts if isinstance(it, ast.Constant)]
        yield getattr(node, "lineno", 0), [it for it in found if isinstance(it, str)]


@pytest.mark.parametrize("names", [POLICIES, NETWORKS], ids=["policies", "networks"])
def test_no_list_of_them_stands_elsewhere(names: dict[str, object]) -> None:
    # "set" and "dense" are words of their own
    odd = [re.escape(name) for name in names if name not in ("set", "dense")]
    word = re.compile(rf"(?<![\w-])({'|'.join(odd)})(?![\w-])")
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if place in DECLARED or place.split("/")[0] in DECLARED:
            continue
        for line, found in texts(path):
            listed = {name for text in found for name in word.findall(text)}
            assert len(listed) < 2, f"{place}:{line} lists {listed}"
