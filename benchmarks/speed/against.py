"""Kernels of this checkout beside those of another: python benchmarks/speed/against.py OTHER.

Both are loaded into one process and run in turns, so that whatever else the computer does meets
both. Where a copy's arrays happen to lie can make it twice as slow, and the first one loaded a
fifth, were they the same: so both are loaded several times, in either order. Printed are the
fastest runs, and their ratio.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
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
    for run in found.values():
        run()  # compiles, before the other copy has the names of these modules
    sys.path.remove(str(checkout))
    return found


def an_op(swatsim: Any, name: str, *operands: str, dense: tuple[str, ...] = ()) -> Any:
    layer, rng = swatsim.Layer(name="c", **SIZES), np.random.default_rng(5)
    masks = {it: rng.random(layer.shape_of(it, 2)) < DENSITY[it] for it in operands}
    masks |= {it: np.ones_like(masks[it]) for it in dense}
    op = swatsim.Op(layer, name, **masks)
    # a checkout from before there was `lower` ran a plain convolution's op as it is
    return swatsim.lower(op) if "lower" in swatsim.__all__ else op


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
        "convolve": partial(machine.convolve, planar),
        "outer_product": lambda: list(machine._outer([sparse.whole()], config, True)),
        "outer_product_constant": lambda: list(machine._outer([constant.whole()], config, True)),
    }


def timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def fastest(checkouts: tuple[Path, Path], runs: int) -> dict[tuple[str, Path], float]:
    """Time both in turns, loaded in the order given."""
    first, second = map(load, checkouts)
    found = {}
    for name in first:
        np.testing.assert_array_equal(first[name](), second[name]())
        times = [(timed(first[name]), timed(second[name])) for _ in range(runs)]
        for checkout, of in zip(checkouts, zip(*times, strict=True), strict=True):
            found[name, checkout] = min(of)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="root of another checkout")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--loads", type=int, default=4, help="of each order")
    given = parser.parse_args()
    pair = given.other.resolve(), HERE
    orders = [pair, pair[::-1]] * given.loads
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SWATSIM_CACHE_DIR"] = cache  # of this script: pickles name modules
        with fresh.Pool(1, maxtasksperchild=1) as pool:
            found = pool.starmap(fastest, [(order, given.runs) for order in orders], chunksize=1)
    for name in dict.fromkeys(name for name, _ in found[0]):
        other, this = (min(times[name, checkout] for times in found) for checkout in pair)
        print(
            f"{name:28} other {1e3 * other:7.2f} ms, this {1e3 * this:7.2f} ms, "
            f"ratio {this / other:.3f}"
        )


if __name__ == "__main__":
    main()
