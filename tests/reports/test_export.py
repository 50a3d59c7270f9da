"""Exports: what a step takes node by node, read back as other tools read it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.columns import Role
from swatsim.errors import ResultsError
from swatsim.reports import astra_sim
from swatsim.reports.node_times import StepTimes, step_times
from swatsim.results import Results
from swatsim.workload.phases import OTHER
from tests.command import refused
from tests.command import swatsim as command
from tests.simulator.test_other import CHAIN, NORM, SGD, TOPK, trace_of

ROLES = {False: Role.MACHINE, True: Role.BASELINE}
#: Bytes of a value.
FP32 = 4


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    trace = trace_of(tmp_path_factory.mktemp("export") / "t", [NORM, CHAIN, SGD, TOPK])
    # of 700 MHz no cycle is a whole number of ns
    return swatsim.simulate(trace, swatsim.machine("tensordash", clock_mhz=700))


def cycles_of(results: Results, step: int, role: Role) -> int:
    return sum(r["cycles"] for r in results.rows if (r["step"], r["role"]) == (step, role))


def in_units(cycles: int, results: Results, per_us: int) -> int:
    return round(cycles * per_us / results.rows[0]["clock_mhz"])


# ---- latencies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [False, True])
def test_latencies_add_up_to_the_results(results: Results, tmp_path: Path, baseline: bool) -> None:
    (path,) = swatsim.export(results, tmp_path / "step.csv", baseline=baseline)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, role = min(row["step"] for row in results.rows), ROLES[baseline]
    own = [r for r in results.rows if (r["step"], r["role"]) == (first, role)]
    keys = ("layer", "op", "function")
    found = {tuple(row[key] for key in keys): row for row in rows}
    assert len(found) == len(rows) == len(own)
    for row in own:
        there = found[tuple(row[key] for key in keys)]
        assert int(there["cycles"]) == row["cycles"]
        assert float(there["time_us"]) == pytest.approx(row["cycles"] / 700)
        assert float(there["time_ms"]) == pytest.approx(row["cycles"] / 700_000)
        carried = sum(value for name, value in row.items() if name.startswith("dram_bytes_"))
        assert int(there["dram_bytes"]) == carried
        assert there["phase"] == row["phase"] or row["op"] != OTHER
    assert sum(int(row["cycles"]) for row in rows) == cycles_of(results, first, role)
    assert {row["machine"] for row in rows} == {f"{own[0]['machine']}{' dense' * baseline}"}


def test_nodes_stand_in_the_order_in_which_a_step_runs_them(results: Results) -> None:
    nodes = step_times(results, None, baseline=False).nodes
    phases = list(dict.fromkeys(node.phase for node in nodes))
    assert phases == ["forward", "backward", "optimizer", "policy"]
    layers = list(dict.fromkeys(row["layer"] for row in results.rows if row["op"] == "fprop"))
    forward = [node.layer for node in nodes if node.op == "fprop"]
    assert forward == layers
    backward = [(node.layer, node.op) for node in nodes if node.op in ("dgrad", "wgrad")]
    assert [layer for layer, op in backward if op == "wgrad"] == layers[::-1]
    assert all(a[1] < b[1] for a, b in pairwise(backward) if a[0] == b[0]), "dgrad, then wgrad"


def test_a_machine_without_a_clock_has_cycles_and_no_time(results: Results, tmp_path: Path) -> None:
    rows = [{**row, "clock_mhz": 0} for row in results.rows]
    clockless = Results(rows, results.provenance)
    (path,) = swatsim.export(clockless, tmp_path / "t.csv")
    with path.open(newline="") as file:
        assert {(row["time_us"], row["time_ms"]) for row in csv.DictReader(file)} == {("", "")}
    with pytest.raises(ResultsError, match="has no clock, so its cycles are no time: export"):
        swatsim.export(clockless, tmp_path / "t.txt", "astra-sim")


# ---- ASTRA-sim 1 ---------------------------------------------------------------------------------


def workload(path: Path) -> list[dict[str, Any]]:
    """Read a workload as ASTRA-sim does: the columns of a line are parted by white space."""
    kind, count, *lines = path.read_text().splitlines()
    assert (kind, int(count)) == ("DATA", len(lines))
    found = []
    for line in lines:
        name, reserved, *cells = line.split()
        assert (reserved, len(cells)) == ("-1", 10)
        (fwd, fwd_type, fwd_size, ig, ig_type, ig_size, wg, wg_type, wg_size, delay) = cells
        assert (fwd_type, fwd_size, ig_type, ig_size, delay) == ("NONE", "0", "NONE", "0", "0")
        assert (wg_type == "ALLREDUCE") == (int(wg_size) > 0)
        times = {"fprop": int(fwd), "dgrad": int(ig), "wgrad": int(wg)}
        found.append({"name": name, "size": int(wg_size), **times})
    return found


@pytest.mark.parametrize("baseline", [False, True])
def test_a_workloads_times_add_up(results: Results, tmp_path: Path, baseline: bool) -> None:
    step = max(row["step"] for row in results.rows)
    chosen = {"step": step, "baseline": baseline}
    (path,) = swatsim.export(results, tmp_path / "w.txt", "astra-sim", **chosen)
    first, *layers = workload(path)
    rows = [r for r in results.rows if (r["step"], r["role"]) == (step, ROLES[baseline])]
    total = sum(first[op] + sum(row[op] for row in layers) for op in ("fprop", "dgrad", "wgrad"))
    assert total == in_units(sum(row["cycles"] for row in rows), results, 1000)
    by_name = {row["name"]: row for row in layers}
    for row in rows:
        if row["op"] != OTHER:
            time = in_units(row["cycles"], results, 1000)
            assert abs(by_name[row["layer"]][row["op"]] - time) <= 1
    forward = sum(r["cycles"] for r in rows if r["op"] == OTHER and r["phase"] == "forward")
    assert abs(first["fprop"] - in_units(forward, results, 1000)) <= 1
    # of the first row no simulator runs the input gradient
    assert (first["name"], first["dgrad"], first["size"]) == ("everything_else", 0, 0)


def test_a_workloads_gradients_are_those_of_weights(results: Results, tmp_path: Path) -> None:
    (path,) = swatsim.export(results, tmp_path / "w.txt", "astra-sim")
    sizes = {row["name"]: row["size"] for row in workload(path)}
    wgrads = [row for row in results.rows if row["op"] == "wgrad"]
    assert wgrads
    for row in wgrads:
        weights = row["K"] * row["C"] // row["groups"] * row["R"] * row["S"]
        assert sizes[row["layer"]] == weights * FP32


def test_a_gradient_is_reduced_once_and_an_activations_never(results: Results) -> None:
    rows = []
    for row in results.rows:
        rows.append(row)
        if row["op"] in ("fprop", "dgrad", "wgrad"):
            rows.append({**row, "layer": f"{row['layer']}@2"})
            rows.append({**row, "layer": f"{row['layer']}.scores", "kind": "matmul"})
    nodes = step_times(Results(rows, results.provenance), None, baseline=False).nodes
    reduced = [node.layer for node in nodes if node.gradient]
    once = [node.layer for node in step_times(results, None, baseline=False).nodes if node.gradient]
    assert reduced == once


def test_names_have_no_spaces_and_no_two_are_alike(results: Results) -> None:
    times = step_times(results, None, baseline=False)
    own = next(node for node in times.nodes if node.op == "fprop")
    names = ("a b", "a\tb", "a_b", "everything_else")
    made = replace(times, nodes=tuple(own._replace(layer=name) for name in names))
    lines = astra_sim.as_text(made).splitlines()[2:]
    expected = ["everything_else", "a_b", "a_b_2", "a_b_3", "everything_else_2"]
    assert [line.split()[0] for line in lines] == expected


def test_a_gradient_of_an_unknown_type_is_refused(results: Results, tmp_path: Path) -> None:
    rows = [{**row, "dtype": None} for row in results.rows]
    with pytest.raises(ResultsError, match="bytes are not known: simulate with --dtype"):
        swatsim.export(Results(rows, results.provenance), tmp_path / "w.txt", "astra-sim")
    assert not list(tmp_path.iterdir())


# ---- Chakra --------------------------------------------------------------------------------------


def varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Read a message as protobuf's page "Encoding" has it."""
    at = 0
    while at < len(content):
        tag, at = varint(content, at)
        value: Any
        value, at = varint(content, at)
        if tag & 7 == 2:
            value, at = content[at : at + value], at + value
        else:
            assert tag & 7 == 0
        yield tag >> 3, value
    assert at == len(content)


