"""The networks that were trained by one method after another, whose traces ship in traces/."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pages import ROOT

import swatsim
from swatsim.tracefile import Trace

TRACES = ROOT / "traces"
#: A method's folder after its network's -> what a reader calls it.
METHODS = {
    "dense": "dense",
    "swat-u-80": "SWAT-U 80 %",
    "swat-u-90": "SWAT-U 90 %",
    "rigl-90": "RigL 90 %",
    "2to4": "2:4 (SR-STE)",
    "relu2": "dense, squared ReLU",
}


class Run(NamedTuple):
    """A network trained by a method.

    Parameters
    ----------
    label : str
        The method.
    trace : Trace
    scores : list of float
        After each part of the run, as its network says.
    steps : int
        Of the whole run.
    """

    label: str
    trace: Trace
    scores: list[float]
    steps: int


@dataclass(frozen=True)
class Network:
    """A network, and how what it learned is measured.

    Parameters
    ----------
    folder : str
        Of its traces, before the method.
    title : str
    key : str
        Of the scores in the file beside a trace.
    score : str
        What they are, unit included.
    digits : int
        After the point.
    better : int
        1 if more is better, -1 if less is.
    methods : tuple of str
        Keys of `METHODS`, as the training script has them.
    """

    folder: str
    title: str
    key: str
    score: str
    digits: int
    better: int
    methods: tuple[str, ...]

    @cached_property
    def runs(self) -> list[Run]:
        """The runs whose traces are there."""
        found = []
        for method in self.methods:
            path = TRACES / f"{self.folder}-{method}"
            said = path.with_name(path.name + ".json")
            if said.is_file():
                trace, scores = swatsim.open_trace(path), json.loads(said.read_text())[self.key]
                found.append(Run(METHODS[method], trace, scores, trace.steps[-1] + 1))
        return found


RESNET = Network(
    "resnet20-fashion-mnist",
    "ResNet-20",
    "test_accuracy_percent",
    "test accuracy, %",
    2,
    1,
    ("dense", "swat-u-80", "swat-u-90", "rigl-90", "2to4"),
)
GPT = Network(
    "gpt-characters",
    "GPT on characters",
    "test_loss_nats",
    "test loss, nats a character",
    3,
    -1,
    ("dense", "swat-u-80", "2to4", "relu2"),
)
