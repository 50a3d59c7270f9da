"""One network under one method after another, on every machine, all of them made alike.

All have as many multipliers, the same clock, value type, buffers and DRAM, so that times compare
what machines skip and how well their arrays are filled. Masks are synthetic: nothing is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swatsim.policies import Dense, RigL, SrSte, SwatU
from swatsim.policies.interface import Policy
from swatsim.reports import tables
from swatsim.simulator.machines import machine
from swatsim.simulator.mechanism import ConfiguredMachine
from swatsim.simulator.run import simulate
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.networks import network

NETWORK = "resnet50"
SEED = 1
#: Images of a step, unless told: each takes a minute or two.
BATCH = 4
MULTIPLIERS = 4096

#: What all have: two bytes a value, 4 TMAC/s, 256 GB/s, and buffers that keep up with the PEs.
COMMON: Mapping[str, Any] = {
    "dtype": "bf16",
    "clock_mhz": 1000,
    "dram": "hbm2",
    "dram_channels": 8,
    "dram_mb_per_s": "auto",
    "dram_latency_ns": "auto",
    **{f"buffer_{name}_kib": 4096 for name in ("a", "b", "out")},
    **{f"buffer_{name}_banks": 64 for name in ("a", "b", "out")},
    **{f"buffer_{name}_words": 16384 for name in ("a", "b", "out")},
}


@dataclass(frozen=True)
class Entry:
    """A machine of the comparison.

    Parameters
    ----------
    preset : str
    equal : mapping of str to int
        What gives it `MULTIPLIERS`, beside `COMMON`.
    """

    preset: str
    equal: Mapping[str, int]

    @property
    def machine(self) -> ConfiguredMachine:
        """The machine, made like the others."""
        return machine(self.preset, **self.equal, **COMMON)

    @property
    def quick(self) -> ConfiguredMachine:
        """The same, whose dense baseline stands in for what no table here shows.

        What operands without a zero would take is simulated as long as a step is.
        """
        found = self.machine
        known = found.mechanism
        less = replace(known, alternatives={}, simulate_dense_operands=known.simulate_dense)
        return replace(found, mechanism=less)


#: What is said of a machine that only says what others can't pass.
BOUND = "what none can pass"

#: By what they skip: the list that tables and pictures follow.
MACHINES: Mapping[str, Sequence[Entry]] = {
    "skips nothing": (
        Entry("dadiannao", {"tiles": 1}),
        Entry("scale-sim-os", {"rows": 64, "columns": 64}),
        Entry("scale-sim-ws", {"rows": 64, "columns": 64}),
    ),
    "2:4 of one operand": (Entry("stc", {"cores": 4}),),
    "zeros of one operand": (
        Entry("bit-tactical", {"tiles": 1}),
        Entry("tensordash", {"tiles": 16}),
    ),
    "zeros of both operands": (
        Entry("scnn", {"pe_h": 16, "pe_w": 16}),
        Entry("scnn-queued", {"pe_h": 16, "pe_w": 16}),
        Entry("swat", {"pe_h": 16, "pe_w": 16}),
        Entry("sparten", {"clusters": 128}),
    ),
    BOUND: (Entry("ideal", {"multipliers": MULTIPLIERS}),),
}

#: Name to what makes the masks.
METHODS: Mapping[str, Policy] = {
    "dense": Dense(),
    "SWAT-U 80 %": SwatU(0.8),
    "SWAT-U 90 %": SwatU(0.9),
    "2:4": SrSte(2, 4),
    "RigL 90 %": RigL(0.9),
}

Progress = Callable[[int, int], None]


def entries() -> Iterator[tuple[str, Entry]]:
    """Yield each machine with what it skips."""
    yield from ((skips, entry) for skips, some in MACHINES.items() for entry in some)


@dataclass(frozen=True)
class Step:
    """What a training step of one method takes on one machine.

    Parameters
    ----------
    skips, machine, method : str
    images : int
    uneven : bool
        Whether channels are as uneven as trained ones.
    time_ms, fprop_ms, dgrad_ms, wgrad_ms : float
        Memory included.
    energy_mj : float
    ideal_ms : float
        Of as many multipliers that do nothing but effectual multiply-accumulates, each op's in
        whole cycles, memory left out.
    speed_up : float
        Over the same machine with nothing skipped and everything moved dense.
    dram : float
        Share of the time in which PEs waited for DRAM.
    lost_most_to : str
        The bucket that took most of the lane-cycles without effectual work.
    compressed_fprop, compressed_dgrad, compressed_wgrad : float
        Share of the op's multiply-accumulates, over the layers, of which an operand ran compressed
        n:m.
    obeying_fprop, obeying_dgrad, obeying_wgrad : float
        Share of the groups of m values along the sums, of the op's first operand (weights, in wgrad
        activations), that are n:m; 0 of a machine without a pattern.
    """

    skips: str
    machine: str
    method: str
    images: int
    uneven: bool
    time_ms: float
    fprop_ms: float
    dgrad_ms: float
    wgrad_ms: float
    energy_mj: float
    ideal_ms: float
    speed_up: float
    dram: float
    lost_most_to: str
    compressed_fprop: float
    compressed_dgrad: float
    compressed_wgrad: float
    obeying_fprop: float
    obeying_dgrad: float
    obeying_wgrad: float

    @property
    def bound(self) -> bool:
        """Whether the machine is none that one could build."""
        return self.skips == BOUND

    @property
    def of_ideal(self) -> float:
        """Share of what the ideal would do in the same time."""
        return self.ideal_ms / self.time_ms


def measure(
    methods: Sequence[str] = tuple(METHODS),
    *,
    batch: int = BATCH,
    uneven: bool = True,
    progress: Progress | None = None,
) -> list[Step]:
    """Return what a step of each method takes on each machine, methods outermost.

    Parameters
    ----------
    methods : sequence of str
        Keys of `METHODS`.
    batch : int
        Images.
    uneven : bool
        Whether channels are as uneven as trained ones.
    progress : callable of (int, int), optional
        Told how many of how many simulations are done.
    """
    steps: list[Step] = []
    total = len(methods) * len(list(entries()))
    for method in methods:
        with tempfile.TemporaryDirectory(prefix="swatsim-") as folder:
            path = Path(folder) / "trace"
            write_masks(METHODS[method], path, batch, uneven)
            for found in on_all(path):
                steps.append(_step(*found, method, batch, uneven))
                if progress:
                    progress(len(steps), total)
    return steps


def write_masks(policy: Policy, path: Path, batch: int, uneven: bool) -> None:
    """Write the network's masks under a policy, one step of them."""
    layers = network(NETWORK)
    synthesize(layers, path, policy=policy, batch=batch, seed=SEED, uneven=uneven)