def messages(path: Path) -> list[list[tuple[int, Any]]]:
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size, at = varint(content, at)
        found.append(list(fields(content[at : at + size])))
        at += size
    return found


def attributes(of: list[tuple[int, Any]], field: int) -> dict[str, Any]:
    parts = [dict(fields(value)) for number, value in of if number == field]
    return {
        part.pop(1).decode(): value.decode() if isinstance(value, bytes) else value
        for part in parts
        for value in (part[max(part)],)
    }


def nodes_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read an execution trace: its metadata and its nodes, by the numbers of et_def.proto."""
    metadata, *nodes = messages(path)
    found = []
    for node in nodes:
        own = dict(node)
        deps, at = [], 0
        packed = own.get(5, b"")
        while at < len(packed):
            value, at = varint(packed, at)
            deps.append(value)
        plain = {"id": own[1], "name": own[2].decode(), "type": own[3], "deps": deps}
        timed = {"start": own.get(6, 0), "duration": own.get(7, 0)}
        found.append({**plain, **timed, "attr": attributes(node, 10)})
    return attributes(metadata, 2), found


@pytest.mark.parametrize("baseline", [False, True])
def test_a_traces_nodes_add_up(results: Results, tmp_path: Path, baseline: bool) -> None:
    (path,) = swatsim.export(results, tmp_path / "step", "chakra", baseline=baseline)
    assert path.name == "step.0.et"
    about, nodes = nodes_of(path)
    first = min(row["step"] for row in results.rows)
    cycles = cycles_of(results, first, ROLES[baseline])
    assert (about["cycles"], about["clock_mhz"]) == (str(cycles), "700")
    assert f"step {first} of " in about["of"]
    assert "everything_else_left_out" not in about
    assert sum(node["attr"]["cycles"] for node in nodes) == cycles
    assert sum(node["duration"] for node in nodes) == in_units(cycles, results, 1)
    assert {node["type"] for node in nodes} == {4}, "nobody to reduce gradients with"
    assert [node["id"] for node in nodes] == list(range(len(nodes)))
    assert [node["deps"] for node in nodes] == [[], *([i] for i in range(len(nodes) - 1))]
    for a, b in pairwise(nodes):
        assert a["start"] + a["duration"] == b["start"]
    assert len({node["name"] for node in nodes}) == len(nodes)


def test_replicas_reduce_their_gradients_before_weights_change(
    results: Results, tmp_path: Path
) -> None:
    paths = swatsim.export(results, tmp_path / "step", "chakra", npus=3)
    assert [path.name for path in paths] == ["step.0.et", "step.1.et", "step.2.et"]
    assert len({path.read_bytes() for path in paths}) == 1
    _, nodes = nodes_of(paths[0])
    reduced = [node for node in nodes if node["type"] == 7]
    sizes = {node["name"]: node["attr"]["comm_size"] for node in reduced}
    expected = {
        f"{row['layer']} all-reduce": FP32
        * row["K"]
        * row["C"]
        // row["groups"]
        * row["R"]
        * row["S"]
        for row in results.rows
        if row["op"] == "wgrad"
    }
    assert sizes == expected
    assert {node["attr"]["comm_type"] for node in reduced} == {0}
    by_id = {node["id"]: node for node in nodes}
    for node in reduced:
        (of,) = node["deps"]
        assert by_id[of]["name"] == node["name"].replace("all-reduce", "wgrad")
    waiting = {
        dep for node in nodes if node["attr"].get("phase") == "optimizer" for dep in node["deps"]
    }
    assert waiting >= {node["id"] for node in reduced}


def test_protobuf_reads_a_trace_as_we_do(results: Results, tmp_path: Path) -> None:
    pool = pytest.importorskip(
        "google.protobuf.descriptor_pool", reason="protobuf is not installed"
    )
    from google.protobuf import descriptor_pb2, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="n.proto", package="n", syntax="proto3")
    node = file.message_type.add(name="Node")
    for name, number, kind, many in (
        ("id", 1, 4, 1),
        ("name", 2, 9, 1),
        ("type", 3, 4, 1),
        ("data_deps", 5, 4, 3),
        ("start_time_micros", 6, 4, 1),
        ("duration_micros", 7, 4, 1),
    ):
        node.field.add(name=name, number=number, type=kind, label=many)
    own = pool.DescriptorPool()
    own.Add(file)
    Node = message_factory.GetMessageClass(own.FindMessageTypeByName("n.Node"))
    (path,) = swatsim.export(results, tmp_path / "step", "chakra")
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size, at = varint(content, at)
        found.append(content[at : at + size])
        at += size
    for content, ours in zip(found[1:], nodes_of(path)[1], strict=True):
        theirs = Node.FromString(content)
        assert (theirs.id, theirs.name, list(theirs.data_deps)) == (
            ours["id"],
            ours["name"],
            ours["deps"],
        )
        assert (theirs.start_time_micros, theirs.duration_micros) == (
            ours["start"],
            ours["duration"],
        )


# ---- what is asked for ---------------------------------------------------------------------------


def test_results_without_everything_else_say_so(results: Results, tmp_path: Path) -> None:
    (path,) = swatsim.export(results.layers_only(), tmp_path / "step", "chakra")
    about, nodes = nodes_of(path)
    assert about["everything_else_left_out"] == "rows were left out"
    assert {node["attr"]["op"] for node in nodes} == {"fprop", "dgrad", "wgrad"}


def test_the_command_line(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results")
    target = tmp_path / "new" / "step.csv"
    chosen = ("export", tmp_path / "results", "-o", target)
    code, out, errors = command(*chosen)
    assert code == 0, errors
    times: StepTimes = step_times(results, None, baseline=False)
    assert f"wrote {target}: {len(times.nodes)} nodes, {times.cycles:,} cycles, step " in out
    assert "step.csv is there already" in refused(*chosen)
    assert command(*chosen, "--overwrite", "--baseline")[0] == 0
    code, out, _ = command(*chosen, "--overwrite", "--json")
    found = json.loads(out)
    assert (found["nodes"], found["cycles"]) == (len(times.nodes), times.cycles)
    assert found["written"] == [str(target)]
    assert not {"nodes", "cycles", "images", "step"} - set(found["keys"])
    code, out, _ = command(*chosen[:3], tmp_path / "et", "--as", "chakra", "--npus", 2)
    assert code == 0
    assert "et.0.et to et.1.et: " in out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--as", "chakr"), "unknown form 'chakr': did you mean 'chakra'?"),
        (("--step", 99), "the results have no step 99: in them are "),
        (("--npus", 2), "npus=2 is not allowed: only chakra has a file an NPU"),
        (("--as", "chakra", "--npus", 0), "npus=0 is not allowed: must be 1 to 65536"),
    ],
)
def test_wrong_choices_are_refused(
    results: Results, tmp_path: Path, wrong: tuple[object, ...], message: str
) -> None:
    results.save(tmp_path / "results")
    assert message in refused("export", tmp_path / "results", "-o", tmp_path / "x", *wrong)
    assert not (tmp_path / "x").exists()
