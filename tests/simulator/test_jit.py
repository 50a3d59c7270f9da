"""The cache of compiled kernels is never stale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import swatsim

PACKAGE = Path(swatsim.__file__).parent

PROGRAM = """
import numpy as np, swatsim
layer = swatsim.Layer(name="fc", kind="linear", C=16, K=4)
masks = {"weight": np.eye(4, 16, dtype=bool), "act": np.ones((1, 16), bool)}
print(swatsim.simulate_op(swatsim.Op(layer, "fprop", **masks), "bit-tactical").cycles_compute)
"""


def run(package: Path, cache: Path) -> str:
    environment = {**os.environ, "SWATSIM_CACHE_DIR": str(cache), "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def kernels(cache: Path) -> set[Path]:
    return set(cache.rglob("*.nbc"))


def test_a_kernel_is_compiled_once_and_again_when_a_helper_in_another_module_changes(
    tmp_path: Path,
) -> None:
    package, cache = tmp_path / "swatsim", tmp_path / "cache"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    kernel = package / "simulator/machines/lane_array/kernel.py"
    helper = package / "simulator/helper.py"
    source = kernel.read_text()
    helper.write_text("from swatsim.jit import jit\n\n@jit\ndef extra():\n    return 0\n")
    count = "            taken[i] += 1\n"
    assert count in source
    changed = source.replace(count, count + "            taken[i] += extra()\n")
    kernel.write_text(
        "from __future__ import annotations\nfrom swatsim.simulator.helper import extra\n"
        + changed.replace("from __future__ import annotations\n", "", 1)
    )
    assert run(package, cache) == "1"
    first = kernels(cache)
    assert first
    assert run(package, cache) == "1"
    assert kernels(cache) == first
    helper.write_text(helper.read_text().replace("return 0", "return 41"))
    assert run(package, cache) == "42"


def test_a_damaged_cache_is_no_error(tmp_path: Path) -> None:
    assert run(PACKAGE, tmp_path) == "1"
    for path in (*kernels(tmp_path), *tmp_path.rglob("*.nbi")):
        path.write_bytes(bytes(path.stat().st_size))
    assert run(PACKAGE, tmp_path) == "1"


def test_no_cache_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(PACKAGE, blocked / "cache") == "1"
