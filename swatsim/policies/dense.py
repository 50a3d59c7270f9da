"""Dense: nothing is dropped."""

from __future__ import annotations

from typing import ClassVar

from swatsim.policies.interface import Site
from swatsim.policies.method import Method


class Dense(Method):
    """Dense training, layers computed by the same code as under every other policy.

    What a trace of it holds are the natural zeros, such as a ReLU's.
    """

    method: ClassVar[str] = "dense"

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Dense:
        """Return the policy, which drops nothing whatever the sparsity."""
        return cls()

    def density(self, site: Site) -> None:
        """Leave every operand as it is: no share is chosen."""
