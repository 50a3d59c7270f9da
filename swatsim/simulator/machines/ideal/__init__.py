"""`ideal`: the bound of machines that skip zeros: no product waits, none of a skipped zero is made.

`config` has the parameters, `machine` counts.
"""

from swatsim.simulator.machines.ideal.config import IdealConfig
from swatsim.simulator.machines.ideal.machine import (
    in_rounds,
    looks_at,
    reads_images,
    simulate_dense,
    simulate_op,
)
from swatsim.simulator.mechanism import Mechanism

IDEAL = Mechanism(
    name="ideal",
    summary="no machine: the bound of all that skip the zeros of one operand, or of both",
    config_type=IdealConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    in_rounds=in_rounds,
    reads_images=reads_images,
    looks_at=looks_at,
)
