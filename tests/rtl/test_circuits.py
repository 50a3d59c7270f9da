"""Machines' cycles are those of circuits: random streams, driven with the same masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rtl import circuits

#: What is built: name -> circuit and its parameters.
BUILT = {
    "systolic-os": ("systolic", {"WEIGHTS_STAY": 0}),
    "systolic-ws": ("systolic", {"WEIGHTS_STAY": 1}),
    "row_group-1": ("row_group", {"ROWS": 1}),
    "row_group-4": ("row_group", {"ROWS": 4}),
    "nm_core-2:4": ("nm_core", {"N": 2, "M": 4}),
    "nm_core-1:2": ("nm_core", {"N": 1, "M": 2, "CYCLES": 1}),
    "cartesian_pe-0": ("cartesian_pe", {"QUEUE": 0}),
    "cartesian_pe-0-strided": ("cartesian_pe", {"QUEUE": 0, "STRIDE": 2}),
    "cartesian_pe-3": ("cartesian_pe", {"QUEUE": 3, "DILATION": 2}),
    "cartesian_pe-8": ("cartesian_pe", {"QUEUE": 8, "STRIDE": 2}),
}


STREAMS = 1000


@pytest.mark.parametrize("name", BUILT)
def test_a_machines_cycles_are_its_circuits(name: str, tmp_path: Path) -> None:
    circuit, parameters = BUILT[name]
    source = circuits.HERE / f"{circuit}.sv"
    assert circuits.passes(source, tmp_path / "built", parameters, STREAMS)


#: What is changed in a circuit: its name in `BUILT`, the text, and what stands in its place.
MUTATIONS = {
    "levels in another order": (
        "row_group-1",
        "(lane == 15 ? 5 : lane % 5)",
        "(lane == 15 ? 5 : 4 - lane % 5)",
    ),
    "a window of two": ("row_group-4", "&second_empty ? 3 : 2", "2"),
    "a side move": ("row_group-1", "second[(lane+2)%LANES],", "second[(lane+3)%LANES],"),
    "the bank hash": ("cartesian_pe-0", "(8 * (p & 2))", "(8 * (p & 1))"),
    "room of a queue": ("cartesian_pe-3", "32'(after) <= QUEUE", "32'(after) < QUEUE"),
    "a crowded group": ("nm_core-2:4", "crowded = used > N;", "crowded = used > N + 1;"),
    "a wave": ("systolic-os", "front[i] == streams - 1", "front[i] == streams"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_another_circuit_is_told_apart(name: str, tmp_path: Path) -> None:
    of, text, other = MUTATIONS[name]
    circuit, parameters = BUILT[of]
    source = (circuits.HERE / f"{circuit}.sv").read_text()
    assert source.count(text) == 1
    mutated = tmp_path / f"{circuit}.sv"
    mutated.write_text(source.replace(text, other))
    assert not circuits.passes(mutated, tmp_path / "built", parameters, 100)
