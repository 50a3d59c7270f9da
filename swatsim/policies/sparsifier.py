"""A policy in one run: its masks, and its state from step to step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, ClassVar, TypeAlias

from swatsim.arguments import arguments
from swatsim.arguments import density as checked_density
from swatsim.errors import PolicyError
from swatsim.policies.arrays import Array, namespace
from swatsim.policies.interface import POLICY, Policy, Site
from swatsim.policies.rules import TOP_K, Rule, View
from swatsim.workload.layer import Layer

#: Layer, run, operand, and which of the sites that read it.
_Key: TypeAlias = tuple[str, int, str, int]


@dataclass
class _Held:
    """A choice that holds for some steps: the mask, the threshold, or both."""

    since: int
    mask: Array | None
    threshold: Array | None


@dataclass
class Drift:
    """How far realised densities lie from the one asked for, while a threshold is stale."""

    asked: float
    last: float
    least: float = math.inf
    most: float = 0.0

    def note(self, asked: float, realised: float) -> None:
        """Add a stale mask's density, and the one that is asked for by now."""
        self.asked, self.last = asked, realised
        self.least, self.most = min(self.least, realised), max(self.most, realised)

    def describe(self) -> dict[str, Any]:
        """Return the density asked for, the last realised one, the least and the most."""
        return asdict(self)


class Sparsifier:
    """A policy in one run. A policy whose masks depend on earlier ones has a subclass of its own.

    Arrays are NumPy's or torch's, whichever a run has; state stays in their library.

    Parameters
    ----------
    policy : Policy
    """

    #: Whether masks persist from step to step; such a policy has no rules.
    keeps_masks: ClassVar[bool] = False

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rule = getattr(policy, "rule", _top_k)
        self.drifts: dict[tuple[str, int, str], Drift] = {}
        self._held: dict[_Key, _Held] = {}
        self._forward_masks: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._new_gradients: dict[str, Array | None] = {}

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on from here: dicts, numbers, words and arrays."""
        return {
            "held": {key: {**vars(held)} for key, held in self._held.items()},
            "gradients": dict(self._gradients),
            "drifts": {key: drift.describe() for key, drift in self.drifts.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._held = {key: _Held(**held) for key, held in state["held"].items()}
        self._gradients = dict(state["gradients"])
        self.drifts = {key: Drift(**drift) for key, drift in state["drifts"].items()}

    def density(self, site: Site) -> Fraction | None:
        """Return the share of an operand's values that survives; None for all of them.

        Raises
        ------
        PolicyError
            If the policy's answer is no share.
        """
        wanted = self.policy.density(site)
        if wanted is None:
            return None
        try:
            return checked_density(wanted)
        except ValueError as refusal:
            raise PolicyError(
                f"layer {site.layer.name!r}: density {wanted!r} of {site.op} {site.operand} is not "
                f"allowed: {refusal}, or None to leave the operand as it is"
            ) from None

    def masks(
        self, sites: Sequence[Site], values: Array, *, training: bool = True
    ) -> list[Array | None]:
        """Return the masks of an operand, one for each site that reads it.

        Parameters
        ----------
        sites : sequence of Site
            All of the same layer, operand and step.
        values : array of float
            In the shape of `View.values`.
        training : bool
            Otherwise nothing is remembered; what is held of the weights is read all the same.

        Returns
        -------
        list of array of bool, or None
            None for a site that reads the operand as it is. The same object for equal ones.
        """
        by_rule: dict[tuple[Rule, Fraction], Array] = {}
        masks: list[Array | None] = []
        for place, site in enumerate(sites):
            share, rule = self.density(site), self.rule(site)
            if share is None:
                masks.append(None)
                continue
            if (rule, share) not in by_rule:
                # a layer's runs in a step read the same weights
                run = 1 if site.operand == "weight" else site.run
                key = (site.layer.name, run, site.operand, place)
                by_rule[rule, share] = self._mask(site, rule, share, values, key, training)
            masks.append(by_rule[rule, share])
        if training and sites[0].op == "fprop" and sites[0].operand == "weight":
            self._remember(sites[0], masks[0])
        return masks

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return what the optimizer gets in place of a weight's dense gradient of one run."""
        if layer.name in self._new_gradients:
            known = self._new_gradients[layer.name]
            xp = namespace(gradient)  # copied: an optimizer may clip its gradient in place
            self._new_gradients[layer.name] = (
                xp.astype(gradient, gradient.dtype) if known is None else known + gradient
            )
        change = getattr(self.policy, "weight_gradient", None)
        mask = self._forward_masks.get(layer.name)
        return gradient if change is None or mask is None else change(mask, weight, gradient)

    def end_step(self, step: int, weights: Mapping[str, Array]) -> dict[str, Array]:
        """End a step, after the optimizer's, and return the weights to be replaced.

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

    def forget(self, layer: str) -> None:
        """Forget what is kept of a layer, whose weight has another shape from now on."""
        self._held = {key: held for key, held in self._held.items() if key[0] != layer}
        for kept in (self._gradients, self._new_gradients, self._forward_masks):
            kept.pop(layer, None)

    def report(self) -> dict[str, Any]:
        """Return, as JSON, what of the run so far is not in the masks."""
        if not self.drifts:
            return {}
        return {"drift": {_path(key): drift.describe() for key, drift in self.drifts.items()}}

    def _mask(
        self, site: Site, rule: Rule, share: Fraction, values: Array, key: _Key, training: bool
    ) -> Array:
        last = self._gradient(site, values, training) if rule.uses_gradient else None
        view = View(values, site, last)
        if rule.every == 1:
            return rule.choose(view, share)[0]
        of_weight, since = site.operand == "weight", rule.since(site.step)
        held = self._held.get(key) if training or of_weight else None
        if held is None or held.since != since:
            mask, threshold = rule.choose(view, share)
            if training:  # the mask of an activation fits no other step
                fits = of_weight or rule.holds == "mask"
                self._held[key] = _Held(since, mask if fits else None, threshold)
            return mask
        fresh = training and since == site.step
        if held.mask is not None and (fresh or rule.holds == "mask"):
            return held.mask
        mask = rule.reaches(view, held.threshold)
        if training:
            self._note(site, share, mask)
        return mask

    def _note(self, site: Site, share: Fraction, mask: Array) -> None:
        """Add a stale mask's density to its drift."""
        realised = int(namespace(mask).count_nonzero(mask)) / math.prod(mask.shape)
        key = (site.layer.name, site.run, site.operand)
        self.drifts.setdefault(key, Drift(float(share), realised)).note(float(share), realised)

    def _gradient(self, site: Site, values: Array, training: bool) -> Array:
        """Return the last gradient of a weight, and ask for the next one."""
        known = None
        if site.operand == "weight":
            if training:
                self._new_gradients.setdefault(site.layer.name, None)
            known = self._gradients.get(site.layer.name)
        return namespace(values).ones_like(values) if known is None else known

    def _remember(self, site: Site, mask: Array | None) -> None:
        if mask is not None and hasattr(self.policy, "weight_gradient"):
            self._forward_masks[site.layer.name] = mask


@arguments(PolicyError, policy=POLICY)
def begin_run(policy: Policy) -> Sparsifier:
    """Return the sparsifier of a new run of a policy."""
    own = getattr(policy, "sparsifier", None)
    sparsifier: Sparsifier = own() if own is not None else Sparsifier(policy)
    return sparsifier


def _top_k(site: Site) -> Rule:
    return TOP_K


def _path(key: tuple[str, int, str]) -> str:
    layer, run, operand = key
    return f"{layer}@{run}/{operand}" if run > 1 else f"{layer}/{operand}"
