"""Recurrent models, and an encoder, of torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from families.model import BATCH, TOKENS, Built


class Cells(nn.Module):
    """A cell that a loop runs, a step at a time."""

    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell, self.out = kind(16, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


class Sequence(nn.Module):
    """A recurrent module, and a head."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent, self.out = module, nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.recurrent(x)[0])


def _sequence(kind: type[nn.RNNBase], directions: int = 1) -> Built:
    options: dict[str, Any] = {"num_layers": 2, "batch_first": True}
    module = kind(16, 32, bidirectional=directions == 2, **options)
    return Sequence(module, 32 * directions), _steps


def _steps() -> dict[str, Any]:
    return {"x": torch.randn(BATCH, TOKENS, 16)}


def _encoder() -> Built:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return encoder, lambda: {"src": torch.randn(BATCH, TOKENS, 16)}


TORCH: dict[str, Callable[[], Built]] = {
    "nn.LSTM": lambda: _sequence(nn.LSTM),
    "nn.LSTM, both directions": lambda: _sequence(nn.LSTM, 2),
    "nn.GRU": lambda: _sequence(nn.GRU),
    "nn.RNN": lambda: _sequence(nn.RNN),
    "nn.LSTMCell": lambda: (Cells(nn.LSTMCell), _steps),
    "nn.GRUCell": lambda: (Cells(nn.GRUCell), _steps),
    "nn.TransformerEncoder": _encoder,
}
