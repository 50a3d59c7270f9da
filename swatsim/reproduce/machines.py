"""Two networks under one method after another, on every machine, all of them made alike.

All have as many multipliers, the same clock, value type, buffers, DRAM and vector unit, so that
times compare what machines skip and how well their arrays are filled. They are of whole steps: the
layers, and everything else. Masks are synthetic: nothing is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swatsim.columns import Role
from swatsim.policies import Dense, RigL, SrSte, SwatU
from swatsim.policies.interface import Policy
from swatsim.reports import tables
from swatsim.results import Results
from swatsim.simulator.machines import machine
from swatsim.simulator.run import simulate
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.networks import network
from swatsim.workload.phases import OTHER

SEED = 1
MULTIPLIERS = 4096

#: What all have: two bytes a value, 4 TMAC/s, 256 GB/s, buffers that keep up with the PEs, and a
#: vector unit that runs what follows one another value by value, an optimizer for one, as one.
COMMON: Mapping[str, Any] = {
    "dtype": "bf16",
    "clock_mhz": 1000,
    "dram": "hbm2",
    "dram_channels": 8,
    "dram_mb_per_s": "auto",
    "dram_latency_ns": "auto",
    "fusion": "elementwise",
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
    equal : mapping of str to int or str
        What gives it `MULTIPLIERS`, and tokens as a plane, beside `COMMON`.
    """

    preset: str
    equal: Mapping[str, Any]

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
        Entry("scnn", {"pe_h": 16, "pe_w": 16, "positions": "square"}),
        Entry("scnn-queued", {"pe_h": 16, "pe_w": 16, "positions": "square"}),
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


@dataclass(frozen=True)
class Workload:
    """A network of the comparison.

    Parameters
    ----------
    network, title : str
    samples : int
        Of a step, unless told: each image takes a minute or two, a sequence some more.
    what : str
        What a sample is.
    methods : tuple of str
        Keys of `METHODS`.
    """

    network: str
    title: str
    samples: int
    what: str
    methods: tuple[str, ...]


#: Title -> network: the list that tables and pictures follow.
WORKLOADS: Mapping[str, Workload] = {
    it.title: it
    for it in (
        Workload("resnet50", "ResNet-50", 4, "image", tuple(METHODS)),
        Workload(
            "gpt2-small",
            "GPT-2 small",
            1,
            "sequence of 1024 tokens",
            ("dense", "SWAT-U 80 %", "2:4", "RigL 90 %"),
        ),
    )
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
    network, skips, machine, method : str
        The network by its title.
    samples : int
    uneven : bool
        Whether channels are as uneven as trained ones.
    time_ms : float
        Of the whole step, memory included.
    fprop_ms, dgrad_ms, wgrad_ms, other_ms : float
        What of it are the layers, and everything else.
    policy_ms : float
        What of everything else is the method's own: choosing masks.
    energy_mj : float
        Of the whole step.
    ideal_ms : float
        Of as many multipliers that do nothing but effectual multiply-accumulates, each op's in
        whole cycles, memory left out.
    speed_up : float
        Of the whole step, over the same machine with nothing skipped and everything moved dense.
    speed_up_layers : float
        Of its layers alone.
    dram : float
        Share of the layers' time in which PEs waited for DRAM.
    lost_most_to : str
        The bucket that took most of the layers' lane-cycles without effectual work.
    compressed_fprop, compressed_dgrad, compressed_wgrad : float
        Share of the op's multiply-accumulates, over the layers, of which an operand ran compressed
        n:m.
    obeying_fprop, obeying_dgrad, obeying_wgrad : float
        Share of the groups of m values along the sums, of the op's first operand (weights, in wgrad
        activations), that are n:m; 0 of a machine without a pattern.
    """

    network: str
    skips: str
    machine: str
    method: str
    samples: int
    uneven: bool
    time_ms: float
    fprop_ms: float
    dgrad_ms: float
    wgrad_ms: float
    other_ms: float
    policy_ms: float
    energy_mj: float
    ideal_ms: float
    speed_up: float
    speed_up_layers: float
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
    def layers_ms(self) -> float:
        """Time of the layers alone."""
        return self.fprop_ms + self.dgrad_ms + self.wgrad_ms

    @property
    def of_ideal(self) -> float:
        """Share of what the ideal would do in the time that the layers take."""
        return self.ideal_ms / self.layers_ms

    @property
    def elsewhere(self) -> float:
        """Share of the step's time that is everything else."""
        return self.other_ms / self.time_ms


