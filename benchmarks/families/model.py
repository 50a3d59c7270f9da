"""What a model of the table is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

#: Draws a batch from torch's generator: a model's arguments by name.
Draw: TypeAlias = Callable[[], dict[str, Any]]
Built: TypeAlias = tuple[nn.Module, Draw]

#: Samples of a batch, and tokens of a text, out of so many words.
BATCH, TOKENS, VOCABULARY = 2, 16, 96


@dataclass(frozen=True)
class Model:
    """A model of the table.

    Parameters
    ----------
    family : str
        What it is for.
    name : str
        Its class, or what its library calls it.
    build : callable
        Gives the model, and what draws a batch for it.
    """

    family: str
    name: str
    build: Callable[[], Built]
