"""Cells and area of front ends, from yosys: those of the circuits in tests/rtl, part by part.

    apt install yosys
    python benchmarks/circuit_area.py

Synthesizes modules of the circuits, for values of 8 and of 16 bits, to the gates of a small library
whose areas are those of the smallest cells of NanGate's 45 nm open cell library. What a module has
at both makes a line: so much, and so much a bit. Writes the entries [area.front_end] of the tables
of energies and areas that ship, each with the hash of its circuit, and the table of
docs/circuits.md (a minute or two).
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pages import ROOT, put

RTL = ROOT / "tests" / "rtl"
TABLES = ROOT / "swatsim" / "simulator" / "energy" / "tables"
#: Stillmaker and Baas, Integration 58, 2017, table of areas: from 45 nm to 7 nm.
TO_7NM = 0.059
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
#: Bits of a value that modules are synthesized for, where these matter.
WIDTHS = (8, 16)


class Part(NamedTuple):
    """A module of a circuit, and how many of its units one of it has.

    Parameters
    ----------
    name : str
        Of the entry.
    circuit, module : str
    what : str
        For a reader.
    bits : str
        The parameter that grows with the bits of a value; "": none does.
    units : int
        Values, or whatever one of the entry is of, in the module.
    """

    name: str
    circuit: str
    module: str
    what: str
    bits: str = ""
    units: int = 1


PARTS = (
    Part("scheduler", "row_group", "scheduler", "a row of 16 lanes: zeros, six levels", "WIDTH"),
    Part("staging", "row_group", "staging", "a value in the buffer of three lines", "BITS", 3),
    Part("multiplexer", "row_group", "multiplexer", "one of eight values", "WIDTH"),
    Part("pattern_multiplexer", "nm_core", "pattern_multiplexer", "one of four", "WIDTH"),
    Part("pixel_place", "cartesian_pe", "pixel_place", "a pixel's coordinates"),
    Part("weight_place", "cartesian_pe", "weight_place", "a weight's coordinates"),
    Part("product_place", "cartesian_pe", "product_place", "a product's output, and its bank"),
    Part("arbiter", "cartesian_pe", "arbiter", "a bank: which of 16 products it takes"),
    Part("crossbar", "cartesian_pe", "crossbar", "a bank: the way of 16 products of 32 bits"),
    Part("queue", "cartesian_pe", "bank_queue", "a bank: a queue of 16 that 16 products enter"),
)


class Cells(NamedTuple):
    """What yosys counts: cells, flip-flops among them, and um2."""

    count: int
    flip_flops: int
    um2: float


class Synthesized(NamedTuple):
    """A part, its cells with values of the narrower width, and its area: a line over bits."""

    part: Part
    cells: Cells
    um2: float
    um2_per_bit: float


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


def cells_of(part: Part, width: int) -> Cells:
    """Synthesize a part for values of so many bits."""
    setting = f"-chparam {part.bits} {width}" if part.bits else ""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cells.lib").write_text(library())
        steps = (
            f"read_verilog -sv -defer {RTL / part.circuit}.sv; "
            f"hierarchy -check -top {part.module} {setting}; "
            "proc; flatten; opt -fast; memory; opt -fast; techmap; opt -fast; "
            "dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean; "
            "tee -o found.txt stat -liberty cells.lib"
        )
        subprocess.run(["yosys", "-q", "-p", steps], cwd=folder, check=True, capture_output=True)
        return _read(Path(folder, "found.txt").read_text())


def _read(text: str) -> Cells:
    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        return float(found[1]) if found else 0.0

    count, flip_flops = number(r"Number of cells: +(\d+)"), number(r" DFF +(\d+)")
    return Cells(int(count), int(flip_flops), number(r"Chip area .*: ([\d.]+)"))


def synthesized(part: Part) -> Synthesized:
    """Synthesize a part for both widths, if it has any bits of values."""
    if not part.bits:
        cells = cells_of(part, 0)
        return Synthesized(part, cells, cells.um2, 0.0)
    narrow, wide = (cells_of(part, width) for width in WIDTHS)
    slope = (wide.um2 - narrow.um2) / (WIDTHS[1] - WIDTHS[0])
    fixed = max(0.0, narrow.um2 - slope * WIDTHS[0])
    return Synthesized(part, narrow, fixed / part.units, slope / part.units)


def every() -> list[Synthesized]:
    """Synthesize all parts, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(synthesized, PARTS))


def digest(circuit: str) -> str:
    """Return what a circuit's file is known by in a source."""
    return hashlib.sha256((RTL / f"{circuit}.sv").read_bytes()).hexdigest()[:12]


def version() -> str:
    """Return the name and version of the yosys that is installed."""
    told = subprocess.run(["yosys", "-V"], check=True, capture_output=True, text=True).stdout
    return " ".join(told.split()[:2])


def entries(found: Iterable[Synthesized], times: float, derived: str, by: str) -> Iterator[str]:
    """Yield the lines of a table of energies and areas, in TOML."""
    for part, _, um2, um2_per_bit in found:
        yield f"[area.front_end.{part.name}]"
        yield f"um2 = {times * um2:.4g}"
        yield f"um2_per_bit = {times * um2_per_bit:.4g}"
        of = f"module {part.module} of tests/rtl/{part.circuit}.sv (sha256 {digest(part.circuit)})"
        yield f'source = "{derived}{by}, {of}, cells of NanGate\'s 45 nm open cell library"'
        yield ""


def lines(found: Iterable[Synthesized]) -> Iterator[str]:
    """Yield the table of the page."""
    yield "| part | circuit | one of it is | cells | flip-flops | um2 | um2 more a bit |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for part, cells, um2, um2_per_bit in found:
        numbers = f"{cells.count:,} | {cells.flip_flops:,} | {um2:,.1f} | {um2_per_bit:,.1f}"
        yield f"| `{part.name}` | {part.circuit} | {part.what} | {numbers} |"


def write(table: str, made: Iterable[str]) -> None:
    """Write the entries of a table that ships."""
    path, begin, end = TABLES / f"{table}.toml", "# begin: circuits\n", "# end: circuits"
    before, _, rest = path.read_text().partition(begin)
    path.write_text(before + begin + "\n".join(made) + end + rest.partition(end)[2])


def main() -> None:
    found, by = every(), version()
    write("45nm", entries(found, 1.0, "", by))
    write("7nm", entries(found, TO_7NM, f"derived: times {TO_7NM} as above; ", by))
    put("circuit-area", lines(found))


if __name__ == "__main__":
    main()
