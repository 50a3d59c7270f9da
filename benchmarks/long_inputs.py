"""Write what `long_runs.py` measures the verbs on: in a process of its own, for it takes memory.

    python benchmarks/long_inputs.py CASE COUNT FOLDER

Of "steps" and "layers" a trace of tiny linear layers, all steps of which are one file, linked; of
"rows" results, those of a short trace over and over, with steps of their own; of "points" a trace
of one op, and a sweep of machines that each count it anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import swatsim
from swatsim.policies import SwatU
from swatsim.table import Integers, Kept, Rows, joined, of_columns
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer

MACHINE = "scale-sim-ws"
#: Of the trace whose rows are repeated: 20 x (3 x 50 - 1) ops, each on a machine and a baseline.
STEPS, LAYERS = 20, 50
ROWS = STEPS * (3 * LAYERS - 1) * 2
#: Of a sweep's grid, whose rows are as many as there are to be.
COLUMNS = 50

SWEEP = """traces = ["trace"]
ops = ["fprop"]

[[machines]]
preset = "{machine}"
[machines.grid]
rows = {{ from = 1, to = {rows}, step = 1 }}
columns = {{ from = 1, to = {columns}, step = 1 }}
"""


def trace(path: Path, steps: int, layers: int) -> None:
    """Write a trace of so many equal steps."""
    every = [Layer(name=f"fc{i}", kind="linear", C=8, K=8) for i in range(layers)]
    synthesize(every, path, policy=SwatU(0.5), batch=2, seed=1)
    first = path / "steps" / "0.safetensors"
    for number in range(1, steps):
        os.link(first, first.with_name(f"{number}.safetensors"))


def results(folder: Path, rows: int) -> None:
    """Write so many rows of results, to the next whole run of the short trace."""
    trace(folder / "trace", STEPS, LAYERS)
    short = swatsim.simulate(folder / "trace", MACHINE, store=False)
    assert isinstance(short.rows, Rows)
    assert len(short.rows) == ROWS
    columns = {name: short.rows.whole(name) for name in short.rows.names}
    long = of_columns(repeated(columns, -(-rows // ROWS)))
    swatsim.Results(long, short.provenance).save(folder / "results")


def repeated(columns: Mapping[str, Kept], times: int) -> dict[str, Kept]:
    """Return columns so many times, one after the other, but for steps, which go on."""
    found = {name: joined([column] * times) for name, column in columns.items()}
    steps = columns["step"]
    assert isinstance(steps, Integers)
    runs = [Integers(steps.values.astype("int64") + STEPS * run) for run in range(times)]
    return {**found, "step": joined([*runs])}


def sweep(folder: Path, points: int) -> None:
    trace(folder / "trace", 1, 1)
    words = SWEEP.format(machine=MACHINE, rows=points // COLUMNS, columns=COLUMNS)
    (folder / "sweep.toml").write_text(words)


def main(case: str, count: int, folder: Path) -> None:
    if case == "rows":
        results(folder, count)
    elif case == "points":
        sweep(folder, count)
    else:
        trace(folder / "trace", *((count, 1) if case == "steps" else (1, count)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
