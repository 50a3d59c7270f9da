"""What the runs of layers in one step are called: a layer that runs again is one more layer."""

from __future__ import annotations

from collections.abc import Iterable

from swatsim.tracefile.schema import StepLayer
from swatsim.tracefile.step import Key


class Runs:
    """Counts runs, and names them: ``fc``, ``fc@2``, .. A name that is another's is passed over."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._layers: dict[str, str] = {}

    def __bool__(self) -> bool:
        """Whether any layer ran."""
        return bool(self._numbers)

    def begin(self, layer: str) -> str:
        """Return the name of a new run of a layer."""
        number = self._numbers.get(layer, 0) + 1
        while (name := layer if number == 1 else f"{layer}@{number}") in self._layers:
            number += 1
        self._numbers[layer] = number
        self._layers[name] = layer
        return name

    def layer(self, name: str) -> str:
        """Return the layer whose run has a name."""
        return self._layers.get(name, name)

    def without_gradient(self, layers: Iterable[StepLayer], masks: Iterable[Key]) -> list[str]:
        """Return the layers of a step whose weights get no gradient in any of their runs."""
        weights = [it.layer.name for it in layers if not it.layer.multiplies_activations]
        learnt = {
            self.layer(layer)  # in one of its runs: a checkpoint has others
            for layer, op, operand in masks
            if (op, operand) == ("wgrad", "grad_out")
        }
        return [name for name in dict.fromkeys(map(self.layer, weights)) if name not in learnt]

    def clear(self) -> None:
        """Begin anew: with the next step."""
        self._numbers.clear()
        self._layers.clear()
