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
    """Build the row's op; the peer's lane machines walk the spatial axes in the other order."""
    order = (0, 1, 2, 3) if row["peer_model"] == "SCNN" else (0, 1, 3, 2)
    sizes = {"R": "RS", "S": "SR", "H": "HW", "W": "WH"}
    layer = swatsim.Layer(
        name=row["case"],
        C=int(row["C"]),
        K=int(row["K"]),
        **{letter: int(row[pair[order[2] - 2]]) for letter, pair in sizes.items()},
        stride=int(row["stride"]),
        padding=int(row["padding"]),
        groups=int(row["groups"]),
    )
    with np.load(FOLDER / f"{row['case']}.npz") as masks:
        operands = {name: masks[LETTERS[name]].transpose(order) for name in OPERANDS_OF[row["op"]]}
    return swatsim.Op(layer, row["op"], **operands)


def peer_machine(row: dict[str, str]) -> swatsim.Machine:
    def numbers(*names: str) -> dict[str, int]:
        return {name: int(row[name]) for name in names}

    if row["peer_model"] == "SCNN":
        tiles = {"pe_h": int(row["pe_columns"]), "pe_w": int(row["pe_rows"])}
        vectors = numbers("act_vector", "weight_vector", "accumulator", "banks")
        return swatsim.machine("scnn", **tiles, **vectors)
    sizes = numbers("lanes", "columns", "rows", "tiles")
    if row["peer_model"] == "DaDianNao":
        return swatsim.machine("dadiannao", **sizes)
    return swatsim.machine(
        "bit-tactical",
        **sizes,
        **numbers("lookahead", "lookaside"),
        scheduled=row["scheduled_operand"],
        move_shape=row["move_shape"],
        map_order=row["map_order"],
    )


def label(row: dict[str, str]) -> str:
    names = ("case", "peer_model", "op", "move_shape", "lookahead", "rows", "tiles", "act_vector")
    return "-".join(row[name] for name in names)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_equals_the_peer(row: dict[str, str]) -> None:
    op, machine = peer_op(row), peer_machine(row)
    assert swatsim.simulate_op(op, machine).cycles_compute == int(row["compute_cycles"])
    assert machine.simulate_dense(op).cycles_compute == int(row["dense_cycles"])
