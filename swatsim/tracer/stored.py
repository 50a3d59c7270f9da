"""What a file has for an operand, before it is read: a tensor, or a density."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np

from swatsim.workload.layer import Layer
from swatsim.workload.windows import Mask


class Stored(NamedTuple):
    """A tensor that is not read yet.

    Parameters
    ----------
    where : str
        The file, and its name there.
    shape : tuple of int
    kept : callable
        Gives where it is not zero, in that shape.
    wrong : str
        Why it can't be read; "": it can.
    is_mask : bool
        Whether nothing else is in such a file: a checkpoint has much that is no mask.
    """

    where: str
    shape: tuple[int, ...]
    kept: Callable[[], Mask]
    wrong: str = ""
    is_mask: bool = False


class Density(NamedTuple):
    """A share of an operand that is not zero, and how the places of it are drawn.

    Parameters
    ----------
    where : str
        The file, and the name there.
    share : fractions.Fraction
    draw : callable
        Given the share, a shape, the axis of its channels and a generator gives a mask.
    refuses : callable
        In what a layer is none of its; "": it is.
    """

    where: str
    share: Fraction
    draw: Callable[[Fraction, tuple[int, ...], int, np.random.Generator], Mask]
    refuses: Callable[[Layer], str]
    shape: tuple[int, ...] = ()
    wrong: str = ""
    is_mask: bool = True


Given: TypeAlias = Stored | Density