def on_all(trace: Path) -> Iterator[tuple[str, Entry, tables.Summary]]:
    """Yield the results of each machine, two simulated at a time."""
    every = list(entries())
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda it: _run(trace, it[1]), every)
        for (skips, entry), results in zip(every, found, strict=True):
            yield skips, entry, results


def _run(trace: Path, entry: Entry) -> tables.Summary:
    return tables.summarise(simulate(trace, entry.quick, workers=1))


def _step(
    skips: str, entry: Entry, results: tables.Summary, method: str, batch: int, uneven: bool
) -> Step:
    *ops, step = tables.per_op(results)
    times = {f"{row['op']}_ms": _ms(row["cycles"], step) for row in ops}
    waited = step["lane_cycles_dram"] + step["lane_cycles_fill_drain"]
    rows = tables.per_layer(results)
    return Step(
        skips,
        entry.preset,
        method,
        batch,
        uneven,
        time_ms=_ms(step["cycles"], step),
        **times,
        energy_mj=step["energy_pj"] / 1e9,
        ideal_ms=_ms(step["cycles_ideal"], step),
        speed_up=step["speed_up"],
        dram=waited / step["lane_cycles"],
        lost_most_to=tables.lost_most_to(step),
        **{f"compressed_{op}": _compressed(rows, op) for op in OPS},
        **{f"obeying_{op}": _obeying(rows, op) for op in OPS},
    )


def _ms(cycles: int, row: tables.Row) -> float:
    return cycles / (1000 * int(row["clock_mhz"]))


def _compressed(rows: Sequence[Mapping[str, Any]], op: OpName) -> float:
    """Return of which share of an op's multiply-accumulates an operand ran compressed."""
    own = [row for row in rows if row["op"] == op]
    compressed = sum(row["macs_dense"] for row in own if row["compressed"])
    return float(compressed / sum(row["macs_dense"] for row in own))


def _obeying(rows: Sequence[Mapping[str, Any]], op: OpName) -> float:
    own = [row for row in rows if row["op"] == op]
    groups = sum(row["pattern_groups_a"] for row in own)
    return float(sum(row["pattern_obeying_a"] for row in own) / groups) if groups else 0.0


def by_machine(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """Return the steps of each machine, in the order of the methods."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.machine, []).append(step)
    return found


def about(steps: Sequence[Step]) -> list[str]:
    """Return in words what the figures are of."""
    first = steps[0]
    images = f"{first.images} image{'s' * (first.images != 1)}"
    channels = "as uneven as trained ones" if first.uneven else "all alike"
    config = next(entries())[1].machine.config
    return [
        f"{NETWORK}: a training step of {images}, all layers, in ms",
        f"each machine with {MULTIPLIERS} multipliers, {config.clock_mhz} MHz, "
        f"{config.dtype}, {config.bandwidth_mb_per_s // 1000} GB/s",
        f"synthetic masks of random weights, channels {channels}",
    ]


def causes(steps: Sequence[Step]) -> list[str]:
    """Return in words why figures are as they are."""
    found = [
        "Dense training has zeros too: half of the activations, behind a ReLU, and machines that "
        "skip zeros skip those",
        "SWAT-U drops weights forward and for the input gradient, activations for the weight "
        "gradient; 2:4 and RigL drop weights alone, so that a weight gradient has a ReLU's zeros "
        "and no others; bit-tactical schedules weights, and its weight gradient is dense",
        "PEs of scnn, scnn-queued and swat lie on the image's plane, 16 x 16 of them: small planes "
        "leave most of them without a position",
    ]
    packed = [step for step in steps if _share_compressed(step)]
    found += [_of_pattern(step) for step in packed]
    looked = [step for step in steps if step not in packed and step.obeying_wgrad]
    if looked:
        groups = ", ".join(f"{step.method} {step.obeying_fprop:.1%}" for step in looked)
        found.append(
            "an operand is compressed if each of its groups obeys. Under the other methods none "
            f"is, for they choose weights without regard to groups: of those forward {groups} obey"
        )
    return found


def _share_compressed(step: Step) -> float:
    return float(sum(getattr(step, f"compressed_{op}") for op in OPS))


def _of_pattern(step: Step) -> str:
    """Return how much of a step ran compressed, and how nearly the rest would."""
    shares = ", ".join(f"{op} {getattr(step, f'compressed_{op}'):.0%}" for op in OPS)
    return (
        f"{step.method} on {step.machine}: compressed are, of each op's multiply-accumulates, "
        f"{shares}. The mask has its pattern along the channels, which fprop adds up; dgrad adds "
        f"up along the filters, where {step.obeying_dgrad:.0%} of the groups obey (a transposable "
        "mask has both), and wgrad reads no weights"
    )
