"""`systolic`: values move through an array of PEs from neighbour to neighbour; nothing is skipped.

What it may leave out is what an n:m pattern of the weights lets it. Presets: SCALE-Sim's array in
its three dataflows, two TPUs. `config` has the parameters, `mapping` lays an op on the array,
`machine` adds up, `fold` and `matrices` say what meets where.
"""

from swatsim.simulator.machines.systolic.config import SystolicConfig
from swatsim.simulator.machines.systolic.machine import (
    busy,
    by_image,
    looks_at,
    reads_images,
    simulate_dense,
    simulate_op,
)
from swatsim.simulator.machines.systolic.timeline import timeline
from swatsim.simulator.mechanism import Mechanism

SYSTOLIC = Mechanism(
    name="systolic",
    summary="values move through an array of PEs; packs weights of an n:m pattern",
    config_type=SystolicConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    by_image=by_image,
    reads_images=reads_images,
    looks_at=looks_at,
    timeline=timeline,
    busy=busy,
    tile="a fold of the op, in the order in which they run",
)
