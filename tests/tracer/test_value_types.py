"""Whatever torch stores values as has a name that a trace takes."""

import torch

from swatsim.tracefile.schema import VALUE_TYPES


def test_torch_s_value_types_are_those_of_a_trace() -> None:
    found = {str(it) for it in vars(torch).values() if isinstance(it, torch.dtype)}
    assert {name.removeprefix("torch.") for name in found} <= VALUE_TYPES
