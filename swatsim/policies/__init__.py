"""Which values survive: score x granularity x allocation x schedule. Pure; one method a file."""

from collections.abc import Mapping, Sequence

from swatsim.arguments import arguments, instance_of, several, string
from swatsim.errors import PolicyError, unknown
from swatsim.policies.allocation import ErdosRenyiKernel, Uniform
from swatsim.policies.bdwp import Bdwp
from swatsim.policies.by_score import ByScore
from swatsim.policies.dense import Dense
from swatsim.policies.interface import POLICY, Policy, Site, site_densities, with_weights
from swatsim.policies.meprop import MeProp
from swatsim.policies.method import Method
from swatsim.policies.mvue import Mvue
from swatsim.policies.periodic import Periodic
from swatsim.policies.phased import Phased
from swatsim.policies.rigl import RigL
from swatsim.policies.rules import Rule, View
from swatsim.policies.set import SET
from swatsim.policies.slope import Slope
from swatsim.policies.snfs import SNFS
from swatsim.policies.sparsifier import Sparsifier, begin_run
from swatsim.policies.sr_ste import SrSte
from swatsim.policies.srigl import SRigL
from swatsim.policies.static_random import StaticRandom
from swatsim.policies.swat_erk import SwatErk
from swatsim.policies.swat_m import SwatM
from swatsim.policies.swat_structured import SwatStructured
from swatsim.policies.swat_u import SwatU
from swatsim.policies.top_kast import TopKast
from swatsim.policies.topk import keep_count, topk_mask
from swatsim.policies.transposable import Transposable
from swatsim.policies.vnm import Vnm
from swatsim.workload.layer import Layer

_LAYERS = several(instance_of(Layer), "of swatsim.Layer")


#: Name -> the method: the one list, of all that can be made of a sparsity.
POLICIES: Mapping[str, type[Method]] = {
    kind.method: kind
    for kind in (
        Bdwp,
        Dense,
        MeProp,
        Mvue,
        RigL,
        SET,
        SNFS,
        SRigL,
        Slope,
        SrSte,
        StaticRandom,
        SwatErk,
        SwatM,
        SwatStructured,
        SwatU,
        TopKast,
        Transposable,
        Vnm,
    )
}


@arguments(PolicyError, name=string, layers=_LAYERS)
def make_policy(name: str, sparsity: float, layers: Sequence[Layer]) -> Policy:
    """Return the policy of a name, allocated to a network's layers.

    Raises
    ------
    PolicyError
        If there is none of that name, or the sparsity is not allowed.
    """
    if name not in POLICIES:
        raise PolicyError(unknown("policy", name, POLICIES))
    return allocate_once(POLICIES[name].of_sparsity(sparsity), layers)


@arguments(PolicyError, policy=POLICY, layers=_LAYERS)
def allocate_once(policy: Policy, layers: Sequence[Layer]) -> Policy:
    """Return a policy with its densities allocated, if it allocates and has not yet.

    Parameters
    ----------
    policy : Policy
    layers : sequence of Layer
        In the order in which they run. Products of two activations among them have no share.

    Raises
    ------
    PolicyError
        If it can't be, or was allocated to other layers than these.
    """
    allocate = getattr(policy, "allocate", None)
    if allocate is None:
        return policy
    if getattr(policy, "is_allocated", False):
        for layer in with_weights(layers):
            policy.density(Site(layer, "fprop", "weight"))  # refuses one of another network
        return policy
    allocated: Policy = allocate(with_weights(layers))
    return allocated


__all__ = [
    "POLICIES",
    "SET",
    "SNFS",
    "Bdwp",
    "ByScore",
    "Dense",
    "ErdosRenyiKernel",
    "MeProp",
    "Mvue",
    "Periodic",
    "Phased",
    "Policy",
    "RigL",
    "Rule",
    "SRigL",
    "Site",
    "Slope",
    "Sparsifier",
    "SrSte",
    "StaticRandom",
    "SwatErk",
    "SwatM",
    "SwatStructured",
    "SwatU",
    "TopKast",
    "Transposable",
    "Uniform",
    "View",
    "Vnm",
    "allocate_once",
    "begin_run",
    "keep_count",
    "make_policy",
    "site_densities",
    "topk_mask",
]
