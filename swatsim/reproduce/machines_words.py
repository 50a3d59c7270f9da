"""What the figures of the comparison of machines are of, and why they are as they are, in words."""

from __future__ import annotations

from collections.abc import Sequence

from swatsim.reproduce.machines import MULTIPLIERS, WORKLOADS, Step, entries
from swatsim.workload.layer import OPS


def networks(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """Return the steps of each network, by its title."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.network, []).append(step)
    return found


def of_network(steps: Sequence[Step]) -> str:
    """Return in words what the steps of one network are."""
    first, workload = steps[0], WORKLOADS[steps[0].network]
    noun, *more = workload.what.split()
    samples = " ".join([str(first.samples), noun + "s" * (first.samples != 1), *more])
    return f"{workload.title}: a training step of {samples}"


def about(steps: Sequence[Step]) -> list[str]:
    """Return in words what the figures are of."""
    channels = "as uneven as trained ones" if steps[0].uneven else "all alike"
    config = next(entries())[1].machine.config
    return [
        "; ".join(of_network(own) for own in networks(steps).values())
        + "; all layers, and everything else",
        f"each machine with {MULTIPLIERS} multipliers, {config.vector_width} vector lanes, "
        f"{config.clock_mhz} MHz, {config.dtype}, {config.bandwidth_mb_per_s // 1000} GB/s",
        f"synthetic masks of random weights, channels {channels}",
    ]


def causes(steps: Sequence[Step]) -> list[str]:
    """Return in words why figures are as they are."""
    found = [
        "Dense training has zeros too: in ResNet-50 half of the activations, behind a ReLU, in "
        "GPT-2 what a causal mask hides of attention's products; a GELU and norms make none. "
        "Machines that skip zeros skip those",
        "SWAT-U drops weights forward and for the input gradient, activations for the weight "
        "gradient; 2:4 and RigL drop weights alone; RigL looks at the gradients of the weights "
        "that it has, and of others only where it changes its mask, which this step does not; "
        "bit-tactical schedules weights, and its weight gradient is dense",
        "PEs of scnn, scnn-queued and swat lie on the image's plane, 16 x 16 of them: small "
        "planes leave most of them without a position. Tokens are laid out as a plane there",
    ]
    found += [_elsewhere(own) for own in networks(steps).values()]
    packed = [step for step in steps if _share_compressed(step)]
    found += [_of_pattern(step) for step in packed]
    looked = [step for step in steps if step not in packed and step.obeying_wgrad]
    if looked:
        groups = ", ".join(
            f"{step.network} {step.method} {step.obeying_fprop:.1%}" for step in looked
        )
        found.append(
            "an operand is compressed if each of its groups obeys. Under the other methods none "
            f"is, for they choose weights without regard to groups: of those forward {groups} obey"
        )
    return found


def _elsewhere(steps: Sequence[Step]) -> str:
    """Return what everything else takes in the steps of one network."""
    first = steps[0]
    own = {step.method: step.policy_ms for step in steps if step.policy_ms}
    more = ", ".join(f"{ms:.2f} ms under {method}" for method, ms in own.items())
    return (
        f"norms, activations, softmax, additions, loss and optimizer of {first.network} take "
        f"{first.other_ms - first.policy_ms:.2f} ms on each machine"
        + (f", choosing and applying masks {more} beside that" if more else "")
    )


def _share_compressed(step: Step) -> float:
    return float(sum(getattr(step, f"compressed_{op}") for op in OPS))


def _of_pattern(step: Step) -> str:
    """Return how much of a step ran compressed, and how nearly the rest would."""
    shares = ", ".join(f"{op} {getattr(step, f'compressed_{op}'):.0%}" for op in OPS)
    return (
        f"{step.network} under {step.method} on {step.machine}: compressed are, of each op's "
        f"multiply-accumulates, {shares}. The mask has its pattern along the channels, which fprop "
        f"adds up; dgrad adds up along the filters, where {step.obeying_dgrad:.0%} of the groups "
        "obey (a transposable mask has both), and wgrad reads no weights"
    )
