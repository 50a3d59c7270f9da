"""Products with n:m weights through a core: cycles, sums and the choice against the machine."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

import swatsim
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.workload.layer import OpName
from tests.rtl.harness import LATENCY, begin, issued, linear, packed, put, span
from tests.rtl.streams import turns, values

SIZE = 14


@cocotb.test()
async def products_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(22)
    of = {name: int(getattr(dut, name).value) for name in NAMES}
    machines = {operand: machine_of(of, operand) for operand in PACKED.values()}
    await begin(dut)
    for i in turns():
        m, n, k = rng.integers(1, SIZE, 3)
        left, right = values(rng, (m, k), i), weights(rng, (k, n), i + 1, of)
        cycles, result = await multiplied(dut, left, right, of)
        assert cycles
        assert cycles[0] == LATENCY
        assert span(cycles) == len(cycles)
        for op, operand in PACKED.items():
            lowered = swatsim.lower(linear(op, left, right))
            found = machines[operand].simulate_op(lowered)
            assert len(cycles) == found.cycles_compute
            assert int(dut.packed_run.value) == (found.compressed == operand)
        assert np.array_equal(result, left @ right)


#: The right operand of each op.
PACKED: dict[OpName, str] = {"fprop": "weight", "dgrad": "weight", "wgrad": "grad_out"}
NAMES = ("TILE_M", "TILE_N", "K_STEP", "CYCLES", "N", "M")


def machine_of(of: dict[str, int], operand: str) -> ConfiguredMachine:
    """Return the machine of one core that a circuit's parameters describe; an operand is packed."""
    products = of["TILE_M"] * of["TILE_N"] * of["K_STEP"]
    return swatsim.machine(
        "stc",
        macs=products // of["CYCLES"],
        tile_m=of["TILE_M"],
        tile_n=of["TILE_N"],
        k_step=of["K_STEP"],
        pattern=f"{of['N']}:{of['M']}",
        sparse_operands=operand,
    )


def weights(rng: np.random.Generator, shape: tuple[int, ...], turn: int, of: dict[str, int]) -> Any:
    """Return a right operand; of three in four n values of each group at most are not zero."""
    drawn = values(rng, shape, turn)
    if turn % 4:
        for group in range(0, shape[0], of["M"]):
            some = drawn[group : group + of["M"]]
            rank = rng.random(some.shape).argsort(0).argsort(0)
            some[rank >= of["N"]] = 0
    return drawn


async def multiplied(dut: Any, left: Any, right: Any, of: dict[str, int]) -> tuple[list[int], Any]:
    """Run a product; return the cycles in which it issued, and what came out."""
    (m, k), n, wide, group = left.shape, right.shape[1], of["TILE_N"], of["M"]
    await put(dut, clear=1)
    dut.clear.value = 0
    for (row, column), value in np.ndenumerate(left):
        own = {"address_row": row, "address_column": column, "values": packed(value, 8)}
        await put(dut, write_left=1, **own)
    dut.write_left.value = 0
    whole = np.pad(right, ((0, -k % group), (0, -n % wide)))
    for at, block in np.ndindex(len(whole) // group, whole.shape[1] // wide):
        part = whole[at * group : (at + 1) * group, block * wide : (block + 1) * wide].T
        own = {"address_row": at, "address_column": block, "values": packed(part, 8)}
        await put(dut, write_right=1, **own)
    dut.write_right.value = 0
    dut.m.value, dut.n.value, dut.k.value = int(m), int(n), int(k)
    cycles = await issued(dut)
    result = np.zeros((m, n), np.int64)
    for row, column in np.ndindex(result.shape):
        await put(dut, address_row=row, address_column=column)
        result[row, column] = dut.result.value.to_signed()
    return cycles, result
