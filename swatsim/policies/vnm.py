"""V:N:M weights (VENOM): 4 columns of each V x M block, and n of these 4 in each row."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from swatsim.arguments import accepted
from swatsim.arguments import sparsity as checked_sparsity
from swatsim.errors import PolicyError
from swatsim.policies.granularity import COLUMNS, v_n_m
from swatsim.policies.n_of_m import Count
from swatsim.policies.rules import Rule
from swatsim.policies.sr_ste import SrSte
from swatsim.validation import Whole


class Vnm(SrSte):
    """V:N:M sparse weights ("VENOM"), trained with SR-STE: any n:m on units made for n of 4.

    Of each block of v filters x m channels fprop and dgrad read the 4 channels of the largest sum
    of magnitudes, and of these the n largest weights of each filter, chosen anew in every step: of
    a convolution tap by tap, of a grouped layer along the channels of a group, and where these are
    no more than n the layer stays dense. All weights are trained, as in `SrSte`.

    Roberto L. Castro et al., "VENOM: A Vectorized N:M Format for Unleashing the Power of Sparse
    Tensor Cores", SC 2023, arXiv:2310.02065: the format, of linear layers. The scores and the
    training are those of Kang Zhao et al., "Beyond 2:4: Exploring V:N:M Sparsity for Efficient
    Transformer Inference on GPUs", arXiv:2410.16135: magnitudes ("ABS"), their L1 norm by column,
    SR-STE's decay. Its permutation of channels and its LoRA training, and VENOM's second-order
    pruning, are not here. dgrad reads the same weights, which are not n:m along K.

    Parameters
    ----------
    n, m : int
        1 <= n <= 4 <= m.
    v : int
        Filters that have the 4 channels in common.
    decay : float
        As in `SrSte`.
    first_conv_dense : bool
        Leave the network's first convolution as it is.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "vnm"

    m: Count = Field(default=8, kw_only=False)
    v: Annotated[Whole, Field(ge=1, le=4096)] = 64

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Self:
        """Return the policy 64:2:m of a sparsity, with the m that makes it.

        Raises
        ------
        PolicyError
            If the sparsity is not 1 - 2/m of an m from 4 to 64.
        """
        share = 1 - accepted(PolicyError, cls.__name__, "sparsity", sparsity, checked_sparsity)
        # a decimal such as 0.67 is none of 1 - 2/m to the last digit, but says which is meant
        m = round(2 / share)
        if not COLUMNS <= m <= 64 or abs(1 - Fraction(2, m) - (1 - share)) > Fraction(1, 200):
            raise PolicyError(
                f"{cls.__name__}: sparsity={sparsity!r} is not allowed: of 64:2:m must be 1 - 2/m, "
                "such as 0.5, 0.6, 0.75 and 0.875"
            )
        return cls(2, m)

    @model_validator(mode="after")
    def _columns(self) -> Self:
        if not self.n <= COLUMNS <= self.m:
            raise ValueError(f"n={self.n} must be at most 4, and m={self.m} at least 4")
        return self

    @cached_property
    def _rule(self) -> Rule:
        return Rule(granularity=v_n_m(self.v, self.n, self.m))
