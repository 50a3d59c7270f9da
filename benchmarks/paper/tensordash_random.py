"""TensorDash's random-sparsity curve: speed-up against uniform sparsity, tiles of 1, 4, 16 rows.

    python benchmarks/paper/tensordash_random.py

Mahmoud et al., TensorDash, MICRO 2020, sensitivity study: uniformly random zeros, one operand. The
paper's curve goes from about 1.1x at 10 % to nearly 3x at 90 % with one row (its window is three
lines deep); more rows in lockstep gain less. Prints the table, and draws it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import swatsim
from swatsim.reports.series import speed_up_curves
from swatsim.reports.style import as_png

ROWS = (1, 4, 16)
SPARSITIES = range(10, 100, 10)
FIGURE = Path(__file__).parents[1] / "figures" / "tensordash_random.png"
LAYER = swatsim.Layer(name="conv", C=256, K=64, H=14, W=14, R=3, S=3)
SAMPLES = 4


def speed_up(rows: int, sparsity: int) -> float:
    """Run the layer's fprop with dense weights and random activations."""
    act = np.random.default_rng(sparsity).random(LAYER.shape_of("act", SAMPLES)) >= sparsity / 100
    weight = np.ones(LAYER.shape_of("weight", SAMPLES), bool)
    op = swatsim.Op(LAYER, "fprop", weight=weight, act=act)
    machine = swatsim.machine("tensordash", rows=rows, tiles=1)
    dense = machine.simulate_dense(op).cycles_compute
    return dense / machine.simulate_op(op).cycles_compute


def _rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def main() -> None:
    table = {rows: {s: speed_up(rows, s) for s in SPARSITIES} for rows in ROWS}
    print("| sparsity | " + " | ".join(_rows(rows) for rows in ROWS) + " |")
    print("|---|" + "---|" * len(ROWS))
    for s in SPARSITIES:
        print(f"| {s} % | " + " | ".join(f"{table[rows][s]:.2f}x" for rows in ROWS) + " |")
    curves = {_rows(rows): list(values.items()) for rows, values in table.items()}
    figure = speed_up_curves(
        curves,
        title="TensorDash on uniformly random zeros of one operand "
        "(one tile, window of three);\ncompute cycles of fprop",
        baseline="the same tile with nothing skipped",
        top=4,
    )
    FIGURE.write_bytes(as_png(figure))


if __name__ == "__main__":
    main()
