"""What a sparse training run would cost on an accelerator that skips zeros.

::

    import swatsim

    results = swatsim.simulate("traces/my-run", "tensordash")   # a recorded trace
    results.frame                                               # tidy rows, one an op and machine

    op = swatsim.Op(swatsim.Layer(name="conv", C=64, K=64, H=56, W=56, R=3, S=3, padding=1),
                    "fprop", weight=weight != 0, act=act != 0)  # or masks of your own
    swatsim.simulate_op(op, swatsim.machine("tensordash", rows=16)).cycles_compute

    with swatsim.Observer(model, "traces/my-run", steps=(0, 500)) as observer:  # your own run
        ...; optimizer.step(); observer.step()

Names are loaded when they are used: ``import swatsim`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from swatsim import displayed
from swatsim._version import __version__

if TYPE_CHECKING:
    from swatsim.counters import Counters as Counters
    from swatsim.errors import SwatsimError as SwatsimError
    from swatsim.reports.compare import compare as compare
    from swatsim.reports.estimate import estimate as estimate
    from swatsim.reports.export import export as export
    from swatsim.reports.frames import per_layer as per_layer
    from swatsim.reports.frames import per_op as per_op
    from swatsim.reports.write import report as report
    from swatsim.results import Results as Results
    from swatsim.results import load as load_results  # noqa: F401
    from swatsim.simulator.images import estimate_images as estimate_images
    from swatsim.simulator.interface import Busy as Busy
    from swatsim.simulator.interface import Event as Event
    from swatsim.simulator.interface import Machine as Machine
    from swatsim.simulator.interface import Timeline as Timeline
    from swatsim.simulator.machines import machine as machine
    from swatsim.simulator.mechanism import MachineConfig as MachineConfig
    from swatsim.simulator.mechanism import Mechanism as Mechanism
    from swatsim.simulator.mechanism import Preset as Preset
    from swatsim.simulator.run import simulate as simulate
    from swatsim.simulator.run import simulate_op as simulate_op
    from swatsim.simulator.timeline import timeline as timeline
    from swatsim.sweeps.run import sweep as sweep
    from swatsim.tracefile.reader import Trace as Trace
    from swatsim.tracefile.reader import open_trace as open_trace
    from swatsim.tracer.pytorch import Observer as Observer
    from swatsim.tracer.pytorch import Tracer as Tracer
    from swatsim.tracer.recorder import Recorder as Recorder
    from swatsim.whole_run import estimate_run as estimate_run
    from swatsim.workload.layer import Layer as Layer
    from swatsim.workload.lowering import LoweredOp as LoweredOp
    from swatsim.workload.lowering import lower as lower
    from swatsim.workload.training_ops import Op as Op

#: Public name -> (module, name there).
_PUBLIC = {
    "Busy": ("swatsim.simulator.interface", "Busy"),
    "Counters": ("swatsim.counters", "Counters"),
    "Event": ("swatsim.simulator.interface", "Event"),
    "Layer": ("swatsim.workload.layer", "Layer"),
    "LoweredOp": ("swatsim.workload.lowering", "LoweredOp"),
    "Machine": ("swatsim.simulator.interface", "Machine"),
    "MachineConfig": ("swatsim.simulator.mechanism", "MachineConfig"),
    "Mechanism": ("swatsim.simulator.mechanism", "Mechanism"),
    "Observer": ("swatsim.tracer.pytorch", "Observer"),
    "Op": ("swatsim.workload.training_ops", "Op"),
    "Preset": ("swatsim.simulator.mechanism", "Preset"),
    "Recorder": ("swatsim.tracer.recorder", "Recorder"),
    "Results": ("swatsim.results", "Results"),
    "SwatsimError": ("swatsim.errors", "SwatsimError"),
    "Timeline": ("swatsim.simulator.interface", "Timeline"),
    "Tracer": ("swatsim.tracer.pytorch", "Tracer"),
    "Trace": ("swatsim.tracefile.reader", "Trace"),
    "estimate": ("swatsim.reports.estimate", "estimate"),
    "estimate_images": ("swatsim.simulator.images", "estimate_images"),
    "estimate_run": ("swatsim.whole_run", "estimate_run"),
    "export": ("swatsim.reports.export", "export"),
    "load_results": ("swatsim.results", "load"),
    "lower": ("swatsim.workload.lowering", "lower"),
    "machine": ("swatsim.simulator.machines", "machine"),
    "open_trace": ("swatsim.tracefile.reader", "open_trace"),
    "compare": ("swatsim.reports.compare", "compare"),
    "per_layer": ("swatsim.reports.frames", "per_layer"),
    "per_op": ("swatsim.reports.frames", "per_op"),
    "report": ("swatsim.reports.write", "report"),
    "simulate": ("swatsim.simulator.run", "simulate"),
    "simulate_op": ("swatsim.simulator.run", "simulate_op"),
    "timeline": ("swatsim.simulator.timeline", "timeline"),
    "sweep": ("swatsim.sweeps.run", "sweep"),
}

#: Without PyTorch they are refused in a line that says so; ``from swatsim import *`` does without.
_OF_PYTORCH = () if find_spec("torch") else ("Observer", "Tracer")

__all__ = ["__version__", *(name for name in _PUBLIC if name not in _OF_PYTORCH)]


def _introduction(results: Any) -> list[str]:
    lines: list[str] = import_module("swatsim.reports.introduction").introduction(results)
    return lines


# results don't know of reports, which put them in words
displayed.tell("Results", _introduction)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'swatsim' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
