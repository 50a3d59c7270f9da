"""Measure what long runs take of the verbs, each beside one of a tenth, for a page's table.

    python benchmarks/long_runs.py [CASE ..] [--by N]

A row of the table is a verb, in a process of its own: CPU seconds, and the most memory that a
process of its had; both of a tenth of the steps, layers, rows or points; and what one of them takes
beside what one takes of the tenth: above 1, it takes more the more there are. Kernels are compiled;
there is no store. By default all cases, some twenty CPU minutes; of some, rows of the others stay
what they are in `long_runs.csv`, which the table is made of. With --by all sizes are divided by N;
the table has the sizes that were run.

This process has to stay small, for a child's peak is never below its parent's at the fork.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pages import machine, put

Row = dict[str, str]

MACHINE = "scale-sim-ws"
INPUTS = Path(__file__).with_name("long_inputs.py")
KEPT = Path(__file__).with_name("long_runs.csv")
COLUMNS = ("case", "many", "verb", "cpu_s", "peak_mib", "on")


class Case(NamedTuple):
    """What there is much of: in words, with how many of them; and verbs, in this order."""

    of: str
    many: int
    verbs: tuple[str, ...]


OF_A_TRACE = ("info", "check", "simulate", "report", "estimate")
CASES = {
    "steps": Case("{} steps of a layer", 10_000, OF_A_TRACE),
    "layers": Case("a step of {} layers", 2_000, OF_A_TRACE),
    "rows": Case("{} rows of results", 1_000_000, ("report", "estimate", "compare")),
    "points": Case("a sweep of {} points", 5_000, ("sweep", "report", "compare")),
}
NUMBERS = tuple(enumerate(("cpu_s", "peak_mib")))
HEAD = (
    "| of | verb | CPU s | peak MiB | a tenth: CPU s | peak MiB | one, beside one of the tenth |",
    "|---|---|---:|---:|---:|---:|---:|",
)


class Taken(NamedTuple):
    """CPU seconds of a process and its children; MiB of the one of these that had most."""

    seconds: float
    peak: float


def words(verb: str, folder: Path) -> list[str]:
    """Return the command of a verb on what is in a folder."""
    trace, results = str(folder / "trace"), str(folder / "results")
    more = {
        "info": [trace],
        "check": [trace],
        "simulate": [trace, "-m", MACHINE, "-o", results],
        "report": [results],
        "estimate": [results, "--run-steps", "10000000"],
        "compare": [results],
        "sweep": [str(folder / "sweep.toml"), "-o", results],
    }
    return [sys.executable, "-m", "swatsim", verb, *more[verb]]


def measured(command: Sequence[str]) -> Taken:
    """Run a command, which must succeed."""
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "SWATSIM_STORE": ""},
        )
        _, status, used = os.wait4(run.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            said.seek(0)
            sys.exit(f"{' '.join(command)}: exit status {code}: {said.read().decode()[-2000:]}")
    return Taken(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def of_case(name: str, many: int) -> Iterator[Row]:
    """Yield what each verb of a case takes of so many."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(INPUTS), name, str(many), folder], check=True)
        for verb in CASES[name].verbs:
            taken = measured(words(verb, Path(folder)))
            numbers = f"{taken.seconds:.2f}", f"{taken.peak:.1f}"
            row = dict(zip(COLUMNS, (name, str(many), verb, *numbers, machine()), strict=True))
            print(*row.values(), sep=", ", flush=True)
            yield row


def warm() -> None:
    """Compile, and fill the cache of the disk."""
    for name in ("steps", "rows", "points"):
        for _ in of_case(name, 50):
            pass


def measure(name: str, by: int) -> Iterator[Row]:
    """Yield the rows of a case, in both sizes."""
    for size in (10 * by, by):
        yield from of_case(name, CASES[name].many // size)


def keep(found: Sequence[Row]) -> None:
    """Put rows into the file, in place of those of the same cases."""
    cases = {row["case"] for row in found}
    every = [*(row for row in kept() if row["case"] not in cases), *found]
    with KEPT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(every, key=lambda row: list(CASES).index(row["case"])))


def kept() -> list[Row]:
    """Return the rows of the file."""
    with KEPT.open(newline="") as file:
        return list(csv.DictReader(file))


def lines() -> Iterator[str]:
    """Write the table of what is kept."""
    every = kept()
    yield f"On {' and '.join(dict.fromkeys(row['on'] for row in every))}, `{MACHINE}`:\n"
    yield from HEAD
    for few, many in pairs(every):
        numbers = (f"{float(row[it]):.{1 - i}f}" for row in (many, few) for i, it in NUMBERS)
        beside = float(many["cpu_s"]) / float(few["cpu_s"]) / 10
        of = CASES[many["case"]].of.format(f"{int(many['many']):,}")
        yield f"| {of} | {many['verb']} | {' | '.join(numbers)} | {beside:.2f} |"


def pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield each verb's row of a tenth, and of all."""
    few = {(row["case"], row["verb"]): row for row in rows[::-1]}
    for row in rows:
        if (other := few[row["case"], row["verb"]]) is not row:
            yield other, row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--by", type=int, default=1, help="divides all sizes")
    given = parser.parse_args()
    warm()
    for name in given.cases or CASES:
        keep(list(measure(name, given.by)))
        put("long-runs", lines())


if __name__ == "__main__":
    main()
