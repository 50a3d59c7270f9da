"""A whole step as events: they add up to what `simulate` counts, whatever is drawn apart."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.counters import BUCKETS
from swatsim.errors import ConfigError, SwatsimError
from swatsim.simulator import step_tiles, step_timeline, step_tracks
from swatsim.simulator.memory.simulate import Schedule
from swatsim.simulator.step_tiles import spread
from swatsim.tracefile import Trace
from tests.simulator.test_other import work
from tests.simulator.test_timeline import validate
from tests.traces import make_trace

SMALL = {"buffer_a_kib": 1, "buffer_b_kib": 1, "buffer_out_kib": 2, "dram_mb_per_s": 700}
#: Presets and parameters: few and many blocks, packed and pruned, kept on chip, no end to DRAM.
MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("tensordash", {}),
    "blocks": ("tensordash", SMALL),
    "kept": ("scnn", {"keep_on_chip": True, "clock_mhz": 777}),
    "pruned": ("stc", {"prune_each_step": True}),
    "cluster": ("sparten", {"dram_mb_per_s": 3333}),
    "ideal dram": ("tpu-v1", {"dram": "ideal"}),
    "no memory": ("dadiannao", {"memory": "none"}),
}


OTHERS = [
    work(("relu", 4000, 9000, 1), module="block"),
    work(("sgd", 3, 70_001, 17), module="", phase="optimizer"),
    work(("topk", 90, 8, 8), module="fc", phase="policy"),
]


class Own:
    """A machine of a user's own, without a memory system."""

    name = "own"

    def simulate_op(self, op: Any) -> Any:
        return swatsim.machine("tensordash").simulate_op(op)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("steps") / "t", (0, 7), 2, others=OTHERS)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A layer whose weights are 2:4."""
    layer = swatsim.Layer(name="fc", kind="linear", C=64, K=32)
    path = tmp_path_factory.mktemp("steps") / "packed"
    with swatsim.Recorder(path, batch_size=4) as recorder:
        recorder.declare(layer)
        with recorder.step(7) as step:
            step.others = OTHERS
            weight = np.zeros((32, 64), bool)
            weight[:, ::2] = True
            for op, operand in (("fprop", "weight"), ("fprop", "act")):
                mask = weight if operand == "weight" else np.ones((4, 64), bool)
                step.operand("fc", op, operand, mask)
    return swatsim.open_trace(path)


def spans(events: list[dict[str, Any]], thread: tuple[int, int], key: str = "name") -> Counter[str]:
    """Add up the cycles of a thread's slices, by their names or categories."""
    cycles: Counter[str] = Counter()
    for event in events:
        if event["ph"] in "Xi" and (event["pid"], event["tid"]) == thread:
            cycles[event[key]] += event.get("dur", 0)
    return cycles


def integral(events: list[dict[str, Any]], name: str, end: int) -> float:
    """Add up a counter's value over time."""
    found = [
        (it["ts"], it["args"]["value"]) for it in events if it["ph"] == "C" and it["name"] == name
    ]
    nexts = [*(at for at, _ in found[1:]), end][: len(found)]
    return sum(value * (until - at) for (at, value), until in zip(found, nexts, strict=True))


def machine_of(name: str) -> Any:
    preset, parameters = MACHINES[name]
    return swatsim.machine(preset, **parameters)


