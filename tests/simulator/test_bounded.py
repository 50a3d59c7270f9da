"""Memory of an op: what is cut into pieces so that it is bounded counts the same."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.errors import ConfigError
from swatsim.simulator.machines.cartesian import machine as cartesian
from swatsim.simulator.machines.inner_join import machine as inner_join
from swatsim.simulator.machines.lane_array import machine as lane_array
from swatsim.simulator.memory.candidates import MOST_CUT, candidates, fine, fine_extents
from swatsim.simulator.memory.fine import grid_of
from swatsim.simulator.memory.plan import plan
from swatsim.simulator.memory.simulate import Demand, schedule, simulate_memory
from swatsim.simulator.memory.stores import dense_stores
from swatsim.simulator.memory.tensors import shape_of
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.workload.layer import MAX_ELEMENTS, OPERANDS, OPERANDS_OF, OPS, OUTPUT_OF, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.patterns import patterns

ROOT = Path(__file__).parents[2]
MACHINES = "swatsim.simulator.machines"

LAYERS = {
    "groups": {"C": 15, "K": 21, "H": 5, "W": 4, "R": 3, "S": 2, "padding": 1, "groups": 3},
    "strided": {"C": 9, "K": 7, "H": 7, "W": 9, "R": 3, "S": 2, "stride": (2, 3), "padding": 1},
    "depth": {"C": 6, "K": 6, "H": 6, "W": 5, "R": 2, "S": 3, "dilation": 2, "padding": 2}
    | {"groups": 6},
    "stem": {"C": 3, "K": 9, "H": 9, "W": 8, "R": 3, "S": 3, "stride": 2},
    "beside": {"C": 2, "K": 3, "H": 4, "W": 3, "padding": 3, "stride": 2},
    "linear": {"C": 37, "K": 41, "kind": "linear"},
}
EACH_LAYER = pytest.mark.parametrize("sizes", LAYERS.values(), ids=LAYERS)
EACH_OP = pytest.mark.parametrize("name", OPS)


def ops_of(
    sizes: dict[str, Any], name: OpName, samples: int = 2, density: float = 0.4
) -> list[LoweredOp]:
    """Return an op of random masks: of all outputs, and of some."""
    layer, rng = swatsim.Layer(name="x", **sizes), np.random.default_rng(5)
    masks: dict[str, Any] = {
        it: rng.random(layer.shape_of(it, samples)) < density for it in OPERANDS_OF[name]
    }
    wanted = rng.random(layer.shape_of(OUTPUT_OF[name], samples)) < 0.3
    return [lower(swatsim.Op(layer, name, **masks, output=it)) for it in (None, wanted)]


def counted(machine: ConfiguredMachine, op: LoweredOp) -> list[Any]:
    """Return all that is counted of an op, and what tiles do, all of them and one by one."""
    found: list[Any] = [machine.simulate_op(op), machine.simulate_dense(op)]
    found += [machine.simulate_dense_operands(op), machine.simulate_alternatives(op)]
    if (busy := machine.busy(op)) is not None:
        found.append([busy.own.tolist(), busy.waits.tolist()])
    drawn = machine.timeline(op, 0)
    found.append([drawn.about, sorted(map(str, drawn.events(range(drawn.cycles))))])
    return found


@EACH_OP
@EACH_LAYER
def test_how_many_row_sets_are_packed_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, Any], name: OpName
) -> None:
    ops = ops_of(sizes, name)
    for scheduled, reduces in product((*OPERANDS_OF[name], "none"), ("positions", "batch")):
        if reduces == "batch" and name != "wgrad":
            continue
        moves = {"lookahead": 0} if scheduled == "none" else {"lookahead": 1}
        machine = swatsim.machine(
            "bit-tactical",
            **{"tiles": 2, "rows": 2, "columns": 2, "lanes": 4, "lookaside": 0, **moves},
            **{"scheduled": scheduled, "wgrad_reduces": reduces},
        )
        found = []
        for most in (2**21, 40, 1):
            for where in ("streams.MOST_WORDS", "streams.MOST_SETS", "wgrad.MOST_VALUES"):
                monkeypatch.setattr(f"{MACHINES}.lane_array.{where}", most)
            lane_array._without_zeros.cache_clear()
            found.append([counted(machine, op) for op in ops])
        assert found[1] == found[0]
        assert found[2] == found[0]


@EACH_OP
@EACH_LAYER
@pytest.mark.parametrize("preset", ["swat", "scnn-queued"])
def test_how_much_is_laid_out_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, preset: str, sizes: dict[str, Any], name: OpName
) -> None:
    ops = ops_of(sizes, name)
    machine = swatsim.machine(preset, pe_h=2, pe_w=2, accumulator=48, banks=8)
    budgets = ("groups.MOST_PIXELS", "groups.MOST_VALUES", "channels.MOST_VALUES")
    found = []
    for most in (2**22, 60, 1):
        for where in (*budgets, "channels.MOST_MET"):
            monkeypatch.setattr(f"{MACHINES}.cartesian.{where}", most)
        cartesian._without_zeros.cache_clear()
        found.append([counted(machine, op) for op in ops])
    assert found[1] == found[0]
    assert found[2] == found[0]


@EACH_OP
@EACH_LAYER
@pytest.mark.parametrize("balancing", ["none", "greedy-software", "greedy-hardware"])
def test_how_many_streams_are_held_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, balancing: str, sizes: dict[str, Any], name: OpName
) -> None:
    ops = ops_of(sizes, name)
    machine = swatsim.machine("sparten", clusters=3, pes_per_cluster=2, balancing=balancing)
    found = []
    for most in (2**21, 9, 1):
        for where in ("MOST_WORDS", "MOST_HELD", "MOST_VALUES"):
            monkeypatch.setattr(f"{MACHINES}.inner_join.mapping.{where}", most)
        inner_join._without_zeros.cache_clear()
        found.append([counted(machine, op) for op in ops])
    assert found[1] == found[0]
    assert found[2] == found[0]


@EACH_OP
@EACH_LAYER
def test_how_much_is_counted_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, Any], name: OpName
) -> None:
    found = []
    for most in (2**24, 50, 1):
        for where in ("effectual.MOST_COUNTS", "effectual.MOST_BITS", "patterns.MOST_VALUES"):
            monkeypatch.setattr(f"swatsim.workload.{where}", most)
        ops = ops_of(sizes, name)
        every = [patterns(op, "split", 2, m) for op in ops for m in (3, 4)]
        found.append(([op.macs_effectual for op in ops], every))
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("format", ["bitmask", "run-length", "csr"])
@EACH_LAYER
def test_how_much_is_held_of_blocks_changes_none(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, Any], format: str
) -> None:
    of_tensors = {f"format_{it}": format for it in OPERANDS}
    config = swatsim.machine("tensordash", buffer_a_kib=4, buffer_b_kib=4, **of_tensors).config
    found = []
    for most in (2**24, 20, 1):
        budgets = ("sums.MOST_SUMS", "stores.MOST_BLOCKS", "tensors.MOST_LAID")
        for where in (*budgets, "pipeline.MOST_AT_ONCE"):
            monkeypatch.setattr(f"swatsim.simulator.memory.{where}", most)
        candidates.cache_clear()
        grid_of.cache_clear()
        # of very few values the zeros before a row are many
        ops = [ops_of(sizes, name, density=it)[0] for name in OPS for it in (0.4, 0.02)]
        runs = [(op, Demand(900, 16, 90, 90), config) for op in ops]
        found.append([simulate_memory(*run) for run in runs])
        found[-1] += [[slots.tolist() for slots in schedule(*run)] for run in runs]
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("axis", ["K", "C", "samples"])
def test_an_axis_is_cut_into_a_million_blocks_at_most(axis: str) -> None:
    long = 10_000_000
    sizes = {"K": 1, "C": 1, **({axis: long} if axis != "samples" else {})}
    layer = swatsim.Layer(name="x", kind="linear", **sizes)
    shape = shape_of(LoweredOp.dense(layer, "fprop", long if axis == "samples" else 1))
    extents = getattr(fine_extents(shape, *["auto"] * 3), AXES[axis])
    assert extents[0] == long
    assert long // extents[-1] <= MOST_CUT < long // (extents[-1] - 1)
    assert extents == [it for it in fine(long) if it >= extents[-1]]


@pytest.mark.parametrize("groups", [1, 2**10])
def test_blocks_that_are_too_many_are_refused_before_they_are_laid_out(
    monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    monkeypatch.setattr("swatsim.simulator.memory.plan.find", lambda *_: pytest.fail("laid out"))
    layer = swatsim.Layer(name="x", C=groups, K=2**24, groups=groups)
    config = swatsim.machine("stc", block_filters=1).config
    shape = shape_of(LoweredOp.dense(layer, "fprop", 1))
    with pytest.raises(ConfigError, match=f"^here: {2**24} blocks are too many: at most"):
        plan(shape, dense_stores(shape, 16), config, "here")


AXES = {"K": "filters", "C": "channels", "samples": "rows"}
DEPTHWISE = {"C": 8, "K": 8, "groups": 8, "H": 56, "W": 56, "R": 31, "S": 31, "padding": 15}
IMAGE, PLANE = {"C": 8, "K": 8, "H": 2048, "W": 2048}, {"C": 1, "K": 1, "H": 8192, "W": 2048}
LONG, HEAD = {"C": 1, "K": 2, "W": 20_000, "S": 1024}, {"kind": "linear", "C": 2048, "K": 16_384}
LONGEST = {"C": 1, "K": 2, "W": 9_000, "S": 4_500}
WIDE = {"kind": "linear", "C": 1, "K": 2_000_000}
#: What took above 256 MiB before it was cut: a layer, which op, a preset, the sparsest operand.
LARGE = [
    (DEPTHWISE, "fprop", "tensordash", "act"),
    (LONG, "wgrad", "swat", "act"),
    (LONGEST, "fprop", "swat", "act"),
    (IMAGE, "wgrad", "swat", "act"),
    (PLANE, "fprop", "swat", "act"),
    (LONG, "fprop", "sparten", "act"),
    (WIDE, "fprop", "stc", "act"),
]
#: Heads of language models, whose parts of the size of the mask took above 96 MiB here already.
HEADS = [(HEAD, op, it, "weight") for op in ("fprop", "dgrad") for it in ("swat", "tensordash")]

#: Simulates each op of two layers, a small one and a large one, the latter with little room.
PROGRAM = """
import json, resource, sys
from math import prod
import numpy as np
import swatsim
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.rows import cost, count
from swatsim.simulator.systems import system_of
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.lowering import lower

