"""Small models with random weights, by family: of timm, transformers, diffusers, and plain torch.

A library is imported when one of its models is built. Sizes are as small as each allows: few
layers, narrow ones, small images, short sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from families import diffusion, recurrent, text, vision
from families.model import Model


def models() -> Iterator[Model]:
    """Yield each model of the table, family by family."""
    for family, sizes in vision.TIMM.items():
        for name, (side, options) in sizes.items():
            yield Model(family, name, partial(vision.build, name, side, options))
    for family, configs in text.TRANSFORMERS.items():
        for name, (draw, options) in configs.items():
            yield Model(family, name, partial(text.build, name, draw, options))
    for name, build in diffusion.DIFFUSERS.items():
        yield Model("diffusion", name, build)
    for name, build in recurrent.TORCH.items():
        yield Model("recurrent, of torch alone", name, build)
