"""One step while it is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swatsim.errors import RecordingError
from swatsim.tracefile import codec
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracefile.schema import StepLayer
from swatsim.tracefile.step import Key
from swatsim.tracer.arguments import (
    checked_dtype,
    checked_mask,
    checked_ops,
    checked_output,
    checked_step_layer,
)
from swatsim.tracer.background import BackgroundStep
from swatsim.workload.layer import Layer, Operand, OpName
from swatsim.workload.windows import Mask

if TYPE_CHECKING:
    from swatsim.tracer.recorder import Recorder


class StepRecord:
    """One step while it is recorded: its masks are written as they come. A `Recorder` makes one.

    Attributes
    ----------
    number : int
        The step's.
    batch_size : int
        How many samples its batch has.
    masks : dict of (layer, op, operand) to None
        Which masks came, in order; the masks themselves are not stored here.
    notes : dict
        What else is known of the step, as JSON: written with it.
    coverage : Coverage or None
        How much of the step's multiplications its masks are of, if somebody counted.
    others : sequence of OtherWork, or None
        What else the step did, if somebody noted it: written with it.
    """

    def __init__(
        self, recorder: Recorder, number: int, batch_size: int, background: BackgroundStep | None
    ) -> None:
        self.number = number
        self.batch_size = batch_size
        self.masks: dict[Key, None] = {}
        self.notes: dict[str, Any] = {}
        self.coverage: Coverage | None = None
        self.others: Sequence[OtherWork] | None = None
        self.background = background
        self._recorder = recorder
        self._layers: dict[str, StepLayer] = {}
        self._of_batch: set[str] = set()

    def declare(self, layer: Layer, batch: int, samples: int) -> None:
        """Add a layer as it runs in this step: in this shape, on so many samples of its own batch.

        A layer that is only declared to the recorder has the step's batch.

        Parameters
        ----------
        layer : Layer
        batch : int
            N of its whole batch; 1 if its rows are positions of one sample.
        samples : int
            How many of these are recorded, the first ones.

        Raises
        ------
        RecordingError
            If it ran in this step already, or a mask would be too large, or there are too many
            layers.
        TraceError, WorkloadError
            If such a layer, or such a number of samples, can't exist.
        """
        own = checked_step_layer(layer, batch, samples)
        if own.layer.name in self._layers:
            raise RecordingError(
                f"layer {own.layer.name!r} runs twice in step {self.number}: call its second run "
                f"'{own.layer.name}@2'"
            )
        self._recorder.know(own.layer)
        self._layers[own.layer.name] = own

    def operand(
        self,
        layer: str,
        op: OpName | Sequence[OpName],
        operand: Operand,
        mask: Mask,
        dtype: str | None = None,
    ) -> None:
        """Record which elements of an operand an op reads as non-zero.

        Waits while more masks are on their way to disk than may be. A step that can't be written,
        or is in the trace already, takes none.

        Parameters
        ----------
        layer : str
            A declared layer's name.
        op, operand : str
            fprop reads weight and act, dgrad weight and grad_out, wgrad act and grad_out. Of ops
            that read an operand alike a sequence, such as ("fprop", "dgrad"): it is packed once.
        mask : numpy.ndarray of bool
            In the shape of `Layer.shape_of`, of the recorded samples. It may change afterwards.
        dtype : str, optional
            What the operand's values are stored as, by torch's names: "float32", "bfloat16".

        Raises
        ------
        RecordingError
            If the layer is not declared, the operand is recorded twice in one step or not read by
            such an op, its type is unknown, or the mask is none or too large.
        WorkloadError
            If the mask has not its layer's shape.
        """
        kind = checked_dtype(layer, operand, dtype)
        keys: list[Key] = [(layer, each, operand) for each in checked_ops(layer, op, operand)]
        self._add(keys, mask, kind)

    def output(self, layer: str, op: OpName, mask: Mask) -> None:
        """Record which elements of what an op makes somebody wants; without it all are.

        So a weight gradient is wanted where the weight is kept, attention's scores where no causal
        mask lies. Waits, and drops, as `operand` does.

        Parameters
        ----------
        layer : str
            A declared layer's name.
        op : str
            fprop makes what grad_out is the gradient of, dgrad that of act, wgrad that of weight:
            the mask has that operand's shape.
        mask : numpy.ndarray of bool

        Raises
        ------
        RecordingError
            If the layer is not declared, there is no such op, the mask comes twice in one step, or
            is none.
        WorkloadError
            If it has not its layer's shape.
        """
        self._add([(layer, op, checked_output(layer, op))], mask, None)

    def _add(self, keys: Sequence[Key], mask: Mask, kind: str | None) -> None:
        (layer, _, operand), own = keys[0], self._layer(keys[0][0])
        bits = checked_mask(layer, operand, mask)
        self._check_new(keys)
        own.layer.check_shape(operand, bits.shape, own.samples)
        if self.background is not None and not self.background.over:
            self.background.add(keys, bits.shape, codec.pack(bits), kind)
        self._layers.setdefault(layer, own)
        self.masks.update(dict.fromkeys(keys))

    @property
    def is_over(self) -> bool:
        """Whether masks that come are not recorded any more."""
        return self.background is None or self.background.over

    @property
    def layers(self) -> list[StepLayer]:
        """Those that it has masks of: as they ran, or as they were declared to the recorder."""
        ran = {layer for layer, _, _ in self.masks}
        names = [name for name in self._layers if name in ran]
        if self._of_batch:
            names = [name for name in self._recorder.layers if name in ran]
        return [self._layers[name] for name in names]

    def resize(self, batch_size: int) -> None:
        """Set the size of the batch, and of the layers that have no batch of their own.

        Raises
        ------
        RecordingError
            If it holds another number of the samples that are kept than masks were recorded of.
        """
        for name in self._of_batch & self._layers.keys():
            own = self._layers[name]
            if self._recorder.kept(batch_size) != own.samples:
                raise RecordingError(
                    f"batch_size={batch_size} is not allowed: step {self.number} has masks of "
                    f"{own.samples} samples of layer {name!r}; state it when the step begins"
                )
            self._layers[name] = own.model_copy(update={"batch": batch_size})
        self.batch_size = batch_size

    def _layer(self, name: str) -> StepLayer:
        """Return a layer as it runs in this step."""
        if isinstance(name, str) and name in self._layers:
            return self._layers[name]
        known, batch = self._recorder.layer(name), self.batch_size
        self._of_batch.add(name)
        return checked_step_layer(known, batch, self._recorder.kept(batch))

    def _check_new(self, keys: Sequence[Key]) -> None:
        for layer, op, operand in keys:
            if (layer, op, operand) in self.masks:
                raise RecordingError(
                    f"layer {layer!r}: {operand} of {op} comes twice in step {self.number}: call "
                    f"the second run of a layer '{layer}@2'"
                )