def op_of(sizes, name, sparse):
    layer, rng, masks = swatsim.Layer(name="x", **sizes), np.random.default_rng(1), {}
    for it in OPERANDS_OF[name]:
        shape = layer.shape_of(it, 1)
        some = rng.integers(0, 256, prod(shape), np.uint8) < (20 if it == sparse else 128)
        masks[it] = some.reshape(shape)
    return lower(swatsim.Op(layer, name, **masks))

def run(op, preset):
    machine = swatsim.machine(preset)
    system = system_of(machine, energy_table("45nm"))
    cost(op, count(op, machine), system)
    machine.simulate_dense(op)

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

for sizes, tiny, name, preset, sparse in json.loads(sys.argv[2]):
    run(op_of(tiny, name, sparse), preset)  # loads kernels
    op = op_of(sizes, name, sparse)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size() + int(sys.argv[1]), before[1]))
    run(op, preset)
    resource.setrlimit(resource.RLIMIT_AS, before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("room", "ops"), [(2**28, LARGE), (96 * 2**20, HEADS)], ids=["all", "heads"]
)
def test_an_op_takes_its_unpacked_masks_and_256_mib(room: int, ops: list[Any]) -> None:
    cases = [
        [sizes, {**sizes, **_tiny(sizes)}, name, preset, sparse]
        for sizes, name, preset, sparse in ops
    ]
    command = [sys.executable, "-c", PROGRAM, str(room), json.dumps(cases)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]


def _tiny(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's sizes, small."""
    if sizes.get("kind") == "linear":
        return {"K": 8192}  # large enough for each kernel of a large one: compiling takes memory
    if "groups" in sizes:
        return {"C": 2, "K": 2, "groups": 2, "H": 8, "W": 8, "R": 3, "S": 3, "padding": 1}
    return {"W": 40, "S": 3} if "S" in sizes and "R" not in sizes else {"H": 8, "W": 8}


def test_a_page_says_how_large_an_op_may_be() -> None:
    page = (ROOT / "docs" / "modelled.md").read_text()
    power = MAX_ELEMENTS.bit_length() - 1
    assert 2**power == MAX_ELEMENTS
    assert f"2<sup>{power}</sup> elements" in page
