"""SWAT's published speed-ups, and what machines make of the same network.

The authors estimated them with the simulator DNNsim and did not state the geometry; nor is it known
how dense their activations were. So nothing is fitted here: the network's 53 convolutions are
simulated on synthetic masks, over the activation densities that trained networks have, with
channels that are all alike and with channels as uneven as trained ones, on each machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from swatsim.policies import SwatU
from swatsim.reports import tables
from swatsim.simulator.machines import machine
from swatsim.simulator.run import simulate
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.networks import network

SOURCE = "the authors' NeurIPS 2020 poster (1896): ResNet-50 on ImageNet, estimated with DNNsim"
#: Sparsity in percent -> published speed-up.
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "forward": {0: 1.0, 80: 3.3, 90: 5.6},
    "backward": {0: 1.0, 80: 3.4, 90: 6.3},
}

NETWORK = "resnet50"
SEED = 1
#: Half of a normal batch-normalised value is cut off by the ReLU: what is chosen where one density
#: must be.
USUAL = 0.5
ACT_DENSITIES = (0.3, 0.4, USUAL, 1.0)
SPARSITIES = (0, 50, 70, 80, 90)
#: The machine that SWAT's figures fit, the same with dgrad split, and the one-sided ones.
MACHINES = ("swat", "scnn", "tensordash", "bit-tactical")
#: Products that a bank holds back, in the machine that shows what queues make of it. Three open
#: implementations of SCNN have 5, 8 and 32; what SWAT's authors had is not known.
QUEUE = 8
QUEUED = f"swat[bank_queue={QUEUE}]"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SpeedUp:
    """One op of all convolutions on one machine.

    Parameters
    ----------
    machine : str
    op : {"fprop", "dgrad", "wgrad"}
    sparsity : int
        In percent; of weights, in wgrad of activations.
    act_density : float
        Natural density of the activations.
    uneven : bool
        Whether channels are as uneven as trained ones.
    speed_up, over_alternative : float
        Over the machine's dense baseline, and over its other one.
    cycles : int
    """

    machine: str
    op: OpName
    sparsity: int
    act_density: float
    uneven: bool
    speed_up: float
    over_alternative: float
    cycles: int


@dataclass(frozen=True)
class Setting:
    """One synthetic trace."""

    sparsity: int
    act_density: float
    uneven: bool

    @property
    def runs(self) -> Iterator[tuple[str, Sequence[OpName]]]:
        """Yield which machines run which of its ops: only fprop depends on the density."""
        if self.act_density == USUAL:
            yield from ((name, OPS) for name in MACHINES)
            yield QUEUED, ("fprop", "dgrad")
        else:
            yield "swat", ("fprop",)


def settings(sparsities: Sequence[int] = SPARSITIES) -> list[Setting]:
    """Return the traces: all densities where there is a published figure, else the usual one.

    Without Top-K, evenness makes no difference to the weights.
    """
    published = PUBLISHED["forward"]
    return [
        Setting(sparsity, density, uneven)
        for sparsity, density, uneven in product(sparsities, ACT_DENSITIES, (False, True))
        if (density == USUAL or sparsity in published) and not (uneven and sparsity == 0)
    ]


def measure(
    chosen: Sequence[Setting] | None = None,
    *,
    batch: int = 1,
    progress: Progress | None = None,
    store: bool = True,
) -> list[SpeedUp]:
    """Return the speed-ups of synthetic traces, simulated two at a time.

    Parameters
    ----------
    chosen : sequence of Setting, optional
        All by default.
    batch : int
        Images.
    progress : callable of (int, int), optional
        Told how many of how many traces are done.
    store : bool
        Whether what was counted before is used, as in `swatsim.simulate`.
    """
    wanted = settings() if chosen is None else chosen
    speed_ups: list[SpeedUp] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        measured = pool.map(lambda setting: _measure(setting, batch, store), wanted)
        for done, some in enumerate(measured, start=1):
            speed_ups += some
            if progress:
                progress(done, len(wanted))
    return speed_ups


def _measure(setting: Setting, batch: int, store: bool) -> list[SpeedUp]:
    layers = [layer for layer in network(NETWORK).layers if layer.kind == "conv"]
    with tempfile.TemporaryDirectory(prefix="swatsim-") as folder:
        trace = synthesize(
            layers,
            Path(folder) / "trace",
            policy=SwatU(setting.sparsity / 100),
            batch=batch,
            seed=SEED,
            act_density=setting.act_density,
            uneven=setting.uneven,
        )
        return [
            _speed_up(name, row, setting)
            for name, ops in setting.runs
            for row in tables.per_op(
                # compute cycles: what SWAT's figures were counted in
                simulate(trace, machine(name, memory="none"), ops=ops, workers=1, store=store)
            )[:-1]
        ]


def _speed_up(name: str, row: tables.Row, setting: Setting) -> SpeedUp:
    (other,) = row["speed_ups_alternative"].values()
    return SpeedUp(
        machine=name,
        op=row["op"],
        sparsity=setting.sparsity,
        act_density=setting.act_density,
        uneven=setting.uneven,
        speed_up=row["speed_up"],
        over_alternative=other,
        cycles=row["cycles_compute"],
    )


def pick(
    measured: Sequence[SpeedUp],
    machine: str,
    op: OpName,
    sparsity: int,
    *,
    act_density: float = USUAL,
    uneven: bool = False,
) -> float:
    """Return one speed-up."""
    return _find(measured, machine, op, sparsity, act_density, uneven).speed_up


def together(
    measured: Sequence[SpeedUp], machine: str, ops: Sequence[OpName], sparsity: int
) -> float:
    """Return the speed-up of several ops one after another."""
    each = [_find(measured, machine, op, sparsity, USUAL, uneven=False) for op in ops]
    return sum(one.speed_up * one.cycles for one in each) / sum(one.cycles for one in each)


def _find(
    measured: Sequence[SpeedUp],
    machine: str,
    op: OpName,
    sparsity: int,
    act_density: float,
    uneven: bool,
) -> SpeedUp:
    wanted = (machine, op, sparsity, act_density, uneven and sparsity > 0)
    return next(
        one
        for one in measured
        if (one.machine, one.op, one.sparsity, one.act_density, one.uneven) == wanted
    )
