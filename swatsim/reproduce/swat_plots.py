"""Pictures of the reproduction: what belongs to which machine, and where reductions come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swatsim.reports.series import bars, speed_up_curves
from swatsim.reports.style import Figure
from swatsim.reproduce import swat
from swatsim.reproduce.swat_speed import MACHINES, PUBLISHED, SPARSITIES, SpeedUp, pick
from swatsim.workload.layer import OpName

#: Direction of the poster -> the op that it fits.
DIRECTIONS: dict[str, OpName] = {"forward": "fprop", "backward": "dgrad"}
NAMES = {"swat": "swat (dgrad dilated)", "scnn": "scnn (dgrad split)"}


def speed_ups(measured: Sequence[SpeedUp], direction: str) -> Figure:
    """Return a plot of one direction's speed-up against sparsity, on all machines and published."""
    op = DIRECTIONS[direction]
    machines = [name for name in MACHINES if not (op == "fprop" and name == "scnn")]
    curves = {}
    for name in machines:
        label = NAMES.get(name, name) if op == "dgrad" else name
        curves[label] = [(s, pick(measured, name, op, s)) for s in SPARSITIES]
    curves["swat, channels as uneven as trained ones"] = [
        (s, pick(measured, "swat", op, s, uneven=True)) for s in SPARSITIES
    ]
    published = [(float(s), speed_up) for s, speed_up in PUBLISHED[direction].items()]
    return speed_up_curves(
        curves,
        title=f"ResNet-50's 53 convolutions, SWAT-U, {direction} ({op}); synthetic masks, "
        "batch 1,\nhalf of the activations non-zero, first convolution dense; compute cycles only",
        baseline="each machine's own dense baseline",
        published={"published by SWAT": published},
        top=8,
    )


def flops_per_layer(sparsity: int = 80) -> Figure:
    """Return a plot of each layer's training MACs, dense and sparse, under both conventions."""
    series = swat.macs_per_layer(sparsity)
    return bars(
        {name: {k: v / 1e9 for k, v in values.items()} for name, values in series.items()},
        title=f"ResNet-50, SWAT-U at {sparsity} %: MACs of a training step of one image. The "
        "conventions differ in strided layers (dgrad over inserted zeros) and in the first "
        f"layer's dgrad.\n{_saved(series, ('swat', 'exact'), 'counted as ')}",
        ylabel="GMAC",
    )


def memory_per_layer(sparsity: int = 80, batch: int = 32) -> Figure:
    """Return a plot of the bytes of each layer's input and weights until the backward pass."""
    series = swat.bytes_per_layer(sparsity, batch)
    dense = sum(series["dense"].values())
    shares = ", ".join(
        f"{name.split(', ')[1]} {100 * (sum(values.values()) / dense - 1):+.0f} %"
        for name, values in series.items()
        if name != "dense"
    )
    return bars(
        {name: {k: v / 2**20 for k, v in values.items()} for name, values in series.items()},
        title=f"ResNet-50, SWAT-U at {sparsity} %, batch {batch}, fp32: inputs and weights that "
        "each convolution and the linear layer keep for the backward pass, by SWAT's count.\n"
        "No total of a step: what batch norms and ReLUs keep beside them is not shown. These bars "
        f"together: {shares}",
        ylabel="MiB",
    )


def _saved(series: Mapping[str, Mapping[str, float]], names: Sequence[str], prefix: str) -> str:
    """Return in words how much less the sparse series of a name adds up to than the dense one."""
    words = []
    for name in names:
        dense, sparse = (
            sum(values.values()) for key, values in series.items() if key.endswith(prefix + name)
        )
        words.append(f"{prefix}{name} {100 * (sparse / dense - 1):+.1f} %")
    return "All layers: " + ", ".join(words)
