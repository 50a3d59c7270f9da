"""The trace: a directory that holds the layers of a network and the masks of some of its steps.

::

    TRACE/manifest.json            layers, policy, recorded samples, provenance
    TRACE/steps/<number>.safetensors   one training step: its layers, a mask a tensor

`schema` and `header` say what is in them, `codec` how a mask becomes bytes, `writer` and `reader`
do the rest.
"""

from swatsim.tracefile.coverage import Coverage, Macs, Unheld
from swatsim.tracefile.others import Operation, OtherWork
from swatsim.tracefile.reader import Trace, open_trace
from swatsim.tracefile.recorded import Step
from swatsim.tracefile.schema import Manifest, MaskRecord
from swatsim.tracefile.writer import TraceWriter

__all__ = [
    "Coverage",
    "Macs",
    "Manifest",
    "MaskRecord",
    "Operation",
    "OtherWork",
    "Step",
    "Trace",
    "TraceWriter",
    "Unheld",
    "open_trace",
]
