"""What all circuits' drivers do: a clock, a reset, and in which cycles something was issued."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

import swatsim
from swatsim.workload.layer import Layer, OpName

#: Cycles from `start` to the first issue that is possible: a register that holds `busy`.
LATENCY = 1
#: Cycles after which a circuit that is still busy hangs.
PATIENCE = 100_000


def linear(op: OpName, left: Any, right: Any) -> swatsim.Op:
    """Return the op of a linear layer that multiplies a left with a right operand, M x K and K x N.

    fprop takes act and weight so, dgrad grad_out and weight, wgrad act of all samples and grad_out.
    """
    (m, k), n = left.shape, right.shape[1]
    one, other = left != 0, right != 0
    if op == "fprop":
        layer = Layer(name="fc", kind="linear", C=k, K=n)
        return swatsim.Op(layer, op, weight=other.T, act=one)
    if op == "dgrad":
        layer = Layer(name="fc", kind="linear", C=n, K=k)
        return swatsim.Op(layer, op, weight=other, grad_out=one)
    layer = Layer(name="fc", kind="linear", C=m, K=n)
    return swatsim.Op(layer, op, act=one.T, grad_out=other)


async def begin(dut: Any) -> None:
    """Start the clock, and reset with all inputs at 0."""
    cocotb.start_soon(Clock(dut.clk, 2).start())
    dut.reset.value, dut.start.value = 1, 0
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.reset.value = 0


async def put(dut: Any, **inputs: int) -> None:
    """Set inputs for one cycle."""
    for name, value in inputs.items():
        getattr(dut, name).value = value
    await FallingEdge(dut.clk)


async def issued(dut: Any) -> list[int]:
    """Start the circuit; return the cycles after `start` in which it issued, when it is done."""
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0
    cycles = []
    for cycle in range(LATENCY, PATIENCE):
        if not int(dut.busy.value):
            return cycles
        if int(dut.issue.value):
            cycles.append(cycle)
        await FallingEdge(dut.clk)
    raise AssertionError(f"still busy after {PATIENCE} cycles")


def packed(numbers: Any, bits: int) -> int:
    """Return signed numbers side by side in one word, the first one lowest."""
    word = 0
    for number in reversed(np.ravel(numbers).tolist()):
        word = word << bits | number & (1 << bits) - 1
    return word


def span(cycles: list[int]) -> int:
    """Return cycles from the first issue to the last."""
    return cycles[-1] - cycles[0] + 1 if cycles else 0
