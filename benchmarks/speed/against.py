"""Kernels of this checkout beside those of another: python benchmarks/speed/against.py OTHER.

Both are loaded into one process and run in turns, so that whatever else the computer does meets
both. Printed are the fastest runs and the medians, and the ratios of this one over the other.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parents[2]
DENSITY = {"weight": 0.2, "act": 0.4, "grad_out": 0.8}
MACHINES = "swatsim.simulator.machines"
SIZES = {"C": 64, "K": 64, "H": 28, "W": 28, "R": 3, "S": 3, "padding": 1}

Cases = dict[str, Callable[[], Any]]


def load(checkout: Path) -> Cases:
    """Import another copy of the package, and say how its kernels are run."""
    for name in [name for name in sys.modules if name.split(".")[0] == "swatsim"]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    swatsim = importlib.import_module("swatsim")
    assert Path(str(swatsim.__file__)).is_relative_to(checkout), checkout
    found = {**on_lanes(swatsim), **on_cartesian(swatsim)}
    sys.path.remove(str(checkout))
    return found


def an_op(swatsim: Any, name: str, *operands: str, dense: tuple[str, ...] = ()) -> Any:
    layer, rng = swatsim.Layer(name="c", **SIZES), np.random.default_rng(5)
    masks = {it: rng.random(layer.shape_of(it, 2)) < DENSITY[it] for it in operands}
    return swatsim.Op(layer, name, **masks | {it: np.ones_like(masks[it]) for it in dense})


def on_lanes(swatsim: Any) -> Cases:
    machine = importlib.import_module(f"{MACHINES}.lane_array.machine")
    found: Cases = {}
    for scheduler in ("levels", "most_candidates"):
        config = swatsim.machine("tensordash", scheduled="act", scheduler=scheduler).config
        part = next(machine.passes(an_op(swatsim, "fprop", "weight", "act"), config, "act"))
        lines, mapped = part.lines(), np.tile(part.mapped, part.groups)
        found[f"schedule, {scheduler}"] = partial(
            schedule, machine.kernel.schedule, lines, mapped, machine.scheduler_of(config)
        )
    return found


def schedule(kernel: Callable[..., Any], lines: Any, *others: Any) -> Any:
    return kernel(lines.copy(), *others)


def on_cartesian(swatsim: Any) -> Cases:
    machine = importlib.import_module(f"{MACHINES}.cartesian.machine")
    config = swatsim.machine("scnn").config
    planar = next(machine.planar(an_op(swatsim, "fprop", "weight", "act"), config))
    wgrad = an_op(swatsim, "wgrad", "act", "grad_out")
    dense = an_op(swatsim, "wgrad", "act", "grad_out", dense=("grad_out",))
    sparse, constant = (next(machine.outer_products(op, config)) for op in (wgrad, dense))
    return {
        "convolve": partial(machine._convolve, planar),
        "outer_product": partial(machine._outer, sparse, config, True),
        "outer_product_constant": partial(machine._outer, constant, config, True),
    }


def timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="root of another checkout")
    parser.add_argument("--runs", type=int, default=40)
    given = parser.parse_args()
    other, this = load(given.other.resolve()), load(HERE)
    for name in this:
        np.testing.assert_array_equal(this[name](), other[name]())  # compiles
        before, after = [], []
        for _ in range(given.runs):
            before.append(timed(other[name]))
            after.append(timed(this[name]))
            after.append(timed(this[name]))
            before.append(timed(other[name]))
        fastest, medians = min(before), statistics.median(before)
        print(
            f"{name:28} other {1e3 * fastest:8.2f} ms, this {1e3 * min(after):8.2f} ms; "
            f"ratio of fastest {min(after) / fastest:.3f}, "
            f"of medians {statistics.median(after) / medians:.3f}"
        )


if __name__ == "__main__":
    main()
