"""What the first run compiles, in numbers that no machine makes slower."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from numba.core.typing.context import Context

import swatsim
from swatsim.compiled import is_known, linked

PACKAGE = Path(swatsim.__file__).parent
TRACE = PACKAGE.parent / "traces/resnet8-fashion-mnist-swat-u-80"

#: Simulates the trace with nothing cached, and names what Numba compiles: functions, with modules.
PROGRAM = """
import json, sys
from numba.core import event

class Names(event.Listener):
    def on_start(self, it):
        function = it.data["dispatcher"].py_func
        names.append(f"{function.__module__}.{function.__qualname__}")
    def on_end(self, it):
        pass

names = []
event.register("numba:compile", Names())
import swatsim
swatsim.simulate(sys.argv[1], sys.argv[2], store=False)
print(json.dumps(names))
"""


def run(program: str, machine: str, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, str(TRACE), machine],
        env={**os.environ, "SWATSIM_CACHE_DIR": str(cache)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def compiled(machine: str, cache: Path) -> Counter[str]:
    return Counter(json.loads(run(PROGRAM, machine, cache)))


@pytest.mark.skipif(not is_known(), reason="kernels are compiled as Numba does")
@pytest.mark.parametrize(("machine", "most"), [("swat", 34), ("tensordash", 8)])
def test_a_first_run_compiles_few_functions_and_each_once(
    machine: str, most: int, tmp_path: Path
) -> None:
    found = compiled(machine, tmp_path)
    assert len(found) <= most
    assert set(found.values()) == {1}
    assert all(name.startswith("swatsim.") for name in found), "none of Numba's own"
    assert compiled(machine, tmp_path) == Counter(), "what is cached is not compiled"


#: The same without what is known of Numba from inside.
AS_EVER = """
import json, sys
from swatsim import compiled
compiled.KNOWN = ()
import swatsim
found = swatsim.simulate(sys.argv[1], sys.argv[2], steps=[0], ops=["wgrad"], store=False)
print(json.dumps([row["cycles"] for row in found.rows]))
"""


def test_with_another_numba_kernels_are_compiled_as_ever_and_equal(tmp_path: Path) -> None:
    found = json.loads(run(AS_EVER, "tensordash", tmp_path))
    expected = swatsim.simulate(TRACE, "tensordash", steps=[0], ops=["wgrad"], store=False)
    assert found == [row["cycles"] for row in expected.rows]


@pytest.mark.skipif(not is_known(), reason="kernels are compiled as Numba does")
def test_what_an_operation_gives_is_asked_once_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ask = Counter[object](), Context.resolve_function_type

    def note(context: Context, function: Any, arguments: Any, named: Any) -> Any:
        asked[function, arguments] += 1
        return ask(context, function, arguments, named)

    def kernel(a: int, b: float) -> float:
        for _ in range(4):
            b = (a + a) * b + (a + a) * b + (a + a) * b
        return b

    monkeypatch.setattr(Context, "resolve_function_type", note)
    assert linked(kernel)(2, 1.0) == 12.0**4
    operations = {it: times for it, times in asked.items() if "built-in function" in str(it)}
    assert len(operations) == 3  # a sum of integers, one of floats, a product
    assert set(operations.values()) == {1}


def is_inner(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and "inner" in map(ast.unparse, node.decorator_list)


def is_kernel(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and "jit" in map(ast.unparse, node.decorator_list)


def test_python_calls_no_inner_function() -> None:
    """It would compile them in each process: they are in no cache."""
    trees = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    inner = {
        (path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."), node.name)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and is_inner(node)
    }
    assert len(inner) > 50
    for path, tree in trees.items():
        module = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        known = {name for file, name in inner if file == module}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                known |= {it.name for it in node.names if (node.module, it.name) in inner}
        outside = [it for it in tree.body if not is_inner(it) and not is_kernel(it)]
        named = {it.id for top in outside for it in ast.walk(top) if isinstance(it, ast.Name)}
        assert not named & known, f"{module} calls {sorted(named & known)}, which only kernels can"
