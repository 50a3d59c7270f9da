"""Which element of an operand lies where, after a machine has cut an op.

Machines cut masks. So elements are numbered from 1 on, and bit b of all numbers makes the masks of
an op of its own; what a machine makes of these ops, put together again, are the numbers. The cut
is the machine's own, whatever it is; 0 is what it padded or filled up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask

Numbers = npt.NDArray[np.int64]

#: Letters of an operand's axes; a linear layer has the first two.
AXES: dict[Operand, str] = {"weight": "kcrs", "act": "nchv", "grad_out": "nkpq"}
#: The same of the adjoint of a transposed convolution, with the letters of that.
ADJOINT_AXES: dict[Operand, str] = {"weight": "ckrs", "act": "nkpq", "grad_out": "nchv"}
#: The same of a product of activations, as it was recorded.
PRODUCT_AXES: dict[Operand, str] = {"weight": "nkc", "act": "nch", "grad_out": "nkh"}


def numbered(op: LoweredOp) -> Iterator[LoweredOp]:
    """Yield ops that number the operands' elements: the b-th has bit b of all numbers as masks."""
    sizes = {name: mask.size for name, mask in op.operands.items()}
    numbers = {
        name: np.arange(1, size + 1, dtype=np.min_scalar_type(size)).reshape(
            op.operands[name].shape
        )
        for name, size in sizes.items()
    }
    for bit in range(max(sizes.values()).bit_length()):
        masks: dict[Operand, Mask] = {
            name: (all_ >> bit) & 1 == 1 for name, all_ in numbers.items()
        }
        yield op.with_masks(masks)


def assemble(bits: Iterable[Mask]) -> Numbers:
    """Return numbers put together from their bits, the lowest first."""
    return np.asarray(sum(mask.astype(np.int64) << bit for bit, mask in enumerate(bits)))


def element(op: LoweredOp, operand: Operand, number: int) -> dict[str, int] | None:
    """Return an element's indices, (n,c,h,v) for example; None: padding, no element."""
    if not number:
        return None
    where, rest = {}, int(number) - 1
    for letter, size in reversed(_axes(op, operand)):
        rest, where[letter] = divmod(rest, size)
    return dict(reversed(where.items()))


def _axes(op: LoweredOp, operand: Operand) -> list[tuple[str, int]]:
    """Return the letters of an operand's axes as recorded, with their sizes."""
    shape = op.operands[operand].shape
    if op.of_samples:
        rows, columns = shape[:2] if operand == "weight" else shape[1:3]
        sizes = op.of_samples, rows // op.of_samples, columns
        return list(zip(PRODUCT_AXES[operand], sizes, strict=True))
    letters = ADJOINT_AXES if op.of_transposed else AXES
    return list(zip(letters[operand], shape, strict=False))
