"""Parts of a training step: what multiplies is three ops, everything else has a phase."""

from __future__ import annotations

from typing import Literal, get_args

Phase = Literal["forward", "backward", "optimizer", "policy"]
PHASES: tuple[Phase, ...] = get_args(Phase)

#: What stands for an op, and for a kind of layer, where no matrices are multiplied.
OTHER: Literal["other"] = "other"
