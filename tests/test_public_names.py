"""Names of the package: loaded when they are used, and what needs PyTorch says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

import swatsim


def alone(code: str) -> str:
    """Run code in a process that has no PyTorch."""
    code = f"import sys; sys.modules['torch'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_recorders_are_public() -> None:
    pytest.importorskip("torch")
    from swatsim import Observer, Tracer
    from swatsim.tracer import pytorch

    assert (Observer, Tracer) == (pytorch.Observer, pytorch.Tracer)
    assert {"Observer", "Tracer"} <= set(dir(swatsim)) & set(swatsim.__all__)


def test_without_pytorch_they_say_what_to_install_and_the_rest_works() -> None:
    shown = alone(
        "from swatsim import *\nimport swatsim\n"
        "print(Results.__name__, 'Tracer' in dir(swatsim))\n"
        "try: from swatsim import Tracer\n"
        "except swatsim.SwatsimError as error: print(error)"
    )
    first, second = shown.splitlines()
    assert first == "Results False"
    assert second == "recording a PyTorch run needs PyTorch: pip install 'swatsim[torch]'"


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Traicer'"):
        _ = swatsim.Traicer