@pytest.mark.parametrize("blocks", [64, 1, 3])
@pytest.mark.parametrize("name", MACHINES)
def test_events_add_up_to_results(trace: Trace, packed: Trace, name: str, blocks: int) -> None:
    machine, trace = machine_of(name), packed if name == "pruned" else trace
    made = swatsim.timeline(trace, machine, step=7, blocks=blocks)
    events, about = made["traceEvents"], made["otherData"]
    validate(events)
    found = swatsim.simulate(trace, machine, steps=[7], workers=1).rows
    rows = [row for row in found if row["role"] == "machine"]
    layers = [row for row in rows if row["op"] != "other"]
    others = [row for row in rows if row["op"] == "other"]
    assert len(others) == 3
    assert name != "pruned" or layers[0]["lane_cycles_prune"]
    total = sum(row["cycles"] for row in rows)
    assert about["cycles"] == total == max(it["ts"] + it.get("dur", 0) for it in events)
    # ops, everything else and phases
    assert spans(events, (1, 1)) == {f"{it['layer']} {it['op']}": it["cycles"] for it in layers}
    assert spans(events, (1, 2)) == {
        f"{it['layer']}: {it['function']}": it["cycles"] for it in others
    }
    assert sum(spans(events, (1, 0)).values()) == total
    # blocks: what PEs do is computing or waiting, and each wait has its bucket
    lanes = layers[0]["pes"] * layers[0]["lanes"]
    waits = spans(events, (2, 2), "cat")
    for bucket in ("dram", "fill_drain", "prune"):
        assert waits[bucket] * lanes == sum(it[f"lane_cycles_{bucket}"] for it in layers)
    computing = sum(spans(events, (2, 1)).values())
    buffers = sum(it["lane_cycles_buffer"] for it in layers) // lanes
    assert computing == sum(it["cycles_compute"] for it in layers) + buffers
    check_tiles(events, trace, machine, layers)
    # counters
    close = {"rel": 1e-9, "abs": 1e-6}
    for bucket, look in BUCKETS.items():
        of = sum(it[bucket] for it in rows)
        assert integral(events, look.label, total) == pytest.approx(of, **close)
    waited = layers[0]["pes"] * (waits["dram"] + waits["fill_drain"])
    assert integral(events, step_tracks.WAITING, total) == pytest.approx(waited, **close)
    effectual = sum(it["lane_cycles_effectual"] for it in layers)
    assert integral(events, step_tracks.EFFECTUAL, total) == pytest.approx(effectual, **close)
    check_bytes(events, rows, machine.config)


def check_tiles(
    events: list[dict[str, Any]], trace: Trace, machine: Any, layers: list[dict[str, Any]]
) -> None:
    """Hold what some tiles are drawn to do to what the machine says, op by op."""
    step, every = trace.step(7), []
    for layer, name in step.ops():
        op = swatsim.lower(step.op(layer, name))
        every.append((machine.simulate_op(op).cycles_compute, machine.busy(op)))
    tiles = spread(every[0][1].own.size, step_timeline.TILES)
    cycles = sum(it["cycles"] for it in layers)
    pruned = sum(it["lane_cycles_prune"] for it in layers) // (
        layers[0]["pes"] * layers[0]["lanes"]
    )
    compute = sum(compute for compute, _ in every)
    for thread, tile in enumerate(tiles):
        spent = spans(events, (step_tracks.TILES, thread), "cat")
        assert spent["work"] == sum(busy.own[tile] for _, busy in every)
        assert spent["waiting"] == sum(busy.waits[tile] for _, busy in every)
        assert spent["work"] + spent["waiting"] + spent["unmapped"] == compute
        assert sum(spent.values()) == cycles - pruned
    drawn = [it for it in events if it["ph"] != "M" and it["pid"] == step_tracks.TILES]
    assert len(drawn) <= step_tiles.EVENTS_OF_TILE * len(tiles) * len(every)
    assert sum(it["args"]["cycles"] for it in drawn) == sum(it["dur"] for it in drawn)


def check_bytes(events: list[dict[str, Any]], rows: list[dict[str, Any]], config: Any) -> None:
    """Hold what DRAM is drawn to carry to what it carries."""
    names = [name for name in rows[0] if name.startswith("dram_bytes_")]
    everything = sum(row[name] for row in rows for name in names)
    moved = sum(it["args"].get("bytes", 0) for it in events if it["pid"] == 2 and it["ph"] != "M")
    if not config.finite_mb_per_s:
        assert not moved
        assert not any(it["name"] == step_tracks.DRAM for it in events)
        return
    assert moved == everything - sum(row["dram_bytes_vector"] for row in rows)
    end = sum(row["cycles"] for row in rows)
    drawn = integral(events, step_tracks.DRAM, end) * 1000 / config.clock_mhz
    assert round(drawn) == everything


