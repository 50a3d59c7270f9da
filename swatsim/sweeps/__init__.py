"""Many machines, many traces: `spec` says which, `store` keeps what is done, `run` the rest."""

from swatsim.sweeps.run import sweep
from swatsim.sweeps.spec import Spec, read_spec

__all__ = ["Spec", "read_spec", "sweep"]
