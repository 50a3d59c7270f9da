"""Dense: nothing is dropped."""

from __future__ import annotations

from typing import Any

from swatsim.policies.interface import Site


class Dense:
    """Dense training, layers computed by the same code as under every other policy.

    What a trace of it holds are the natural zeros, such as a ReLU's.
    """

    def density(self, site: Site) -> None:
        """Leave every operand as it is."""

    def describe(self) -> dict[str, Any]:
        """Name the policy."""
        return {"name": "dense"}
