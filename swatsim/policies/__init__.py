"""Which values survive: score x granularity x allocation x schedule. Pure; one method a file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swatsim.arguments import arguments, instance_of, several, string
from swatsim.errors import PolicyError, unknown
from swatsim.policies.by_score import ByScore
from swatsim.policies.dense import Dense
from swatsim.policies.interface import POLICY, Policy, Site, densities
from swatsim.policies.meprop import MeProp
from swatsim.policies.periodic import Periodic
from swatsim.policies.rigl import RigL
from swatsim.policies.rules import Rule, View
from swatsim.policies.set import SET
from swatsim.policies.snfs import SNFS
from swatsim.policies.sparsifier import Sparsifier, sparsifier
from swatsim.policies.sr_ste import SrSte
from swatsim.policies.static_random import StaticRandom
from swatsim.policies.swat_erk import SwatErk
from swatsim.policies.swat_m import SwatM
from swatsim.policies.swat_structured import SwatStructured
from swatsim.policies.swat_u import SwatU
from swatsim.policies.top_kast import TopKast
from swatsim.policies.topk import check_sparsity, keep_count, topk_mask
from swatsim.policies.transposable import Transposable
from swatsim.workload.layer import Layer

_LAYERS = several(instance_of(Layer), "of swatsim.Layer")


def _n_of_4(sparsity: Any) -> int:
    """Tell the n of n:4 that a sparsity is."""
    n = 4 * (1 - check_sparsity(sparsity))
    if n.denominator != 1:
        raise PolicyError(
            f"sparsity={sparsity!r} is not allowed: of n:4 must be 0, 0.25, 0.5 or 0.75"
        )
    return int(n)


#: Name -> what makes the policy of a sparsity. It still has to be allocated to layers.
POLICIES: Mapping[str, Callable[[Any], Policy]] = {
    "dense": lambda sparsity: Dense(),
    "meprop": MeProp,
    "rigl": RigL,
    "set": SET,
    "snfs": SNFS,
    "sr-ste": lambda sparsity: SrSte(_n_of_4(sparsity), 4),
    "static-random": StaticRandom,
    "swat-erk": SwatErk,
    "swat-m": SwatM,
    "swat-structured": SwatStructured,
    "swat-u": SwatU,
    "top-kast": TopKast,
    "transposable": lambda sparsity: Transposable(_n_of_4(sparsity)),
}


@arguments(PolicyError, name=string, layers=_LAYERS)
def policy(name: str, sparsity: Any, layers: Sequence[Layer]) -> Policy:
    """Make a policy by its name, allocated to a network's layers.

    Raises
    ------
    PolicyError
        If there is none of that name, or the sparsity is not allowed.
    """
    if name not in POLICIES:
        raise PolicyError(unknown("policy", name, POLICIES))
    return allocated(POLICIES[name](sparsity), layers)


@arguments(PolicyError, policy=POLICY, layers=_LAYERS)
def allocated(policy: Policy, layers: Sequence[Layer]) -> Policy:
    """Let a policy that needs to know all layers know them, if it does not yet.

    Parameters
    ----------
    policy : Policy
    layers : sequence of Layer
        In the order in which they run.
    """
    allocate = getattr(policy, "allocate", None)
    if allocate is None or getattr(policy, "is_allocated", False):
        return policy
    made: Policy = allocate(layers)
    return made


__all__ = [
    "POLICIES",
    "SET",
    "SNFS",
    "ByScore",
    "Dense",
    "MeProp",
    "Periodic",
    "Policy",
    "RigL",
    "Rule",
    "Site",
    "Sparsifier",
    "SrSte",
    "StaticRandom",
    "SwatErk",
    "SwatM",
    "SwatStructured",
    "SwatU",
    "TopKast",
    "Transposable",
    "View",
    "allocated",
    "densities",
    "keep_count",
    "policy",
    "sparsifier",
    "topk_mask",
]
