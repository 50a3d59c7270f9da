"""Models of diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from families.model import BATCH, TOKENS, Built


def unet() -> Built:
    """A U-Net of noise to pixels, with attention."""
    library = importlib.import_module("diffusers")
    model = library.UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    return model, partial(_noise, 3)


def unet_with_text() -> Built:
    """The same, with cross-attention to a text."""
    library = importlib.import_module("diffusers")
    model = library.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    text = {"encoder_hidden_states": (BATCH, TOKENS, 32)}
    return model, lambda: _noise(4) | {k: torch.randn(shape) for k, shape in text.items()}


def dit() -> Built:
    """A transformer of noise in patches, its norms set by time and class."""
    library = importlib.import_module("diffusers")
    model = library.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, num_layers=2, sample_size=8, norm_num_groups=8
    )

    def inputs() -> dict[str, Any]:
        noise = {"hidden_states": torch.randn(BATCH, 4, 8, 8)}
        return noise | _times() | {"class_labels": torch.randint(1000, (BATCH,))}

    return model, inputs


def autoencoder() -> Built:
    """An autoencoder of images to latents."""
    library = importlib.import_module("diffusers")
    model = library.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    return model, lambda: {"sample": torch.randn(BATCH, 3, 16, 16)}


def _noise(channels: int) -> dict[str, Any]:
    return {"sample": torch.randn(BATCH, channels, 16, 16)} | _times()


def _times() -> dict[str, Any]:
    return {"timestep": torch.randint(1000, (BATCH,))}


DIFFUSERS: dict[str, Callable[[], Built]] = {
    "UNet2DModel": unet,
    "UNet2DConditionModel": unet_with_text,
    "DiTTransformer2DModel": dit,
    "AutoencoderKL": autoencoder,
}
