"""The memory system: equal to its twin, within its bounds, and what a person works out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from swatsim.errors import ConfigError
from swatsim.simulator.memory.config import DRAMS, MemoryConfig
from swatsim.simulator.memory.feed import Demand, Fed, can_pin, feed
from swatsim.simulator.memory.tensors import output_words
from swatsim.workload import storage
from swatsim.workload.layer import OPERANDS, Layer
from swatsim.workload.training_ops import Op
from tests.naive import memory as twin
from tests.strategies import FORMATS, memories, ops

QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
N_OF_M = ("2:2", "3:3", "4:4")  # what every mask obeys


def naive(op: Op, config: MemoryConfig, demand: Demand, **options: Any) -> twin.NaiveMemory:
    known = config.model_dump()
    known |= {
        "dram_mb_per_s": config.bandwidth_mb_per_s,
        "dram_ideal": config.dram == "ideal",
        "dram_latency_ns": DRAMS[config.dram].latency_ns
        if config.dram_latency_ns == "auto"
        else config.dram_latency_ns,
    }
    return twin.simulate(
        op.name,
        op.layer,
        SimpleNamespace(**known),
        cycles_compute=demand.cycles,
        pes=1,
        lanes=demand.lanes,
        words=(demand.words_a, demand.words_b, output_words(op)),
        **options,
        **op.operands,
    )


def demands() -> st.SearchStrategy[Demand]:
    size = st.one_of(st.integers(0, 50), st.integers(0, 100_000))
    return st.builds(Demand, size, st.sampled_from([1, 48]), size, size)


def compare(ours: Fed, theirs: twin.NaiveMemory) -> None:
    assert theirs.refused is None
    assert ours.loop_order == theirs.order
    cut = (ours.block_groups, ours.block_filters, ours.block_channels, ours.block_rows)
    assert cut == theirs.block
    assert ours.blocks == theirs.blocks
    for operand, size in theirs.loaded_bytes.items():
        assert getattr(ours, f"dram_bytes_{operand}") == size
    assert ours.dram_bytes_result == theirs.result_bytes
    assert ours.dram_bytes_partial == theirs.partial_bytes
    assert ours.cycles == theirs.cycles
    for name, lane_cycles in theirs.lane_cycles.items():
        assert getattr(ours, f"lane_cycles_{name}") == lane_cycles


@QUICK
@given(data=st.data())
def test_equals_its_twin(data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    config = MemoryConfig(**data.draw(memories((*FORMATS, *N_OF_M))))
    demand, dense = data.draw(demands()), data.draw(st.booleans())
    theirs = naive(op, config, demand, dense=dense)
    if theirs.refused is None:
        compare(feed(op, demand, config, dense=dense), theirs)
    else:
        with pytest.raises(ConfigError, match=f"buffer_{theirs.refused}_kib"):
            feed(op, demand, config, dense=dense)


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_a_kept_operand_equals_the_twin(data: st.DataObject) -> None:
    op, _ = data.draw(ops().filter(lambda found: found[0].name != "fprop"))
    config = MemoryConfig(**{**data.draw(memories()), "block_channels": "auto"})
    demand = data.draw(demands())
    assume(naive(op, config, demand).refused is None)
    if can_pin(op, config, "grad_out"):
        held = frozenset({"grad_out"})
        kept = feed(op, demand, config, pinned="grad_out", kept=True)
        assert kept.dram_bytes_grad_out == 0
        compare(kept, naive(op, config, demand, kept=held))
        compare(feed(op, demand, config, pinned="grad_out"), naive(op, config, demand, held=held))
