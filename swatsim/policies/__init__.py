"""Which values survive: score x granularity x allocation x schedule. Pure; one method a file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swatsim.errors import PolicyError, unknown
from swatsim.policies.interface import Policy, Site, densities
from swatsim.policies.swat_erk import SwatErk
from swatsim.policies.swat_u import SwatU
from swatsim.policies.topk import keep_count, topk_mask
from swatsim.workload.layer import Layer

#: Name -> what makes the policy of a sparsity and of the network's layers.
POLICIES: Mapping[str, Callable[[Any, Sequence[Layer]], Policy]] = {
    "swat-u": lambda sparsity, layers: SwatU(sparsity),
    "swat-erk": lambda sparsity, layers: SwatErk(sparsity).allocate(layers),
}


def policy(name: str, sparsity: Any, layers: Sequence[Layer]) -> Policy:
    """Make a policy by its name.

    Raises
    ------
    PolicyError
        If there is none of that name, or the sparsity is not allowed.
    """
    if name not in POLICIES:
        raise PolicyError(unknown("policy", name, POLICIES))
    return POLICIES[name](sparsity, layers)


__all__ = [
    "POLICIES",
    "Policy",
    "Site",
    "SwatErk",
    "SwatU",
    "densities",
    "keep_count",
    "policy",
    "topk_mask",
]
