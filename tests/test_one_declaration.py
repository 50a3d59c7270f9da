"""Each closed set is declared in one place: no list of its members stands anywhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swatsim.cli.main import VERBS
from swatsim.columns import Role
from swatsim.outputs import PLOT_FILES, PLOTS
from swatsim.policies import POLICIES
from swatsim.simulator.energy.table import shipped as tables
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.memory.config import BUFFERS, ORDERS
from swatsim.simulator.memory.dram import shipped as drams
from swatsim.workload.layer import KINDS, OPERANDS, OPS
from swatsim.workload.networks import NETWORKS
from swatsim.workload.storage import FORMATS
from swatsim.workload.value_types import DTYPES
from tests.sources import nodes

ROOT = Path(__file__).parents[1] / "swatsim"

#: What it is, its members, and the file that declares it; of others a folder does.
SETS = {
    "value types": (list(DTYPES), "workload/value_types.py"),
    "storage formats": (list(FORMATS), "workload/storage.py"),
    "kinds of DRAM": (drams(), ""),
    "energy tables": (tables(), ""),
    "presets": ([name for name, _, _ in presets()], ""),
    "networks": (list(NETWORKS), "workload/networks.py"),
    "policies": (list(POLICIES), ""),
}
#: The same of sets whose members are words of every day: what counts is a list of most of them, and
#: not a mapping, which says something of each and is complete by its type.
LISTED = {
    "kinds of layers": (list(KINDS), "workload/layer.py"),
    "ops": (list(OPS), "workload/layer.py"),
    "operands": (list(OPERANDS), "workload/layer.py"),
    "buffers": (list(BUFFERS), "simulator/memory/config.py"),
    "loop orders": (list(ORDERS), "simulator/memory/config.py"),
    "roles": ([str(role) for role in Role], "columns.py"),
    "plots": (list(PLOTS), "outputs.py"),
    "files of plots": (list(PLOT_FILES), "outputs.py"),
    "verbs": (list(VERBS), "cli/main.py"),
    "machines": ([mechanism.name for mechanism in MACHINES], ""),
}
#: Of a paper's workloads it names those that it needs: no list of what there is.
CHOSEN = ROOT / "reproduce"
#: So many of them in one text, or one collection, are a list of them.
MANY = 4


def words_of(node: ast.AST) -> set[str]:
    """Give the words that stand together: of a text, or of a collection of texts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return set(re.findall(r"\w(?:[\w.-]*\w)?", node.value))
    if isinstance(node, ast.JoinedStr):
        return {word for part in node.values for word in words_of(part)}
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = [*node.elts]
    elif isinstance(node, ast.Dict):
        parts = [*node.keys]
    return {it.value for it in parts if isinstance(it, ast.Constant) and isinstance(it.value, str)}


@pytest.fixture(scope="module")
def together() -> list[tuple[Path, set[str]]]:
    """Give the words that stand together, of all files."""
    paths = [path for path in sorted(ROOT.rglob("*.py")) if CHOSEN not in path.parents]
    every = ((path, node) for path in paths for node in nodes(path))
    return [(path, words) for path, node in every if len(words := words_of(node)) > 1]


def lists_of(path: Path) -> Iterator[set[str]]:
    """Yield the texts of each tuple, list and set of a source."""
    for node in nodes(path):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            yield words_of(node)


@pytest.fixture(scope="module")
def lists() -> list[tuple[Path, set[str]]]:
    """Return the lists of texts of all files."""
    paths = (path for path in sorted(ROOT.rglob("*.py")) if CHOSEN not in path.parents)
    return [(path, words) for path in paths for words in lists_of(path) if len(words) > 1]


@pytest.mark.parametrize("name", LISTED)
def test_no_list_of_a_set_of_everyday_words_stands_elsewhere(
    name: str, lists: list[tuple[Path, set[str]]]
) -> None:
    members, own = LISTED[name]
    many = min(MANY, len(members))
    assert [
        f"{path.relative_to(ROOT)}: {sorted(found)}"
        for path, words in lists
        if len(found := words & set(members)) >= many and path != ROOT / own
    ] == []


def test_a_list_is_seen_and_a_mapping_is_none(tmp_path: Path) -> None:
    path = tmp_path / "copy.py"
    path.write_text("X = ['a', 'b', 'out']; Y = {'a': 1, 'b': 2, 'out': 3}; Z = ('a', 'c')")
    assert list(lists_of(path)) == [{"a", "b", "out"}, {"a", "c"}]


@pytest.mark.parametrize("name", SETS)
def test_no_list_of_a_closed_set_stands_elsewhere(
    name: str, together: list[tuple[Path, set[str]]]
) -> None:
    members, own = SETS[name]
    many = min(MANY, len(members))
    assert [
        f"{path.relative_to(ROOT)}: {sorted(found)}"
        for path, words in together
        if len(found := words & set(members)) >= many and path != ROOT / own
    ] == []
