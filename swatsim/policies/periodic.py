"""Periodic thresholds: Top-K now and then, and in between whatever reaches the old threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from swatsim.policies.granularity import element
from swatsim.policies.interface import POLICY, Policy, Site, wanted_at
from swatsim.policies.method import Period, PolicyValue
from swatsim.policies.phased import Phased
from swatsim.policies.rules import TOP_K, Rule
from swatsim.policies.sparsifier import Sparsifier, begin_run
from swatsim.validation import Whole
from swatsim.workload.layer import Layer


class Periodic(PolicyValue):
    """A policy whose Top-K is exact in each `every`-th step only.

    In between the threshold of the last exact one is reused, for each operand of each layer: what
    reaches it survives. So the density drifts; how far is in the trace (`swatsim info` shows it),
    and in the tracer's report, and when it is first more than twice or less than half of what was
    asked for, in the log. Where whole blocks survive, as in `SwatStructured`, the choice stays
    exact in every step; so it does up to the next exact one where a threshold tells nothing: where
    it would leave nothing out (a layer that starts at zero), and where a tenth more values reach it
    than were chosen (values of a few levels).

    Md Aamir Raihan and Tor M. Aamodt, "Sparse Weight Activation Training", NeurIPS 2020,
    arXiv:2001.01969, as its code has it (github.com/AamirRaihan/SWAT: PERIOD and WARMUP).

    Parameters
    ----------
    policy : Policy
        For example ``SwatU(0.8)``.
    every : int
        At least 1.
    warmup : int
        Exact in every step up to this one.

    Raises
    ------
    PolicyError
        If a parameter is not allowed, or the policy keeps masks and has no thresholds.
    """

    policy: Annotated[Policy, PlainValidator(POLICY)] = Field(kw_only=False)
    every: Period = Field(kw_only=False)
    warmup: Annotated[Whole, Field(ge=0)] = Field(default=0, kw_only=False)

    @model_validator(mode="after")
    def _has_thresholds(self) -> Self:
        if isinstance(self.policy, Phased):
            raise ValueError(
                "Phased has no thresholds of its own: put Periodic around the policies of its "
                "phases"
            )
        if begin_run(self.policy).keeps_masks:
            raise ValueError(
                f"{type(self.policy).__name__} keeps masks from step to step and has no thresholds "
                "to reuse: use it as it is, or pass a Top-K policy such as SwatU(0.8)"
            )
        return self

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already."""
        return bool(getattr(self.policy, "is_allocated", True))

    def allocate(self, layers: Sequence[Layer]) -> Periodic:
        """Return the same around the policy with its densities allocated."""
        own = getattr(self.policy, "allocate", None)
        return self if own is None else Periodic(own(layers), self.every, self.warmup)

    def density(self, site: Site) -> Fraction | float | None:
        """Return the share of an operand's values that survives an exact Top-K."""
        return self.policy.density(site)

    def wanted(self, site: Site) -> Fraction | float | None:
        """Return the share of a layer's weight gradients that the policy wants; None for all."""
        return wanted_at(self.policy, site)

    def rule(self, site: Site) -> Rule:
        """Return the policy's own rule, with its threshold held if it is one for single values."""
        own = getattr(self.policy, "rule", None)
        rule: Rule = TOP_K if own is None else own(site)
        if rule.granularity is not element:
            return rule
        return replace(rule, every=self.every, holds="threshold", warmup=self.warmup)

    def sparsifier(self) -> Sparsifier:
        """Return the sparsifier of a new run, with rules that hold thresholds."""
        sparsifier = begin_run(self.policy)
        sparsifier.rule = self.rule
        return sparsifier

    def describe(self) -> dict[str, Any]:
        """Return the policy's name and parameters, as JSON."""
        own = self.policy.describe()
        return {"name": "periodic", "every": self.every, "warmup": self.warmup, "of": own}