def measure(
    titles: Sequence[str] = tuple(WORKLOADS),
    methods: Sequence[str] | None = None,
    *,
    samples: int | None = None,
    uneven: bool = True,
    progress: Progress | None = None,
    store: bool = True,
) -> list[Step]:
    """Return what a step of each method takes on each machine, networks and methods outermost.

    Parameters
    ----------
    titles : sequence of str
        Keys of `WORKLOADS`.
    methods : sequence of str, optional
        Keys of `METHODS`; by default those of each network.
    samples : int, optional
        Of a step; by default as many as each network has.
    uneven : bool
        Whether channels are as uneven as trained ones.
    progress : callable of (int, int), optional
        Told how many of how many simulations are done.
    store : bool
        Whether what was counted before is used, as in `swatsim.simulate`.
    """
    steps: list[Step] = []
    runs = [(WORKLOADS[it], method) for it in titles for method in methods or WORKLOADS[it].methods]
    total = len(runs) * len(list(entries()))
    for workload, method in runs:
        chosen = replace(workload, samples=samples or workload.samples)
        with tempfile.TemporaryDirectory(prefix="swatsim-") as folder:
            path = Path(folder) / "trace"
            write_masks(chosen, METHODS[method], path, uneven)
            for found in on_all(path, store):
                steps.append(_step(chosen, method, uneven, *found))
                if progress:
                    progress(len(steps), total)
    return steps


def write_masks(workload: Workload, policy: Policy, path: Path, uneven: bool) -> None:
    """Write a network's masks under a policy, one step of them."""
    table = network(workload.network)
    synthesize(table, path, policy=policy, batch=workload.samples, seed=SEED, uneven=uneven)


def on_all(trace: Path, store: bool) -> Iterator[tuple[str, Entry, Results]]:
    """Yield the results of each machine, two simulated at a time."""
    every = list(entries())
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda it: simulate(trace, it[1].quick, workers=1, store=store), every)
        for (skips, entry), results in zip(every, found, strict=True):
            yield skips, entry, results


def _step(
    workload: Workload, method: str, uneven: bool, skips: str, entry: Entry, results: Results
) -> Step:
    of_layers = [row for row in results.rows if row["op"] in OPS]
    layers = tables.summarise(Results(of_layers, results.provenance))
    *ops, step = tables.per_op(layers)
    rows = tables.per_layer(layers)
    whole, dense = (_cycles(results, role) for role in (Role.MACHINE, Role.BASELINE))
    other, policy = (_cycles(results, Role.MACHINE, *of) for of in ((OTHER,), (OTHER, "policy")))
    waited = step["lane_cycles_dram"] + step["lane_cycles_fill_drain"]
    return Step(
        workload.title,
        skips,
        entry.preset,
        method,
        workload.samples,
        uneven,
        time_ms=_ms(whole, step),
        **{f"{row['op']}_ms": _ms(row["cycles"], step) for row in ops},
        other_ms=_ms(other, step),
        policy_ms=_ms(policy, step),
        energy_mj=sum(row["energy_pj"] for row in _of_role(results, Role.MACHINE)) / 1e9,
        ideal_ms=_ms(step["cycles_ideal"], step),
        speed_up=dense / whole,
        speed_up_layers=step["speed_up"],
        dram=waited / step["lane_cycles"],
        lost_most_to=tables.lost_most_to(step),
        **{f"compressed_{op}": _compressed(rows, op) for op in OPS},
        **{f"obeying_{op}": _obeying(rows, op) for op in OPS},
    )


def _of_role(results: Results, role: Role) -> Iterator[Mapping[str, Any]]:
    return (row for row in results.rows if row["role"] == role)


def _cycles(results: Results, role: Role, op: str = "", phase: str = "") -> int:
    """Return the cycles of a role's rows: of all, of an op, of a phase of an op."""
    rows = _of_role(results, role)
    return sum(
        row["cycles"] for row in rows if op in ("", row["op"]) and phase in ("", row["phase"])
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
