"""Cells and area of the circuits in tests/rtl, from yosys.

    apt install yosys
    python benchmarks/circuit_area.py

Synthesizes circuits, their memories left out, to the gates of a small library whose areas are
those of the smallest cells of NanGate's 45 nm open cell library. `cartesian_pe` is left out: yosys
does not finish with its arbiters in ten minutes. Writes the table of docs/circuits.md (a minute).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pages import ROOT, put

RTL = ROOT / "tests" / "rtl"
#: Name -> um2 of NanGate's cell with drive 1, and what it computes.
CELLS = {
    "INV": (0.532, "!A"),
    "BUF": (0.798, "A"),
    "NAND2": (0.798, "!(A & B)"),
    "NOR2": (0.798, "!(A | B)"),
    "AND2": (1.064, "A & B"),
    "OR2": (1.064, "A | B"),
    "XOR2": (1.596, "A ^ B"),
    "XNOR2": (1.596, "!(A ^ B)"),
    "MUX2": (1.862, "(S & B) | (!S & A)"),
    "AOI21": (1.064, "!((A & B) | C)"),
    "OAI21": (1.064, "!((A | B) & C)"),
}
FLIP_FLOP_UM2 = 4.522


class Circuit(NamedTuple):
    """A circuit, what a reader calls it, and its parameters."""

    name: str
    label: str
    parameters: Mapping[str, int]


CIRCUITS = (
    Circuit("row_group", "`row_group`, a row of 16 lanes", {"ROWS": 1}),
    Circuit("nm_core", "`nm_core`, 2:4", {"N": 2, "M": 4}),
    Circuit("systolic", "`systolic`, output stationary", {"WEIGHTS_STAY": 0}),
)


class Cells(NamedTuple):
    """What yosys counts: cells, flip-flops among them, and um2."""

    count: int
    flip_flops: int
    um2: float


def library() -> str:
    """Return the cells as a Liberty file."""
    cells = [_cell(name, *of) for name, of in CELLS.items()]
    cells.append(
        f"cell(DFF) {{ area: {FLIP_FLOP_UM2}; "
        'ff(IQ, IQN) { clocked_on: "C"; next_state: "D"; } '
        "pin(C) { direction: input; clock: true; } pin(D) { direction: input; } "
        'pin(Q) { direction: output; function: "IQ"; } }'
    )
    return "library(cells) {\n" + "\n".join(cells) + "\n}\n"


def _cell(name: str, um2: float, function: str) -> str:
    pins = (f"pin({pin}) {{ direction: input; }}" for pin in sorted(set(function) & set("ABCS")))
    out = f'pin(Y) {{ direction: output; function: "{function}"; }}'
    return f"cell({name}) {{ area: {um2}; {' '.join(pins)} {out} }}"


def synthesized(circuit: Circuit) -> Cells:
    """Synthesize a circuit; its memories stay memories, and have no area."""
    source, top = (RTL / f"{circuit.name}.sv").read_text(), circuit.name
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cells.lib").write_text(library())
        Path(folder, "source.sv").write_text(source)
        settings = " ".join(f"-set {name} {value}" for name, value in circuit.parameters.items())
        steps = (
            f"read_verilog -sv source.sv; chparam {settings} {top}; hierarchy -check -top {top}; "
            "proc; flatten; opt -fast; memory -nomap; opt -fast; techmap; opt -fast; "
            "dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean; "
            "tee -o found.txt stat -liberty cells.lib"
        )
        subprocess.run(["yosys", "-q", "-p", steps], cwd=folder, check=True, capture_output=True)
        return _read(Path(folder, "found.txt").read_text())


def _read(text: str) -> Cells:
    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        return float(found[1]) if found else 0.0

    memories = number(r"\$mem_v2 +(\d+)")
    count = number(r"Number of cells: +(\d+)") - memories
    return Cells(int(count), int(number(r" DFF +(\d+)")), number(r"Chip area .*: ([\d.]+)"))


def lines() -> Iterator[str]:
    """Yield the table."""
    yield "| circuit | cells | flip-flops | um2 |"
    yield "|---|---:|---:|---:|"
    with ThreadPoolExecutor(2) as pool:
        for circuit, found in zip(CIRCUITS, pool.map(synthesized, CIRCUITS), strict=True):
            numbers = f"{found.count:,} | {found.flip_flops:,} | {found.um2:,.0f}"
            yield f"| {circuit.label} | {numbers} |"


if __name__ == "__main__":
    put("circuit-area", lines())
