"""Phases: one policy up to a step, another from there on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from swatsim.arguments import iterable, whole_number
from swatsim.policies.arrays import Array
from swatsim.policies.interface import POLICY, Policy, Site, Work, wanted_at
from swatsim.policies.method import PolicyValue
from swatsim.policies.rules import TOP_K, Rule
from swatsim.policies.sparsifier import Sparsifier, begin_run
from swatsim.workload.layer import Layer


def _phase(value: Any) -> tuple[int, Policy]:
    """Allow a pair of a step and a policy."""
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    if len(pair) != 2:
        raise ValueError("must be pairs of a step and a policy: [(0, Dense()), (9, SwatU(0.8))]")
    return whole_number(pair[0]), POLICY(pair[1])


def _checked(value: Any) -> tuple[tuple[int, Policy], ...]:
    """Allow phases in their order, the first one from step 0 on."""
    phases = tuple(_phase(one) for one in iterable(value))
    begins = [first for first, _ in phases]
    if not begins or begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
        raise ValueError(
            f"begin with steps {begins}: must be one or more, from step 0 on, each after the one "
            "before it"
        )
    return phases


class Phased(PolicyValue):
    """A run in phases: dense and then sparse, sparse and then dense, one method after another.

    Each policy begins when its phase does, as in a run of its own: one that keeps masks draws its
    first ones then, and a later phase knows nothing of them but the weights that they left. Steps
    are the run's, in every phase: ``RigL(0.9, every=100, until=4000)`` changes no mask from step
    4000 on, whenever it begins.

    A warm-up without sparsity, or a last stretch without it, is a part of many published methods
    (SLoPe, arXiv:2405.16325, section 2, adds its adapters at the end; SWAT's code has WARMUP).

    Parameters
    ----------
    phases : sequence of (int, Policy)
        The first step of each phase, and its policy: ``[(0, Dense()), (1000, SwatU(0.8))]``. The
        first one begins with step 0, each other one after that before it.

    Raises
    ------
    PolicyError
        If there is no phase, or they don't begin in that order.
    """

    phases: Annotated[Sequence[tuple[int, Policy]], PlainValidator(_checked)] = Field(kw_only=False)

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already, in all phases."""
        return all(getattr(policy, "is_allocated", True) for _, policy in self.phases)

    def allocate(self, layers: Sequence[Layer]) -> Phased:
        """Return the same phases, each with its policy's densities allocated."""
        return Phased([(first, _allocated(policy, layers)) for first, policy in self.phases])

    def place(self, step: int) -> int:
        """Return which phase a step is in, from 0."""
        return bisect_right(self.phases, step, key=lambda phase: phase[0]) - 1

    def at(self, step: int) -> Policy:
        """Return the policy of a step."""
        policy: Policy = self.phases[self.place(step)][1]
        return policy

    def density(self, site: Site) -> Fraction | float | None:
        """Return the share of an operand's values that survives in a step."""
        return self.at(site.step).density(site)

    def wanted(self, site: Site) -> Fraction | float | None:
        """Return the share of a layer's weight gradients that is wanted in a step; None for all."""
        return wanted_at(self.at(site.step), site)

    def rule(self, site: Site) -> Rule:
        """Return the rule of a step's policy."""
        own = getattr(self.at(site.step), "rule", None)
        rule: Rule = TOP_K if own is None else own(site)
        return rule

    def sparsifier(self) -> PhasedRun:
        """Return the sparsifier of a new run."""
        return PhasedRun(self)

    def describe(self) -> dict[str, Any]:
        """Return the policy's name, and the first step and the policy of each phase, as JSON."""
        phases = [{"from": first, "policy": policy.describe()} for first, policy in self.phases]
        return {"name": "phased", "phases": phases}


class PhasedRun(Sparsifier):
    """The sparsifiers of a run's phases, of which that of a step's phase is asked.

    Parameters
    ----------
    policy : Phased
    """

    policy: Phased

    def __init__(self, policy: Phased) -> None:
        super().__init__(policy)
        self.runs = [begin_run(of) for _, of in policy.phases]
        self.keeps_masks = any(run.keeps_masks for run in self.runs)
        self._now = 0

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here, of each phase."""
        return {"phases": {place: run.state() for place, run in enumerate(self.runs)}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for place, run in enumerate(self.runs):
            run.load(state["phases"][place])

    def density(self, site: Site) -> Fraction | None:
        """Return the share of an operand's values that survives in a step; None for all of them."""
        return self._at(site.step).density(site)

    def refuse_computed(self, modules: Sequence[str]) -> None:
        """Refuse modules whose weights are computed anew in each step, if a phase can't have them.

        Raises
        ------
        PolicyError
            If a phase's policy sets weights to zero, which then can't be done.
        """
        for run in self.runs:
            run.refuse_computed(modules)

    def leaves(self, sites: Sequence[Site]) -> bool:
        """Return whether a step's policy leaves all that some sites read, and gradients, as is."""
        return self._at(sites[0].step).leaves(sites)

    def masks(
        self, sites: Sequence[Site], values: Array, *, training: bool = True
    ) -> list[Array | None]:
        """Return the masks of an operand in a step, one for each site that reads it."""
        self._now = self.policy.place(sites[0].step)
        return self.runs[self._now].masks(sites, values, training=training)

    def estimate(self, site: Site, values: Array, mask: Array) -> Array | None:
        """Return what an op reads of a step's policy in place of the values that a mask marks."""
        return self._at(site.step).estimate(site, values, mask)

    def output_mask(self, site: Site) -> Array | None:
        """Return which weight gradients of a layer are wanted in a step; None for all of them."""
        return self._at(site.step).output_mask(site)

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what a step's method does of its own with an operand."""
        return self._at(sites[0].step).work(sites)

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return what the optimizer gets in the phase in which masks were asked for last."""
        return self.runs[self._now].weight_gradient(layer, weight, gradient)

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """End a step of its phase, and return the weights that are to be replaced."""
        return self._at(step).end_step(step, weights)

    def forget(self, layer: str) -> None:
        """Forget what is kept of a layer, in all phases."""
        for run in self.runs:
            run.forget(layer)

    def report(self) -> dict[str, Any]:
        """Return what is not in the masks; of an operand what its last phase says of it."""
        found: dict[str, Any] = {}
        for run in self.runs:
            for note, of in run.report().items():
                found[note] = {**found.get(note, {}), **of}
        return found

    def _at(self, step: int) -> Sparsifier:
        return self.runs[self.policy.place(step)]


def _allocated(policy: Policy, layers: Sequence[Layer]) -> Policy:
    own = getattr(policy, "allocate", None)
    allocated: Policy = policy if own is None else own(layers)
    return allocated
