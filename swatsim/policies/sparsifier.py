"""A policy in one run: its masks, and its state from step to step."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from swatsim.arguments import arguments
from swatsim.arguments import density as checked_density
from swatsim.errors import PolicyError
from swatsim.policies.allocation import ErdosRenyiKernel
from swatsim.policies.arrays import Array, fits, namespace, widened
from swatsim.policies.interface import POLICY, Policy, Site, Work, density_at, wanted_at
from swatsim.policies.rules import TOP_K, Rule, View
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

#: How many times what was asked for, or one of so many parts, a density has strayed to.
STRAYS = 2

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
    keeps_masks: bool = False

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rule = getattr(policy, "rule", _top_k)
        self.drifts: dict[tuple[str, int, str], Drift] = {}
        self._held: dict[_Key, _Held] = {}
        self._forward_masks: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._new_gradients: dict[str, Array | None] = {}
        # asked once: a pydantic record takes long to say that it has no such attribute
        self.changes_gradients = callable(getattr(policy, "weight_gradient", None))
        self._estimates = callable(getattr(policy, "estimate", None))
        self._wants = callable(getattr(policy, "wanted", None))
        self._meets = isinstance(getattr(policy, "allocation", None), ErdosRenyiKernel)
        trains = getattr(policy, "trains", "kept")
        self._trains_kept = trains == "kept" and self.changes_gradients
        self._late: list[str] = []
        self._strayed: set[tuple[str, int, str]] = set()
        self._new_strays: list[str] = []

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

        A layer that was not there when the policy was allocated gets its share here.

        Raises
        ------
        PolicyError
            If the policy's answer is no share.
        """
        self._meet(site.layer)
        wanted = density_at(self.policy, site)
        if wanted is None:
            return None
        try:
            return checked_density(wanted)
        except ValueError as refusal:
            raise PolicyError(
                f"layer {site.layer.name!r}: density {wanted!r} of {site.op} {site.operand} is not "
                f"allowed: {refusal}, or None to leave the operand as it is"
            ) from None

    def _meet(self, layer: Layer) -> None:
        """Share out to a layer that is seen late, or has other weights by now."""
        if not self._meets or layer.multiplies_activations:
            return
        allocation: ErdosRenyiKernel = self.policy.allocation  # type: ignore[attr-defined]
        if allocation.knows(layer):
            return
        changed = {"allocation": allocation.joined_by(layer)}
        self.policy = self.policy.model_copy(update=changed)  # type: ignore[attr-defined]
        self._late.append(layer.name)

    def refuse_computed(self, modules: Sequence[str]) -> None:
        """Refuse modules whose weights are computed anew in each step, if that is no use.

        Masks are chosen of the weights that a layer reads, however they came about, and most
        policies need no more.

        Raises
        ------
        PolicyError
            If the policy sets weights to zero, which then can't be done.
        """

    def leaves(self, sites: Sequence[Site]) -> bool:
        """Return whether nothing is dropped of what some sites read, nor of gradients.

        Such a layer needs none of what follows.
        """
        if self.changes_gradients or type(self).masks is not Sparsifier.masks:
            return False
        return all(self.density(site) is None for site in sites)

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

    def estimate(self, site: Site, values: Array, mask: Array) -> Array | None:
        """Return what an op reads in place of the values that a mask marks; None for these values.

        Parameters
        ----------
        site : Site
        values : array of float
            As `masks` was given them.
        mask : array of bool
            What `masks` gave for the site.
        """
        if not self._estimates:
            return None
        estimated: Array = self.policy.estimate(site, values, mask)  # type: ignore[attr-defined]
        return estimated

    def output_mask(self, site: Site) -> Array | None:
        """Return which weight gradients of a layer are wanted in a step; None for all of them.

        Parameters
        ----------
        site : Site
            Of wgrad, and "weight", which it makes. `masks` has given what the layer's ops read.

        Returns
        -------
        array of bool, or None
            In the shape of the weight.
        """
        wants = self._wants and wanted_at(self.policy, site) is not None
        return self._wanted(site.layer.name) if wants else None

    def _wanted(self, layer: str) -> Array | None:
        """Return the mask of a layer's weight gradients that are wanted if not all are."""
        return self._forward_masks.get(layer)

    def work(self, sites: Sequence[Site]) -> tuple[Work, ...]:
        """Return what the method does of its own with an operand in a step, at least.

        A threshold that tells nothing, which is chosen anew, is taken for one that does.

        Parameters
        ----------
        sites : sequence of Site
            As in `masks`.

        Returns
        -------
        tuple of {"topk", "threshold", "mask", "momentum"}
            Empty where nothing is dropped, and of a weight in further runs of its layer in a step.
        """
        if sites[0].operand == "weight" and sites[0].run > 1:
            return ()
        asked = {}
        for site in sites:
            if (share := self.density(site)) is not None:
                rule = self.rule(site)
                fresh = rule.since(site.step) == site.step
                asked[rule, share] = "topk" if fresh else rule.holds
        return ("mask",) if asked and self.keeps_masks else tuple(asked.values())

    def weight_gradient(self, layer: Layer, weight: Array, gradient: Array) -> Array:
        """Return what the optimizer gets in place of a weight's dense gradient of one run."""
        if layer.name in self._new_gradients:
            known = self._new_gradients[layer.name]
            xp, exact = namespace(gradient), widened(gradient)
            # copied: an optimizer may clip its gradient in place
            new = known + exact if fits(known, exact) else xp.astype(exact, exact.dtype)
            self._new_gradients[layer.name] = new
        mask = self._forward_masks.get(layer.name)
        if not self.changes_gradients or not fits(mask, gradient):
            return gradient
        return self.policy.weight_gradient(mask, weight, gradient)  # type: ignore[attr-defined]

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
        for name, new in self._new_gradients.items():
            if new is not None:
                xp, known = namespace(new), self._gradients.get(name)
                before = known if fits(known, new) else xp.ones_like(new)
                # loss scaling overflows now and then; not asked for: no device is waited for
                self._gradients[name] = xp.where(xp.all(xp.isfinite(new)), new, before)
        self._new_gradients.clear()
        self._say(step)
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
        of_weight, since = site.operand == "weight", rule.since(site.step)
        holds_mask = rule.every > 1 and rule.holds == "mask"
        zeros = of_weight and (holds_mask or self._trains_kept)
        if rule.every == 1:
            return rule.choose(view, share, zeros=zeros)
        held = self._held.get(key) if training or of_weight else None
        if held is None or held.since != since:
            mask = rule.choose(view, share, zeros=zeros)
            if training:  # the mask of an activation fits no other step
                threshold = None if holds_mask else rule.threshold(view, mask)
                held_mask = mask if of_weight or holds_mask else None
                self._held[key] = _Held(since, held_mask, threshold)
            return mask
        fresh = training and since == site.step
        if (fresh or holds_mask) and fits(held.mask, values):
            return held.mask
        if held.threshold is None:
            return rule.choose(view, share, zeros=zeros)
        mask = rule.reaches(view, held.threshold)
        if training:
            self._note(site, share, mask)
        return mask

    def _note(self, site: Site, share: Fraction, mask: Array) -> None:
        """Add a stale mask's density to its drift."""
        if not math.prod(mask.shape):
            return
        realised = int(namespace(mask).count_nonzero(mask)) / math.prod(mask.shape)
        key, asked = (site.layer.name, site.run, site.operand), float(share)
        self.drifts.setdefault(key, Drift(asked, realised)).note(asked, realised)
        if not asked / STRAYS <= realised <= asked * STRAYS and key not in self._strayed:
            self._strayed.add(key)
            self._new_strays.append(f"{_path(key)} {realised:.2g} (asked: {asked:.2g})")

    def _say(self, step: int) -> None:
        """Log what of a step is not as the user asked for: each layer once, all in a line."""
        if self._late:
            message = "step %d: %s shared out its sparsity without %s: each gets its shape's share"
            log.warning(message, step, type(self.policy).__name__, ", ".join(self._late))
        if self._new_strays:
            message = "step %d: densities by thresholds of an earlier step: %s; report() has all"
            log.warning(message, step, ", ".join(self._new_strays))
        self._late, self._new_strays = [], []

    def _gradient(self, site: Site, values: Array, training: bool) -> Array:
        """Return the last gradient of a weight, and ask for the next one."""
        known = None
        if site.operand == "weight":
            if training:
                self._new_gradients.setdefault(site.layer.name, None)
            known = self._gradients.get(site.layer.name)
        return known if fits(known, values) else namespace(values).ones_like(values)

    def _remember(self, site: Site, mask: Array | None) -> None:
        if mask is not None and (self.changes_gradients or self._wants):
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
