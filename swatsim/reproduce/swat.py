"""What SWAT published beside what comes out here: speed-ups, FLOPs, memory, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from swatsim.policies import SwatU, site_densities
from swatsim.reproduce import swat_flops, swat_speed
from swatsim.reproduce.swat_flops import Comparison
from swatsim.reproduce.swat_speed import ACT_DENSITIES, SpeedUp, pick, together
from swatsim.workload import footprint
from swatsim.workload.flops import macs_dense, macs_expected
from swatsim.workload.layer import OPS, Layer, Operand, OpName
from swatsim.workload.networks import network
from swatsim.workload.storage import Density
from swatsim.workload.tables import Network

#: Of activations and of weights, in percent, from 50 to 90 % sparsity (abstract of the paper).
MEMORY = {"activations": (-23.0, -50.0), "weights": (-50.0, -90.0)}
MEMORY_SOURCE = "arXiv:2001.01969, abstract"
MEMORY_SPARSITIES = (50, 80, 90)
FORMATS = ("values", "bitmask", "csr", "run-length", "2:4")
#: What SWAT's two speed-ups are of.
_DIRECTIONS: tuple[tuple[str, OpName], ...] = (("forward", "fprop"), ("backward", "dgrad"))
DTYPES = ("fp32", "bf16")


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Parameters
    ----------
    section : {"speed-up", "FLOPs", "memory"}
    what : str
    published, ours : float or None
        None where nothing was published, or it can't be computed.
    unit : {"x", "%"}
    cause : str
        Where a difference comes from; empty if there is none to explain.
    source : str
        Of the published figure.
    """

    section: str
    what: str
    published: float | None
    ours: float | None
    unit: str
    cause: str
    source: str

    @property
    def difference(self) -> float | None:
        """Ours minus published: in percent of the published for speed-ups, else in points."""
        if self.published is None or self.ours is None:
            return None
        gap = self.ours - self.published
        return 100 * gap / self.published if self.unit == "x" else gap


def lines(speed_ups: Sequence[SpeedUp]) -> list[Line]:
    """Return the table's lines, from simulated speed-ups and from layer tables."""
    speed = (_forward, _backward, _queued)
    return [*(line for of in speed for line in of(speed_ups)), *_flops(), *_memory()]


def verdict(measured: Sequence[SpeedUp]) -> str:
    """Return in words which machine the published speed-ups belong to, and how sure that is."""
    one_sided = max(
        one.speed_up for one in measured if one.machine in ("tensordash", "bit-tactical")
    )
    ranges = []
    for direction, op in _DIRECTIONS:
        for sparsity in (80, 90):
            mine = [
                one.speed_up
                for one in measured
                if (one.machine, one.op, one.sparsity) == ("swat", op, sparsity)
            ]
            published = swat_speed.PUBLISHED[direction][sparsity]
            ranges.append(
                f"{direction} at {sparsity} % {min(mine):.2f} to {max(mine):.2f}x ({published}x)"
            )
    return (
        "Which machine: one that skips the zeros of both operands. Those that skip one operand's, "
        f"in a window of three lines, reach {one_sided:.2f}x at most, and can't pass 3x. SCNN's "
        "published geometry, compute cycles only, over its own dense cycles without bank "
        "conflicts, gives, over all activation densities and evennesses tried, "
        f"{'; '.join(ranges)}; published in brackets. How sure: a fit, not a citation. The authors "
        "name DNNsim but no geometry, another machine of this kind could give the same, and their "
        "masks are not ours"
    )


# ---- speed-ups -----------------------------------------------------------------------------------


def _forward(measured: Sequence[SpeedUp]) -> Iterator[Line]:
    for sparsity, published in swat_speed.PUBLISHED["forward"].items():
        even = pick(measured, "swat", "fprop", sparsity)
        yield Line(
            section="speed-up",
            what=f"forward, {sparsity} %",
            published=published,
            ours=pick(measured, "swat", "fprop", 0, act_density=1.0) if sparsity == 0 else even,
            unit="x",
            cause=_forward_cause(measured, sparsity),
            source=swat_speed.SOURCE,
        )


def _forward_cause(measured: Sequence[SpeedUp], sparsity: int) -> str:
    ours = {d: pick(measured, "swat", "fprop", sparsity, act_density=d) for d in ACT_DENSITIES}
    spread = ", ".join(f"{density:.0%} {ours[density]:.2f}x" for density in ACT_DENSITIES)
    if sparsity == 0:
        return (
            "1x by definition of their baseline; ours is dense operands with bank conflicts over "
            f"none. Skipping the ReLU's zeros alone, by share of non-zero activations: {spread}"
        )
    uneven = pick(measured, "swat", "fprop", sparsity, uneven=True)
    return (
        f"geometry and activation density not stated; ours by share of non-zero activations: "
        f"{spread}; with channels as uneven as trained ones {uneven:.2f}x"
    )


