"""meProp, against loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from swatsim.policies import MeProp
from tests.policies.driver import BATCH, Run, count_of, top, top_of


def by_position(values: np.ndarray, density: Fraction) -> np.ndarray:
    """Keep the same places in all samples, by the sum of magnitudes over the batch."""
    shape = values.shape[1:]
    sums = [sum(abs(float(values[n][at])) for n in range(BATCH)) for at in np.ndindex(shape)]
    kept = np.array(top(sums, count_of(density, len(sums)))).reshape(shape)
    return np.array([kept] * BATCH)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("sparsity", [0, 0.7, 0.999])
def test_meprop(unified: bool, sparsity: float) -> None:
    density = 1 - Fraction(str(sparsity))
    for seen in Run(MeProp(sparsity, unified=unified)).go(3):
        for (layer, run, op, operand), mask in seen.masks.items():
            if operand != "grad_out" or (mask is None and sparsity == 0):
                assert mask is None
                continue
            assert op in ("dgrad", "wgrad")
            values = seen.read[layer, run, operand]
            each = np.array([top_of(sample, density) for sample in values])
            expected = by_position(values, density) if unified else each
            assert np.array_equal(mask, expected), (layer, op)
        for key, gradient in seen.dense.items():
            assert np.array_equal(seen.handed[key], gradient)
