"""Training a PyTorch model with a sparse policy and recording it; a layer table from a model.

The only package that imports torch: `modules` reads torch's modules as layers, `arithmetic` is
what a sparse layer computes, `tracer` records a run, `table` lists what a model runs and keeps.
"""

from swatsim.errors import RecordingError

try:
    import torch as torch
except ModuleNotFoundError as error:
    raise RecordingError(
        "recording a PyTorch run needs PyTorch: pip install 'swatsim[torch]'"
    ) from error

from swatsim.tracer.pytorch.observer import Observer
from swatsim.tracer.pytorch.saved_tensors import Kept
from swatsim.tracer.pytorch.table import layer_table
from swatsim.tracer.pytorch.tracer import Tracer

__all__ = ["Kept", "Observer", "Tracer", "layer_table"]
