"""A policy in one run: the masks it gives, and what it remembers from step to step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from swatsim.errors import PolicyError
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.interface import Policy, Site
from swatsim.policies.rules import TOP_K, Rule, View
from swatsim.policies.topk import exact
from swatsim.workload.layer import Layer


@dataclass
class _Held:
    """A choice that holds for some steps."""

    since: int
    mask: Array
    threshold: Array


@dataclass
class Drift:
    """How far realised densities lie from the one asked for, while a threshold is stale."""

    asked: float
    realised: list[float] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Give the density asked for, the last realised one, the least and the most."""
        last, least, most = self.realised[-1], min(self.realised), max(self.realised)
        return {"asked": self.asked, "last": last, "least": least, "most": most}


class Sparsifier:
    """What a policy does in one run. A policy whose masks depend on earlier ones makes its own.

    Arrays are NumPy's or torch's, whichever a run has; state stays in their library.

    Parameters
    ----------
    policy : Policy
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rule = getattr(policy, "rule", _top_k)
        self.drifts: dict[tuple[str, int, str], Drift] = {}
        self._held: dict[tuple[str, int, str, int], _Held] = {}
        self._kept: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._new_gradients: dict[str, Array | None] = {}

    def state(self) -> dict[str, Any]:
        """Give what a later run needs to go on from here: dicts, numbers and arrays."""
        held = {key: (it.since, it.mask, it.threshold) for key, it in self._held.items()}
        return {"held": held, "gradients": dict(self._gradients)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._held = {key: _Held(*values) for key, values in state["held"].items()}
        self._gradients = dict(state["gradients"])

    def density(self, site: Site) -> Fraction | None:
        """Tell the share of an operand's values that survives; None for all of them.

        Raises
        ------
        PolicyError
            If the policy gives what is no share.
        """
        wanted = self.policy.density(site)
        if wanted is None:
            return None
        share = exact(wanted)
        if not 0 < share <= 1:
            raise PolicyError(
                f"layer {site.layer.name!r}: density {wanted!r} of {site.op} {site.operand} is not "
                "allowed: must be in (0, 1], or None to leave the operand as it is"
            )
        return share

    def masks(
        self, sites: Sequence[Site], values: Array, *, training: bool = True
    ) -> list[Array | None]:
        """Mark what survives of an operand, at each of the sites that read it.

        Parameters
        ----------
        sites : sequence of Site
            All of the same layer, operand and step.
        values : array of float
            In the shape of `View.values`.
        training : bool
            Otherwise nothing is remembered.

        Returns
        -------
        list of array of bool, or None
            None for a site that reads the operand as it is. The same object for equal ones.
        """
        made: dict[tuple[Rule, Fraction], Array] = {}
        found: list[Array | None] = []
        for place, site in enumerate(sites):
            share, rule = self.density(site), self.rule(site)
            if share is None:
                found.append(None)
                continue
            if (rule, share) not in made:
                key = (site.layer.name, site.run, site.operand, place)
                made[rule, share] = self._mask(site, rule, share, values, key if training else None)
            found.append(made[rule, share])
        if training and sites[0].op == "fprop" and sites[0].operand == "weight":
            self._remember(sites[0], found[0])
        return found

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Give what the optimizer gets in place of a weight's dense gradient, after each run."""
        if layer.name in self._new_gradients:
            known = self._new_gradients[layer.name]
            self._new_gradients[layer.name] = gradient if known is None else known + gradient
        change = getattr(self.policy, "weight_gradient", None)
        kept = self._kept.get(layer.name)
        return gradient if change is None or kept is None else change(kept, weight, gradient)

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """End a step, after the optimizer's.

        Parameters
        ----------
        step : int
            The number of the one that ends.
        weights : mapping of str to array
            By layer.

        Returns
        -------
        dict of str to array
            Weights that are to be replaced.
        """
        self._gradients.update({k: v for k, v in self._new_gradients.items() if v is not None})
        self._new_gradients.clear()
        return {}

    def report(self) -> dict[str, Any]:
        """Tell, as JSON, what of the run so far is not in the masks."""
        if not self.drifts:
            return {}
        return {"drift": {_path(key): drift.describe() for key, drift in self.drifts.items()}}

    def _mask(self, site: Site, rule: Rule, share: Fraction, values: Array, key: Any) -> Array:
        view = View(values, site, self._gradient(site, values) if rule.uses_gradient else None)
        if rule.every == 1:
            return rule.choose(view, share)[0]
        held = self._held.get(key)
        if held is None or held.since != rule.since(site.step):
            mask, threshold = rule.choose(view, share)
            if key is not None:
                self._held[key] = _Held(rule.since(site.step), mask, threshold)
            return mask
        if rule.holds == "mask":
            return held.mask
        return self._stale(view, rule, share, held)

    def _stale(self, view: View, rule: Rule, share: Fraction, held: _Held) -> Array:
        """Mark what reaches the threshold of an earlier step, and note how much that is."""
        mask, site = rule.reaches(view, held.threshold), view.site
        realised = int(namespace(mask).count_nonzero(mask)) / math.prod(mask.shape)
        drift = self.drifts.setdefault(
            (site.layer.name, site.run, site.operand), Drift(float(share))
        )
        drift.realised.append(realised)
        return mask

    def _gradient(self, site: Site, values: Array) -> Array:
        """Give the last gradient of a weight, and note that the next one is wanted."""
        known = None
        if site.operand == "weight":
            self._new_gradients.setdefault(site.layer.name, None)
            known = self._gradients.get(site.layer.name)
        return namespace(values).ones_like(values) if known is None else known

    def _remember(self, site: Site, mask: Array | None) -> None:
        if mask is not None and hasattr(self.policy, "weight_gradient"):
            self._kept[site.layer.name] = mask


def sparsifier(policy: Policy) -> Sparsifier:
    """Make what a policy does in one run."""
    own = getattr(policy, "sparsifier", None)
    made: Sparsifier = own() if own is not None else Sparsifier(policy)
    return made


def _top_k(site: Site) -> Rule:
    return TOP_K


def _path(key: tuple[str, int, str]) -> str:
    layer, run, operand = key
    return f"{layer}@{run}/{operand}" if run > 1 else f"{layer}/{operand}"
