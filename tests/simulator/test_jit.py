"""The cache of compiled kernels is never stale, and never believed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import swatsim
from swatsim import compiled, provenance

PACKAGE = Path(swatsim.__file__).parent
TRACE = PACKAGE.parent / "traces/resnet8-fashion-mnist-swat-u-80"

KERNEL = """
from swatsim.jit import jit
from swatsim.simulator.helper import step

@jit
def walk(n):
    return n + step()
"""
HELPER = "from swatsim.jit import jit\n\n@jit\ndef step():\n    return 1\n"
PROGRAM = "from swatsim.simulator.walker import walk; print(walk(40))"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Copy the package, with two small kernels in it."""
    copy = tmp_path / "copy" / "swatsim"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "simulator/walker.py").write_text(KERNEL)
    (copy / "simulator/helper.py").write_text(HELPER)
    return copy


def run(package: Path, cache: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    own = {"SWATSIM_CACHE_DIR": str(cache), "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, *(arguments or ("-c", PROGRAM))],
        env={**os.environ, **own, **variables},
        cwd=package.parent,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def kernels(cache: Path) -> dict[Path, int]:
    """Give each kept kernel, and which file it is: one that is written anew is another."""
    return {path: path.stat().st_ino for path in cache.rglob("*.kernel")}


def test_a_kernel_is_compiled_once_and_again_when_a_helper_in_another_module_changes(
    package: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert run(package, cache) == (0, "41", "")
    first = kernels(cache)
    assert len(first) == 2
    # what compiles loads SciPy's BLAS, and takes as long as all else; none of it is needed to run
    loaded = f"{PROGRAM}; import sys; print('numba.np.arraymath' in sys.modules)"
    assert run(package, cache, "-c", loaded) == (0, "41\nFalse", "")
    assert kernels(cache) == first
    (package / "simulator/helper.py").write_text(HELPER.replace("1", "2"))
    assert run(package, cache) == (0, "42", "")


def test_damaged_kernels_are_compiled_anew(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(package, cache) == (0, "41", "")
    draw = random.Random(1)
    before = kernels(cache)
    for path in before:
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    code, out, err = run(package, cache)
    assert (code, out) == (0, "41")
    assert err.count("a cached kernel is damaged, and compiled anew") == 2
    after = kernels(cache)
    assert after.keys() == before.keys()
    assert run(package, cache) == (0, "41", "")
    assert kernels(cache) == after


def test_no_setting_of_numba_moves_the_cache_or_does_without(package: Path, tmp_path: Path) -> None:
    cache, none = tmp_path / "cache", tmp_path / "none"
    none.write_text("")
    odd = {"NUMBA_CACHE_DIR": str(none / "x"), "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    assert run(package, cache, **odd) == (0, "41", "")
    assert len(kernels(cache)) == 2
    code, out, err = run(package, none)
    assert (code, out) == (0, "41")
    assert "no cache at" in err


def test_a_package_without_sources_has_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "swatsim.zip" / "swatsim" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(place))
    monkeypatch.setattr(compiled, "sources", provenance.sources.__wrapped__)
    assert compiled._folder() is None
    assert "no sources to tell versions by" in caplog.text


def test_with_the_compiler_turned_off_what_needs_it_is_refused(tmp_path: Path) -> None:
    def swatsim(*words: str) -> tuple[int, str, str]:
        return run(PACKAGE, tmp_path, "-m", "swatsim", *words, NUMBA_DISABLE_JIT="1")

    assert swatsim("check", str(TRACE))[0] == 0
    code, out, err = swatsim("simulate", str(TRACE), "-m", "tensordash", "--step", "0")
    assert (code, out) == (2, "")
    assert err == (
        "swatsim: error: NUMBA_DISABLE_JIT is set: kernels count right only when they are "
        "compiled; unset it"
    )
