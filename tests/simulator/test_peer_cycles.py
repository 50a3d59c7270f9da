"""Compute cycles equal those of DNNsim, to the last one (tests/data/peer_cycles/README.md)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import swatsim
from swatsim.workload.layer import OPERANDS_OF

FOLDER = Path(__file__).parents[1] / "data" / "peer_cycles"
ROWS = list(csv.DictReader((FOLDER / "cases.csv").read_text().splitlines()))
LETTERS = {"weight": "W", "act": "A", "grad_out": "G"}


def peer_op(row: dict[str, str]) -> swatsim.Op:
    """Build the row's op with its spatial axes swapped, as the peer walks them."""
    number = {key: int(row[key]) for key in "CKRSHW"}
    layer = swatsim.Layer(
        name=row["case"],
        C=number["C"],
        K=number["K"],
        R=number["S"],
        S=number["R"],
        H=number["W"],
        W=number["H"],
        stride=int(row["stride"]),
        padding=int(row["padding"]),
        groups=int(row["groups"]),
    )
    with np.load(FOLDER / f"{row['case']}.npz") as masks:
        operands = {name: masks[LETTERS[name]].swapaxes(2, 3) for name in OPERANDS_OF[row["op"]]}
    return swatsim.Op(layer, row["op"], **operands)


def peer_machine(row: dict[str, str]) -> swatsim.Machine:
    sizes = {name: int(row[name]) for name in ("lanes", "columns", "rows", "tiles")}
    if row["peer_model"] == "DaDianNao":
        return swatsim.machine("dadiannao", **sizes)
    return swatsim.machine(
        "bit-tactical",
        **sizes,
        scheduled=row["scheduled_operand"],
        move_shape=row["move_shape"],
        map_order=row["map_order"],
        lookahead=int(row["lookahead"]),
        lookaside=int(row["lookaside"]),
    )


def label(row: dict[str, str]) -> str:
    names = ("case", "peer_model", "op", "move_shape", "lookahead", "rows", "tiles")
    return "-".join(row[name] for name in names)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_equals_the_peer(row: dict[str, str]) -> None:
    op, machine = peer_op(row), peer_machine(row)
    assert swatsim.simulate_op(op, machine).cycles_compute == int(row["compute_cycles"])
    assert machine.simulate_dense(op).cycles_compute == int(row["dense_cycles"])
