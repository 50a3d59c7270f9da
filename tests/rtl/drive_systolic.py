"""Products of random sizes through the systolic array: cycles and sums against the machine."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

import swatsim
from swatsim.workload.layer import OPS
from tests.rtl.harness import LATENCY, begin, issued, linear, put, span
from tests.rtl.streams import turns, values

SIZE = 13


@cocotb.test()
async def products_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(20)
    name = "scale-sim-ws" if dut.WEIGHTS_STAY.value else "scale-sim-os"
    machine = swatsim.machine(name, rows=4, columns=4)
    await begin(dut)
    for i in turns():
        m, n, k = rng.integers(1, SIZE, 3)
        left, right = values(rng, (m, k), i), values(rng, (k, n), i + 1)
        cycles, result = await multiplied(dut, left, right)
        assert cycles
        assert cycles[0] == LATENCY
        assert span(cycles) == len(cycles)
        for op in OPS:
            lowered = swatsim.lower(linear(op, left, right))
            assert len(cycles) == machine.simulate_op(lowered).cycles_compute
        assert np.array_equal(result, left @ right)


async def multiplied(dut: Any, left: Any, right: Any) -> tuple[list[int], Any]:
    """Run a product; return the cycles in which it issued, and what came out."""
    for name, matrix in (("write_left", left), ("write_right", right)):
        for (row, column), value in np.ndenumerate(matrix):
            at = {"address_row": row, "address_column": column, "value": int(value)}
            await put(dut, **{name: 1}, **at)
        getattr(dut, name).value = 0
    dut.m.value, dut.k.value, dut.n.value = (*map(int, left.shape), int(right.shape[1]))
    cycles = await issued(dut)
    result = np.zeros((left.shape[0], right.shape[1]), np.int64)
    for row, column in np.ndindex(result.shape):
        await put(dut, address_row=row, address_column=column)
        result[row, column] = dut.result.value.to_signed()
    return cycles, result
