"""`cartesian`: planar tiles of PEs with I x F multiplier arrays; skips zeros of both operands.

Presets: SCNN, and the machine that SWAT's published speed-ups fit. `config` has the parameters,
`mapping` cuts an op into parts, `kernel` runs them, `machine` adds up.
"""

from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.images import by_image, in_rounds
from swatsim.simulator.machines.cartesian.machine import (
    busy,
    simulate_dense,
    simulate_dense_operands,
    simulate_dense_with_conflicts,
    simulate_op,
)
from swatsim.simulator.machines.cartesian.room import room
from swatsim.simulator.machines.cartesian.timeline import timeline
from swatsim.simulator.mechanism import Mechanism, every_mask

CARTESIAN = Mechanism(
    name="cartesian",
    summary="planar tiles, I x F multiplier arrays, banked accumulators; skips zeros of both "
    "operands; its wgrad mapping is ours: SCNN has none",
    config_type=CartesianConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    alternatives={"dense, with bank conflicts": simulate_dense_with_conflicts},
    simulate_dense_operands=simulate_dense_operands,
    by_image=by_image,
    in_rounds=in_rounds,
    looks_at=every_mask,
    room=room,
    timeline=timeline,
    busy=busy,
    tile="a PE",
)
