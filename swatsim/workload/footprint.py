"""What a training step keeps for its backward pass: which tensors, and their bytes.

Two ways of counting, of the same rows:

- `Footprint.activations` and `Footprint.weights` are SWAT's (arXiv:2001.01969; what its code saves,
  github.com/AamirRaihan/SWAT): each convolution and linear layer keeps its input and its weights,
  both Top-K'd where the policy says so; each batch norm keeps its input, dense. Two layers that
  read the same tensor count twice, for each has a Top-K'd copy of its own. The published
  reductions of ResNet-50 come out so, values only, with the first convolution dense.
- `Footprint.everything` is PyTorch's: also what ReLU, pooling, dropout keep, and the statistics of
  the batch norms; but a tensor that several keep counts once (`Row.shares`), and a weight that is
  the parameter itself not at all. A ReLU's output is commonly the next convolution's input: dense
  training keeps it once. SWAT's Top-K'd copy does not do for the ReLU, whose gradient needs the
  sign of *every* output; so its dense output stays beside the copy. A test holds this count equal
  to what autograd saves, to the byte.

A product of two activations keeps both factors, which are activations: as a fused kernel of
attention does q, k and v. Of a layer table the probabilities are not there, for such a kernel
computes them once more; of a trace there is what its masks are of, probabilities too.

Not counted: parameters, gradients, optimizer state, workspace, and what the loss keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from swatsim.arguments import (
    accepted,
    arguments,
    flag,
    function,
    instance_of,
    iterable,
    maybe,
    string,
    whole_number,
)
from swatsim.errors import WorkloadError
from swatsim.workload import storage
from swatsim.workload.layer import Layer, Operand
from swatsim.workload.storage import Density
from swatsim.workload.tables import SAVED_KINDS, VALUES, Network, Saved
from swatsim.workload.windows import Mask

#: Kinds of rows that SWAT counts as activations: inputs of layers, and of batch norms.
ACTIVATIONS = ("act", "batch_norm")
WEIGHTS = ("weight",)

#: Types of what is kept beside values; "byte" is of any other type, byte by byte.
_BITS = {"int64": 64, "int32": 32, "fp64": 64, "bool": 8, "byte": 8, "bit": 1, **storage.DTYPES}

#: In `Row.shares`: a weight that no policy made a copy of.
PARAMETER = "parameter"

#: Of a product of two activations, what its factors are called.
FACTORS: Mapping[Operand, str] = {"act": "left", "weight": "right"}

#: What a layer keeps, in the order of the rows.
_KEPT: tuple[Operand, ...] = ("act", "weight")

#: Answers how dense the kept operand (weight or act) of a layer is; None: as it is, dense.
DensityOf = Callable[[Layer, Operand], Density | None]
#: Answers of which type the values of a layer's kept operand are; None: of the one that all have.
TypeOf = Callable[[Layer, Operand], str | None]


@dataclass(frozen=True)
class Row:
    """One saved tensor.

    Parameters
    ----------
    layer : str
        The module that keeps it.
    tensor : str
        Which of its tensors: act, weight; of a product of two activations left, right; input,
        output, mask, ..: `tables.Saved.part`.
    kind : str
        act, weight, or what it is in `tables.Saved.kind`.
    elements : int
        Of all samples.
    density : float
        Share of the elements that are kept.
    format, dtype : str
        How it is stored.
    bytes : int
    source : str
        Which tensor it is, named after what made it; empty if it is a copy of its own.
    shares : str
        What holds the same tensor already: a row (layer and tensor), or ``parameter``; empty if
        nothing does.
    module : str, optional
        Which module keeps it, where that is known; "" is the model.
    fixed : int
        Elements that do not grow with the batch.
    """

    layer: str
    tensor: str
    kind: str
    elements: int
    density: float
    format: str
    dtype: str
    bytes: int
    source: str = ""
    shares: str = ""
    module: str | None = None
    fixed: int = 0


@dataclass(frozen=True)
class Footprint:
    """The tensors that a training step saves for its backward pass."""

    rows: tuple[Row, ...]

    def of(self, *kinds: str) -> int:
        """Return the bytes of the rows of some kinds, shared or not."""
        return sum(row.bytes for row in self.rows if row.kind in kinds)

    @property
    def activations(self) -> int:
        """Bytes of the inputs of layers and batch norms: SWAT's count."""
        return self.of(*ACTIVATIONS)

    @property
    def weights(self) -> int:
        """Bytes of the weights of convolutions and linear layers."""
        return self.of(*WEIGHTS)

    @property
    def everything(self) -> int:
        """Bytes of all rows, each tensor once, beside the parameters: PyTorch's count."""
        return sum(row.bytes for row in self.rows if not row.shares)


def reduction(stored: int, dense: int) -> float:
    """Return by which share of the dense bytes the stored ones are fewer; negative if more."""
    return 1 - stored / dense if dense else 0.0


