"""Models of timm, for images of a size each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from families.model import BATCH, Built


def build(name: str, side: int, options: Mapping[str, Any]) -> Built:
    """Build a model of timm for images of side x side."""
    timm = importlib.import_module("timm")
    model = timm.create_model(name, num_classes=10, **options)
    return model, lambda: {"x": torch.randn(BATCH, 3, side, side)}


def _at(side: int, **options: Any) -> tuple[int, dict[str, Any]]:
    return side, options


def _sized(side: int, **options: Any) -> tuple[int, dict[str, Any]]:
    """A model that is built for one size of images."""
    return side, {"img_size": side, **options}


_TWO = {"depth": 2, "embed_dim": 96, "num_heads": 3}
_WINDOWS = {"depths": (2, 2), "embed_dim": 48, "num_heads": (3, 6)}

TIMM: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {
    "convolutional": {
        "resnet18": _at(64),
        "resnet50": _at(64),
        "resnext50_32x4d": _at(64),
        "res2net50_26w_4s": _at(64),
        "skresnet18": _at(64),
        "resnest14d": _at(64),
        "cspresnet50": _at(64),
        "densenet121": _at(64),
        "dla34": _at(64),
        "dpn48b": _at(64),
        "hrnet_w18_small": _at(64),
        "inception_v3": _at(96),
        "efficientnet_b0": _at(64),
        "mobilenetv2_100": _at(64),
        "mobilenetv3_small_100": _at(64),
        "mobilenetv4_conv_small": _at(64),
        "ghostnet_100": _at(64),
        "regnety_002": _at(64),
        "repvgg_a0": _at(64),
        "mobileone_s0": _at(64),
        "nf_regnet_b0": _at(64),
        "eca_nfnet_l0": _at(64),
        "convnext_atto": _at(64),
        "convnextv2_atto": _at(64),
        "convmixer_768_32": _at(64),
        "starnet_s1": _at(64),
        "mambaout_femto": _at(64),
    },
    "convolutions with attention": {
        "mobilenetv4_hybrid_medium": _at(64),
        "halonet26t": _at(256),
        "lambda_resnet26t": _at(64),
        "botnet26t_256": _sized(64),
        "coatnet_pico_rw_224": _sized(64),
        "maxvit_pico_rw_256": _sized(64),
        "mobilevit_xxs": _at(64),
        "mobilevitv2_050": _at(64),
        "levit_128s": _sized(128),
        "edgenext_xx_small": _at(64),
        "efficientformer_l1": _at(224),
        "efficientvit_b0": _at(64),
        "fastvit_t8": _at(64),
        "swiftformer_xs": _at(64),
        "visformer_tiny": _sized(64),
        "focalnet_tiny_srf": _at(64),
        "poolformer_s12": _at(64),
    },
    "vision transformer": {
        "vit_tiny_patch16_224": _sized(64, depth=2),
        "deit_tiny_distilled_patch16_224": _sized(64, depth=2),
        "deit3_small_patch16_224": _sized(64, **_TWO),
        "beit_base_patch16_224": _sized(64, **_TWO),
        "eva02_tiny_patch14_224": _sized(56, depth=2),
        "naflexvit_base_patch16_gap": _at(64, **_TWO),
        "cait_xxs24_224": _sized(64, depth=2),
        "xcit_nano_12_p16_224": _sized(64, depth=2),
        "volo_d1_224": _sized(64),
        "convit_tiny": _sized(64, depth=2, local_up_to_layer=1),
        "crossvit_tiny_240": _at(240, depth=((1, 1, 0), (1, 1, 0), (1, 1, 0))),
        "pit_ti_224": _at(224),
        "tnt_s_patch16_224": _sized(64, depth=2),
        "nest_tiny": _sized(64),
        "coat_lite_tiny": _sized(64),
        "twins_svt_small": _sized(64, depths=(1, 1, 1, 1)),
        "pvt_v2_b0": _at(64),
        "mvitv2_tiny": _sized(64),
        "hiera_tiny_224": _sized(64, stages=(1, 1, 1, 1)),
        "davit_tiny": _at(64, depths=(1, 1, 1, 1)),
        "gcvit_xxtiny": _sized(64),
        "tiny_vit_5m_224": _at(224),
        "swin_tiny_patch4_window7_224": _sized(56, **_WINDOWS),
        "swinv2_tiny_window8_256": _sized(64, **_WINDOWS),
        "swinv2_cr_tiny_224": _sized(64, **_WINDOWS, window_size=4),
        "mixer_s32_224": _sized(64),
        "resmlp_12_224": _sized(64),
        "gmlp_ti16_224": _sized(64),
        "sequencer2d_s": _sized(64, layers=(1, 1, 1, 1)),
    },
}
