"""Streams through rows of lanes in lockstep: cycles and sums against the machine."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

import swatsim
from swatsim.workload.layer import OPS, OpName
from tests.rtl.harness import LATENCY, begin, issued, linear, packed, put, span
from tests.rtl.streams import turns, values

LANES, LINES = 16, 24
#: Whose values lie on the rows.
ON_ROWS = {"fprop": "weight", "dgrad": "weight", "wgrad": "act"}
#: Cycles more before the first issue: the staging buffer is filled.
FILL = 1


@cocotb.test()
async def streams_take_the_machines_cycles(dut: Any) -> None:
    rng = np.random.default_rng(21)
    rows = int(dut.ROWS.value)
    one = {"tiles": 1, "rows": rows, "columns": 1}
    machines = {op: swatsim.machine("tensordash", **one, scheduled=ON_ROWS[op]) for op in OPS}
    await begin(dut)
    for i in turns():
        length = int(rng.integers(1, LANES * LINES))
        weights, act = values(rng, (rows, length), i), values(rng, (length,), i + 2)
        weights[:, empty(rng, length)] = 0
        cycles, sums = await reduced(dut, weights, act)
        assert span(cycles) == len(cycles)
        for op, lowered in reductions(weights, act).items():
            assert len(cycles) == machines[op].simulate_op(lowered).cycles_compute
        assert not cycles or cycles[0] == LATENCY + FILL
        assert np.array_equal(sums, weights @ act)


def empty(rng: np.random.Generator, length: int) -> slice:
    """Return some lines that are empty in all rows: of a third of the streams one or more."""
    first, more = rng.integers(LINES), rng.choice([0, 0, 1, 2, 3, 7])
    return slice(first * LANES, min(length, (first + more) * LANES))


def reductions(rows: Any, column: Any) -> dict[OpName, swatsim.LoweredOp]:
    """Return the ops of linear layers that reduce these streams: of one sample, wgrad of many."""
    weights_on_rows = {op: linear(op, column[None], rows.T) for op in ("fprop", "dgrad")}
    ops = {**weights_on_rows, "wgrad": linear("wgrad", rows, column[:, None])}
    return {op: swatsim.lower(made) for op, made in ops.items()}


async def reduced(dut: Any, weights: Any, act: Any) -> tuple[list[int], Any]:
    """Reduce streams; return the cycles in which lanes multiplied, and the rows' sums."""
    lines = -(-len(act) // LANES)
    room = ((0, 0), (0, lines * LANES - len(act)))
    of_rows = np.pad(weights, room).reshape(len(weights), lines, LANES)
    of_column = np.pad(act[None], room).reshape(lines, LANES)
    for line in range(lines):
        own = {"scheduled": packed(of_rows[:, line], 8), "following": packed(of_column[line], 8)}
        await put(dut, write=1, address=line, **own)
    dut.write.value, dut.lines.value = 0, lines
    cycles = await issued(dut)
    return cycles, unpacked(int(dut.sums.value), len(weights))


def unpacked(word: int, count: int) -> Any:
    """Return signed numbers of 32 bits, the lowest first."""
    raw = word.to_bytes(4 * count, "little")
    return np.frombuffer(raw, "<i4").astype(np.int64)
