"""`tensor_core`: a GPU's matrix units with n:m sparsity in one operand.

Presets: a 2:4 tensor core as Sparseloop models it, and the A100's and H100's. `config` has the
parameters, `mapping` cuts an op's GEMMs into blocks and waves, `machine` adds up.
"""

from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.machines.tensor_core.machine import (
    busy,
    in_rounds,
    looks_at,
    reads_images,
    simulate_dense,
    simulate_op,
)
from swatsim.simulator.machines.tensor_core.timeline import timeline
from swatsim.simulator.mechanism import Mechanism

TENSOR_CORE = Mechanism(
    name="tensor_core",
    summary="matrix units of a GPU; of an operand that obeys n:m along what an op sums, n of m "
    "values are multiplied",
    config_type=TensorCoreConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    in_rounds=in_rounds,
    reads_images=reads_images,
    looks_at=looks_at,
    timeline=timeline,
    busy=busy,
    tile="a core",
)