def test_a_machine_of_ones_own_has_ops_alone(trace: Trace) -> None:
    made = swatsim.timeline(trace, Own())
    validate(made["traceEvents"])
    rows = swatsim.simulate(trace, Own(), steps=[0]).rows
    assert made["otherData"]["cycles"] == sum(
        it["cycles"] for it in rows if it["role"] == "machine"
    )
    assert not spans(made["traceEvents"], (2, 2))
    title = made["traceEvents"][0]["args"]["name"]
    assert (
        title
        == "own: step 0 of t, 2 of 8 images; its layers alone: own says nothing of a vector unit"
    )


@pytest.mark.parametrize(
    ("tiles", "said", "threads"),
    [
        (0, "none: none were asked for", []),
        (2, "2 of 32 clusters, evenly spread", ["cluster 0", "cluster 31"]),
        (99, "32 clusters", [f"cluster {i}" for i in range(32)]),
    ],
)
def test_which_tiles_are_drawn_is_said(
    trace: Trace, tiles: int, said: str, threads: list[str]
) -> None:
    made = swatsim.timeline(trace, "sparten", tiles=tiles)
    validate(made["traceEvents"])
    assert made["otherData"]["tiles_drawn"] == said
    own = [it for it in made["traceEvents"] if it["pid"] == step_tracks.TILES]
    named = [it["args"]["name"] for it in own if it["name"] in ("process_name", "thread_name")]
    title = f"tiles: {said}; of each op own work first, then waiting"
    assert named == ([title, *threads] if threads else [])
    assert threads or not own


def test_a_machine_that_says_nothing_of_its_tiles_has_none(trace: Trace) -> None:
    for machine in ("ideal", Own()):
        made = swatsim.timeline(trace, machine)
        name = machine if isinstance(machine, str) else machine.name
        assert made["otherData"]["tiles_drawn"] == f"none: {name} does not say what its tiles do"
        assert not [it for it in made["traceEvents"] if it["pid"] == step_tracks.TILES]


def test_what_a_machine_says_wrongly_of_its_tiles_is_refused(trace: Trace) -> None:
    own = swatsim.machine("tensordash")
    more = swatsim.Busy("tile", np.array([10**9]), np.array([0]))
    wrong = replace(own, mechanism=replace(own.mechanism, busy=lambda op, config: more))
    with pytest.raises(ConfigError, match="must be at most the op's compute cycles"):
        swatsim.timeline(trace, wrong)
    assert swatsim.timeline(trace, wrong, tiles=0)


def test_tiles_leave_fewer_blocks_apart(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timeline, "EVENTS", 11 * (4 * 5 + 10 * 3))
    made = swatsim.timeline(trace, machine_of("blocks"), tiles=5)
    assert made["otherData"]["blocks_apart"].startswith("at most 3 of an op; ")


def test_ops_are_in_the_order_of_a_step(trace: Trace) -> None:
    events = swatsim.timeline(trace, "tensordash")["traceEvents"]
    ran = [
        it["name"] for it in events if it["ph"] == "X" and it["pid"] == 1 and it["tid"] in (1, 2)
    ]
    layers = ("stem", "block.conv", "depthwise", "fc")
    backward = [f"{layer} {op}" for layer in reversed(layers) for op in ("dgrad", "wgrad")]
    backward.remove("stem dgrad")
    names = [f"{layer} fprop" for layer in layers]
    assert ran == [*names, "block: relu", *backward, "model: sgd", "fc: topk"]
    phases = [it["name"] for it in events if it["ph"] == "X" and it["tid"] == 0 and it["pid"] == 1]
    assert phases == ["forward", "backward", "optimizer", "policy"]


def test_blocks_that_are_merged_are_said_and_fewer(trace: Trace) -> None:
    def drawn(blocks: int) -> tuple[int, str]:
        made = swatsim.timeline(trace, machine_of("blocks"), blocks=blocks)
        apart = [it for it in made["traceEvents"] if it.get("cat") == "computing"]
        return len(apart), made["otherData"]["blocks_apart"]

    rows = swatsim.simulate(trace, machine_of("blocks"), steps=[0]).rows
    blocks = [row["blocks"] for row in rows if row["role"] == "machine" and row["blocks"]]
    every, ops = sum(blocks), len(blocks)
    assert drawn(1000)[1] == "at most 1000 of an op; 0 are drawn with others"
    assert drawn(1) == (ops, f"at most 1 of an op; {every - ops} are drawn with others")
    assert ops < drawn(2)[0] <= 2 * ops
    assert every > 2 * ops


