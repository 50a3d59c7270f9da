"""What methods with n of each m weights have in common: the counts, and where they leave dense."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Self

from pydantic import Field, model_validator

from swatsim.arguments import accepted
from swatsim.arguments import sparsity as checked_sparsity
from swatsim.errors import PolicyError
from swatsim.policies.allocation import WEIGHTS
from swatsim.policies.granularity import share_of
from swatsim.policies.interface import Site
from swatsim.policies.method import Method
from swatsim.validation import Whole

Count = Annotated[Whole, Field(ge=1, le=64)]


class NOfM(Method):
    """Base of methods that keep n of each m weights.

    Parameters
    ----------
    n, m : int
        1 <= n <= m.
    first_conv_dense : bool
        Leave the network's first convolution as it is: it has three input channels.
    """

    n: Count = Field(default=2, kw_only=False)
    m: Count = Field(default=4, kw_only=False)
    first_conv_dense: bool = True

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Self:
        """Return the policy n:4 of a sparsity.

        Raises
        ------
        PolicyError
            If the sparsity is none of 0, 0.25, 0.5 and 0.75.
        """
        n = 4 * (1 - accepted(PolicyError, cls.__name__, "sparsity", sparsity, checked_sparsity))
        if n.denominator != 1:
            raise PolicyError(
                f"{cls.__name__}: sparsity={sparsity!r} is not allowed: of n:4 must be 0, 0.25, "
                "0.5 or 0.75"
            )
        return cls(int(n), 4)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.n > self.m:
            raise ValueError(f"n={self.n} must be at most m={self.m}")
        return self

    def density(self, site: Site) -> Fraction | None:
        """Return the share of the weights that survives; None where an operand is left as it is."""
        dense = site.first_convolution and self.first_conv_dense
        sparse = (site.op, site.operand) in WEIGHTS and not dense
        share = self._share(site) if sparse else 1
        return share if isinstance(share, Fraction) and share < 1 else None

    def _share(self, site: Site) -> Fraction:
        """Return the share of a layer's weights that survives the pattern."""
        return share_of(self.n, self.m, site.layer.C // site.layer.groups)
