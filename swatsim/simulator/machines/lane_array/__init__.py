"""`lane_array`: inner-product PEs of several lanes; a window scheduler skips zeros of one operand.

Presets: DaDianNao (skips nothing), Bit-Tactical (static, weights), TensorDash (dynamic, the
sparser operand). `config` has the parameters, `mapping` cuts an op into streams,
`kernel` schedules them, `machine` adds up.
"""

from swatsim.simulator.machines.lane_array.config import LaneArrayConfig
from swatsim.simulator.machines.lane_array.machine import (
    busy,
    by_image,
    in_rounds,
    looks_at,
    reads_images,
    simulate_dense,
    simulate_dense_operands,
    simulate_dense_plain,
    simulate_op,
)
from swatsim.simulator.machines.lane_array.timeline import timeline
from swatsim.simulator.mechanism import Mechanism

LANE_ARRAY = Mechanism(
    name="lane_array",
    summary="inner-product PEs; a window scheduler skips the zeros of one operand",
    config_type=LaneArrayConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    alternatives={"dense, weights on rows": simulate_dense_plain},
    simulate_dense_operands=simulate_dense_operands,
    by_image=by_image,
    in_rounds=in_rounds,
    reads_images=reads_images,
    looks_at=looks_at,
    timeline=timeline,
    tile="a row set of the op, in the order in which they run",
    busy=busy,
)