def test_groups_by_hand() -> None:
    """Five blocks as two: loads run a block ahead of computing, stores a block behind."""
    schedule = Schedule(
        ends=np.array([4, 10, 20, 30, 40, 50, 53]),
        loaded=np.array([8, 1, 2, 3, 4, 0, 0]),
        drained=np.array([0, 0, 10, 20, 30, 40, 50]),
        computing=np.array([0, 5, 6, 7, 8, 9, 0]),
    )
    found = step_tracks._groups(schedule, 2)
    assert found.ends == [4, 20, 50, 53]
    assert found.loaded == [8, 3, 7, 0]
    assert found.drained == [0, 10, 90, 50]
    assert found.computing == [0, 11, 24, 0]
    assert [words[0] for words in found.blocks[:3]] == ["block 1", "blocks 2 to 3", "blocks 4 to 5"]
    assert [words[1] for words in found.blocks[1:3]] == ["blocks 1 to 2", "blocks 3 to 5"]
    assert [words[2] for words in found.blocks[1:]] == ["block 1", "blocks 2 to 4", "block 5"]
    assert step_tracks._groups(schedule, 99).ends == schedule.ends.tolist()


def test_bytes_of_less_than_a_cycle_are_in_the_rate_beside() -> None:
    tracks = step_tracks.Tracks(swatsim.machine("tensordash", clock_mhz=500), "t", 1, 0)  # type: ignore[arg-type]
    tracks._rates([0, 10, 10, 30], [10, 10, 30, 30], [100, 7, 40, 2])
    rates = [(it["ts"], it["args"]["value"]) for it in tracks._events]
    assert rates == [(0, 107 * 500 / 10 / 1000), (10, 42 * 500 / 20 / 1000)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": "fc"}, "name both for one tile of an op, or neither for the whole step"),
        ({"op": "fprop"}, "name both for one tile"),
        (
            {"layer": "fc", "op": "fprop", "tiles": 2},
            "blocks=64, tiles=2 are not allowed of one tile of an op: leave them out",
        ),
        ({"tile": 1}, "not allowed of a whole step: name a layer and an op"),
        ({"start": 1}, "from=1"),
        ({"cycles": 5}, "cycles=5"),
        ({"blocks": 0}, "blocks=0 is not allowed: must be 1 to 10000"),
        ({"tiles": -1}, "tiles=-1 is not allowed: must be 0 to 1024"),
        ({"tiles": 1025}, "tiles=1025 is not allowed"),
        ({"blocks": True}, "blocks=True is not allowed: must be a whole number"),
        ({"step": 3}, "recorded are 0, 7"),
    ],
)
def test_what_can_not_be_drawn_is_refused(
    trace: Trace, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(SwatsimError, match=message):
        swatsim.timeline(trace, "tensordash", **wrong)


def test_a_buffer_that_is_too_small_is_refused_as_simulate_does(trace: Trace) -> None:
    small = swatsim.machine(
        "tensordash",
        buffer_a_kib=1,
        buffer_out_kib=1,
        block_filters=16,
        block_channels=16,
        block_rows=64,
    )
    with pytest.raises(ConfigError) as caught:
        swatsim.timeline(trace, small)
    with pytest.raises(ConfigError) as simulated:
        swatsim.simulate(trace, small)
    assert str(caught.value) == str(simulated.value)


def test_too_many_ops_are_refused(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timeline, "MAX_EVENTS", 100)
    with pytest.raises(
        ConfigError, match=r"more than 100 events.*--tiles\), or .*--layer and --op"
    ):
        swatsim.timeline(trace, "tensordash")


def test_it_is_json_that_says_what_it_is(trace: Trace, tmp_path: Path) -> None:
    made = json.loads(json.dumps(swatsim.timeline(trace.path, "tensordash", step=7)))
    about = made["otherData"]
    assert about["unit"] == "1 us is 1 cycle, of 2 ns at 500 MHz"
    assert about["time_ms"] == about["cycles"] / 500_000
    assert (about["machine"], about["step"], about["trace_id"]) == ("tensordash", 7, trace.id)
    assert about["provenance"]["parameters"]["machine"]["name"] == "tensordash"