def _backward(measured: Sequence[SpeedUp]) -> Iterator[Line]:
    for sparsity, published in swat_speed.PUBLISHED["backward"].items():
        yield Line(
            section="speed-up",
            what=f"backward (dgrad, dilated), {sparsity} %",
            published=published,
            ours=pick(measured, "swat", "dgrad", sparsity),
            unit="x",
            cause=_backward_cause(measured, sparsity),
            source=swat_speed.SOURCE,
        )


def _backward_cause(measured: Sequence[SpeedUp], sparsity: int) -> str:
    split = pick(measured, "scnn", "dgrad", sparsity)
    wgrad = pick(measured, "swat", "wgrad", sparsity)
    both = together(measured, "swat", ("dgrad", "wgrad"), sparsity)
    uneven = pick(measured, "swat", "dgrad", sparsity, uneven=True)
    words = (
        f"without inserted zeros (split) {split:.2f}x; wgrad {wgrad:.2f}x on a mapping of ours "
        f"(SCNN has none), both together {both:.2f}x"
    )
    if sparsity == 0:
        return (
            "above 1x because the zeros inserted into the gradients of strided layers are skipped, "
            f"for which the dilated baseline pays; {words}"
        )
    return (
        "it fits the input gradient counted over zero-stuffed gradients; with channels as uneven "
        f"as trained ones {uneven:.2f}x; {words}"
    )


def _queued(measured: Sequence[SpeedUp]) -> Iterator[Line]:
    """Yield what a queue before each bank of accumulators makes of the published speed-ups."""
    for direction, op in _DIRECTIONS:
        for sparsity, published in swat_speed.PUBLISHED[direction].items():
            if sparsity == 0:
                continue
            without = pick(measured, "swat", op, sparsity)
            uneven = pick(measured, swat_speed.QUEUED, op, sparsity, uneven=True)
            yield Line(
                section="speed-up",
                what=f"with a queue before each bank: {direction}, {sparsity} %",
                published=published,
                ours=pick(measured, swat_speed.QUEUED, op, sparsity),
                unit="x",
                cause=f"the same machine and masks, where a bank holds {swat_speed.QUEUE} products "
                f"back instead of stopping the multipliers: {without:.2f}x without; with channels "
                f"as uneven as trained ones {uneven:.2f}x",
                source=swat_speed.SOURCE,
            )


def with_queues(measured: Sequence[SpeedUp]) -> str:
    """Return in words what queues make of the published speed-ups."""
    pairs = [
        f"{direction} at {sparsity} % {pick(measured, 'swat', op, sparsity):.2f}x becomes "
        f"{pick(measured, swat_speed.QUEUED, op, sparsity):.2f}x"
        for direction, op in _DIRECTIONS
        for sparsity in swat_speed.PUBLISHED[direction]
        if sparsity
    ]
    return (
        "With queues: the machine that fits has none, and a pair of blocks holds the multipliers "
        f"until its fullest bank is done. With a queue of {swat_speed.QUEUE} products before each "
        f"bank the same masks give more: {'; '.join(pairs)}. So the published figures owe a good "
        "part to bank conflicts that a queue removes, over a dense baseline that has none in "
        "either case. How deep a queue the authors simulated is not known: the fit says none"
    )


# ---- FLOPs ---------------------------------------------------------------------------------------


def _flops() -> Iterator[Line]:
    for comparison in swat_flops.compare():
        yield Line(
            section="FLOPs",
            what=_what(comparison),
            published=comparison.published,
            ours=comparison.swat,
            unit="%",
            cause=_flops_cause(comparison),
            source=comparison.row.source,
        )
    for comparison in swat_flops.leads():
        yield Line(
            section="FLOPs",
            what=f"{_what(comparison)}, were it Erdos-Renyi",
            published=comparison.published,
            ours=comparison.swat,
            unit="%",
            cause=_flops_cause(comparison),
            source=comparison.row.source,
        )


def _what(comparison: Comparison) -> str:
    row = comparison.row
    structured = ", structured" if row.granularity == "structured" else ""
    words = {
        "training": "training FLOP reduction",
        "inference": "inference FLOP reduction",
        "activation": "activation sparsity",
    }
    where = f"{row.network}, {row.method}{structured}, {row.weight_sparsity:g} %"
    return f"{where}: {words[comparison.quantity]}"


def _flops_cause(comparison: Comparison) -> str:
    """Return what the exact convention gives, where it is another figure, and why ours differs."""
    parts = [comparison.cause]
    if (
        comparison.exact is not None
        and comparison.swat is not None
        and comparison.quantity == "training"
    ):
        parts.append(f"counted exactly {comparison.exact:.1f} %")
    return "; ".join(part for part in parts if part)


