"""`inner_join`: clusters of PEs that multiply only where both operands have a value.

Preset: SparTen. `config` has the parameters, `mapping` cuts an op into windows and filters,
`kernel` joins them, `machine` adds up.
"""

from swatsim.simulator.machines.inner_join.config import InnerJoinConfig
from swatsim.simulator.machines.inner_join.machine import (
    busy,
    by_image,
    simulate_dense,
    simulate_dense_operands,
    simulate_op,
)
from swatsim.simulator.machines.inner_join.timeline import timeline
from swatsim.simulator.mechanism import Mechanism, every_mask

INNER_JOIN = Mechanism(
    name="inner_join",
    summary="PEs join chunks of bitmasks; skips the zeros of both operands",
    config_type=InnerJoinConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    simulate_dense_operands=simulate_dense_operands,
    by_image=by_image,
    looks_at=every_mask,
    timeline=timeline,
    busy=busy,
    tile="a cluster",
)