@arguments(
    WorkloadError,
    network=instance_of(Network),
    density=maybe(function),
    batch=whole_number,
    format=string,
    dtype=string,
    types=maybe(function),
    relu_bits=flag,
)
def of_network(
    network: Network,
    density: DensityOf | None = None,
    *,
    batch: int = 1,
    format: str = "values",
    dtype: str = "fp32",
    types: TypeOf | None = None,
    relu_bits: bool = False,
) -> Footprint:
    """Return what a network saves for its backward pass, from its layer table.

    Parameters
    ----------
    network : Network
    density : callable of (Layer, operand), optional
        How dense the act (of wgrad) and weight (of dgrad) that a layer keeps are, None for a
        tensor that is left as it is; without it, all are: dense training. It is not asked about
        products of two activations.
    batch : int
        Samples.
    format : str
        Of the tensors that have a density: see `storage`. The others are stored dense.
    dtype : str
        One of `value_types.DTYPES`, of weights and activations. Statistics of batch norms are fp32
        in any case.
    types : callable of (Layer, operand), optional
        Types of what layers keep, where they are others.
    relu_bits : bool
        Keep one bit an element of a ReLU's output where nothing else keeps that output: all that
        its gradient needs. PyTorch keeps the output.

    Raises
    ------
    WorkloadError
        If an argument is not allowed, or a density not storable in that format.
    """
    storage.check(format, dtype)
    _check_batch(batch)
    rows = []
    for layer in network.layers:
        for operand in _KEPT:
            asked = density is not None and not layer.multiplies_activations
            wanted = density(layer, operand) if asked and density else None
            own = _type_of(types, layer, operand, dtype)
            rows.append(_expected(layer, operand, wanted, batch, format, own))
    return _footprint(rows, batch, dtype, network, relu_bits)


@arguments(
    WorkloadError,
    masks=iterable,
    network=maybe(instance_of(Network)),
    format=string,
    dtype=string,
    types=maybe(function),
    relu_bits=flag,
)
def of_masks(
    masks: Iterable[tuple[Layer, Operand, Mask, bool]],
    *,
    network: Network | None = None,
    format: str = "values",
    dtype: str = "fp32",
    types: TypeOf | None = None,
    relu_bits: bool = False,
) -> Footprint:
    """Return what a training step saves for its backward pass, exactly, from its masks.

    Parameters
    ----------
    masks : iterable of (Layer, operand, mask, own)
        The act (as wgrad reads it) and weight (as dgrad does) of each layer, in the shapes of
        `Layer.shape_of`: as `Step.kept` of a trace yields them. `own` says whether it is a copy, as
        Top-K makes one, and not the parameter, or the tensor that other modules have too.
    network : Network, optional
        Adds what all else keeps. Its layers must be those of the masks, but for products of
        activations: where it has none, as `layer_table`'s, what keeps the factors is all else.
    format, dtype, types, relu_bits
        As in `of_network`; here also natural zeros are not stored.

    Raises
    ------
    WorkloadError
        If an argument is not allowed, a mask does not obey N:M, or the network is another.
    """
    storage.check(format, dtype)
    layers: dict[str, Layer] = {}
    rows, batch = list[Row](), 1
    for item in masks:
        layer, operand, mask, own = accepted(WorkloadError, "of_masks", "masks", item, _as_kept)
        if network and layer.multiplies_activations and layer.name not in network.rights:
            continue
        batch = max(batch, len(mask)) if operand == "act" else batch
        layers[layer.name] = layer
        kind = _type_of(types, layer, operand, dtype)
        rows.append(_exact(layer, operand, mask, own, format, kind))
    if network is not None:
        _check_same(network, layers)
    return _footprint(rows, batch, dtype, network, relu_bits)


def _type_of(types: TypeOf | None, layer: Layer, operand: Operand, dtype: str) -> str:
    """Return of which type the values of a layer's operand are; that of all, if nothing is said."""
    return (types and types(layer, operand)) or dtype


def _as_kept(item: Any) -> tuple[Layer, Operand, Mask, bool]:
    """Return one of the masks, checked."""
    if isinstance(item, tuple | list) and len(item) == 4:
        layer, operand, mask, own = item
        of = isinstance(layer, Layer) and isinstance(operand, str) and operand in _KEPT
        if of and isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim:
            return layer, operand, mask, bool(own)
    raise ValueError("must give (Layer, operand, mask, own), as Step.kept does")


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise WorkloadError(f"batch={batch!r} is not allowed: must be a number of samples, 1 up")


def _check_same(network: Network, layers: Mapping[str, Layer]) -> None:
    """Refuse a network whose layers are not those of the masks."""
    named = {layer.name: layer for layer in network.layers}
    for name in [*layers, *named]:
        if layers.get(name) != named.get(name):
            raise WorkloadError(
                f"layer {name!r} of the masks is ({layers.get(name, 'missing')}), of "
                f"{network.name!r} ({named.get(name, 'missing')}): name the network that was "
                "recorded, or none"
            )