def macs_per_layer(sparsity: int) -> dict[str, dict[str, float]]:
    """Return each layer's training MACs of one image, dense and sparse, under both conventions."""
    layers = network(swat_speed.NETWORK).layers
    densities = site_densities(SwatU(sparsity / 100), layers)
    series: dict[str, dict[str, float]] = {}
    for convention in ("swat", "exact"):
        dense = series.setdefault(f"dense, counted as {convention}", {})
        sparse = series.setdefault(f"{sparsity} %, counted as {convention}", {})
        for index, layer in enumerate(layers):
            ops = [op for op in OPS if (index, op, convention) != (0, "dgrad", "exact")]
            dense[layer.name] = sum(macs_dense(layer, 1, op, convention) for op in ops)
            sparse[layer.name] = sum(
                macs_expected(layer, 1, op, densities, convention) for op in ops
            )
    return series


# ---- memory --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What a training step keeps for its backward pass, against dense training, in percent.

    Parameters
    ----------
    sparsity : int
    format, dtype : str
    activations, weights : float
        Inputs of convolutions, linear layers and batch norms; weights: SWAT's count.
    everything : float
        What an autograd framework keeps, each tensor once.
    everything_relu_bits : float
        The same with one bit an element for each ReLU instead of its dense output.
    """

    sparsity: int
    format: str
    dtype: str
    activations: float
    weights: float
    everything: float
    everything_relu_bits: float


def memory(batch: int = 32) -> list[Memory]:
    """Return ResNet-50's footprint in each format and type; 2:4 is a pattern of half density."""
    table = network(swat_speed.NETWORK)
    return [
        _memory_row(table, sparsity, format, dtype, batch)
        for sparsity in MEMORY_SPARSITIES
        for format in FORMATS
        for dtype in DTYPES
        if format != "2:4" or sparsity == 50
    ]


def _density(table: Network, sparsity: int) -> footprint.DensityOf:
    """Return SWAT-U's densities of saved tensors: act as wgrad reads it, weight as dgrad does."""
    densities = site_densities(SwatU(sparsity / 100), table.layers)

    def density(layer: Layer, operand: Operand) -> Density | None:
        return densities.get((layer.name, "wgrad" if operand == "act" else "dgrad", operand))

    return density


def _memory_row(table: Network, sparsity: int, format: str, dtype: str, batch: int) -> Memory:
    density = _density(table, sparsity)
    options = {"batch": batch, "format": format, "dtype": dtype}
    sparse = footprint.of_network(table, density, **options)  # type: ignore[arg-type]
    bits = footprint.of_network(table, density, relu_bits=True, **options)  # type: ignore[arg-type]
    dense = footprint.of_network(table, batch=batch, dtype=dtype)
    return Memory(
        sparsity=sparsity,
        format=format,
        dtype=dtype,
        activations=-100 * footprint.reduction(sparse.activations, dense.activations),
        weights=-100 * footprint.reduction(sparse.weights, dense.weights),
        everything=-100 * footprint.reduction(sparse.everything, dense.everything),
        everything_relu_bits=-100 * footprint.reduction(bits.everything, dense.everything),
    )


def _memory() -> Iterator[Line]:
    rows = memory()
    values = {r.sparsity: r for r in rows if (r.format, r.dtype) == ("values", "fp32")}
    for kind, ends in MEMORY.items():
        for sparsity, published in zip((50, 90), ends, strict=True):
            yield Line(
                section="memory",
                what=f"{kind} kept for the backward pass, {sparsity} %",
                published=published,
                ours=getattr(values[sparsity], kind),
                unit="%",
                cause=_memory_cause(rows, kind, sparsity),
                source=MEMORY_SOURCE,
            )


def _memory_cause(rows: Sequence[Memory], kind: str, sparsity: int) -> str:
    mine = [row for row in rows if row.sparsity == sparsity and row.dtype == "fp32"]
    formats = ", ".join(
        f"{r.format} {getattr(r, kind):+.0f} %" for r in mine if r.format != "values"
    )
    words = f"values only, as theirs; with metadata, fp32: {formats}"
    if kind == "weights":
        return words
    whole = next(row for row in mine if row.format == "values")
    return (
        "theirs is a range over networks and sparsities, ours ResNet-50: its batch norms keep "
        f"dense inputs, which bounds it; {words}. What autograd keeps in all, each tensor once: "
        f"{whole.everything:+.0f} %, for SWAT's Top-K'd copies lie beside the dense outputs that "
        f"the ReLUs keep ({whole.everything_relu_bits:+.0f} % if a ReLU keeps one bit an element)"
    )


def bytes_per_layer(sparsity: int, batch: int) -> dict[str, dict[str, float]]:
    """Return the bytes of each layer's input and weights, dense and in three formats, fp32."""
    table = network(swat_speed.NETWORK)
    density = _density(table, sparsity)
    return {
        "dense": _sum_per_layer(footprint.of_network(table, batch=batch)),
        **{
            f"{sparsity} %, {format}": _sum_per_layer(
                footprint.of_network(table, density, batch=batch, format=format)
            )
            for format in ("values", "bitmask", "csr")
        },
    }


def _sum_per_layer(counted: footprint.Footprint) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in counted.rows:
        if row.kind in ("act", "weight"):
            total[row.layer] = total.get(row.layer, 0) + row.bytes
    return total