def _expected(
    layer: Layer, operand: Operand, density: Density | None, batch: int, format: str, dtype: str
) -> Row:
    shape = layer.shape_of(operand, batch)
    wanted, wished = (1, "dense") if density is None else (density, format)
    with _naming(layer, operand):
        used, size = storage.expected(shape, wanted, wished, dtype, layer.channels_of(operand))
        ones = storage.retained(prod(shape), wanted)
    row = _row(layer, operand, prod(shape), ones, (used, dtype, size))
    return _as_it_is(row) if ones == row.elements else row


def _exact(layer: Layer, operand: Operand, mask: Mask, own: bool, format: str, dtype: str) -> Row:
    layer.check_shape(operand, mask.shape, len(mask))
    with _naming(layer, operand):
        used, size = storage.stored(mask, format, dtype, layer.channels_of(operand))
    row = _row(layer, operand, mask.size, int(np.count_nonzero(mask)), (used, dtype, size))
    return row if own or used != "dense" else _as_it_is(row)


def _row(
    layer: Layer, operand: Operand, elements: int, ones: int, stored: tuple[str, str, int]
) -> Row:
    kept, density = (layer.name, *_called(layer, operand), elements), ones / elements
    fixed = elements if kept[2] == "weight" else 0
    return Row(*kept, density, *stored, fixed=fixed)


def _called(layer: Layer, operand: Operand) -> tuple[str, str]:
    """Return what a layer's tensor is called, and its kind: both factors may be activations."""
    if layer.multiplies_activations:
        return FACTORS[operand], "act"
    return operand, operand


def _as_it_is(row: Row) -> Row:
    """Return a row as no copy: a weight is the parameter, an act some module's output.

    Which module's, `_footprint` knows.
    """
    return (
        replace(row, shares=PARAMETER) if row.kind == "weight" else replace(row, source=row.layer)
    )


@contextmanager
def _naming(layer: Layer, operand: Operand) -> Iterator[None]:
    """Add the tensor's name to a refusal."""
    try:
        yield
    except WorkloadError as error:
        raise WorkloadError(f"layer {layer.name!r}, {operand}: {error}") from None


def _footprint(
    rows: Iterable[Row], batch: int, dtype: str, network: Network | None, relu_bits: bool
) -> Footprint:
    """Return the tensors that layers save, named, with what the other modules save."""
    network = network.alone if network and network.alone and batch == 1 else network
    if network is None:
        return Footprint(tuple(replace(row, source="") for row in rows))
    named = [known for row in rows for known in _known(row, batch, network)]
    held = {row.source for row in named} | {it.tensor for it in network.saved if it.kind != "relu"}
    for item in network.saved:
        bits = relu_bits and item.kind == "relu" and item.tensor not in held
        named.append(_saved(item, batch, dtype, bits))
    return Footprint(tuple(_shared(named)))


def _known(row: Row, batch: int, network: Network) -> Iterator[Row]:
    """Yield what a layer keeps, as its network has it: nothing for an input that is not kept."""
    row = replace(row, module=network.modules.get(row.layer))
    read = network.rights if row.tensor == "right" else network.inputs
    tensor = read.get(row.layer, "")
    extent = network.extents.get(tensor)
    if row.kind == "act" and row.module is not None and not tensor:
        return
    if row.source and extent is not None:
        elements = extent.of(batch)
        size = _bytes(elements, row.dtype)
        row = replace(row, elements=elements, bytes=size, fixed=extent.fixed)
    yield replace(row, source=tensor if row.source else "")


def _saved(saved: Saved, batch: int, dtype: str, bits: bool) -> Row:
    part, own = SAVED_KINDS.get(saved.kind, ("input", VALUES))
    used = saved.dtype or own or VALUES
    used = "bit" if bits else dtype if used == VALUES else used
    elements = batch * saved.elements + saved.fixed
    stored = ("dense", used, _bytes(elements, used))
    source, tensor = "" if bits else saved.tensor, saved.part or part
    row = Row(saved.name, tensor, saved.kind, elements, 1.0, *stored, source)
    return replace(row, module=saved.module, fixed=saved.fixed)


def _bytes(elements: int, dtype: str) -> int:
    return (elements * _BITS[dtype] + 7) // 8


def _shared(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows, each with the row that holds its tensor already: of several the largest."""
    listed, holders = list(rows), dict[str, Row]()
    for row in listed:
        holders[row.source] = max(holders.get(row.source, row), row, key=lambda it: it.bytes)
    for row in listed:
        holder = holders[row.source] if row.source else row
        yield row if holder is row else replace(row, shares=f"{holder.layer} {holder.tensor}")
