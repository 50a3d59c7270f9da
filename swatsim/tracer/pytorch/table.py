"""A layer table from a PyTorch model: what it runs, in order, and what each module saves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.graph import PRODUCTS, ForwardPass, Saved, weight_of
from swatsim.tracer.pytorch.layout import Layout
from swatsim.tracer.pytorch.modules import Geometry, describe, is_plain, linear
from swatsim.tracer.pytorch.saved_tensors import storages
from swatsim.tracer.pytorch.watch import Frame
from swatsim.tracer.pytorch.words import (
    TYPES,
    dtype_of,
    is_one_of_torchs,
    kind_of,
    operation_of,
    part_of,
    size_of,
    values_of,
)
from swatsim.workload import footprint, tables
from swatsim.workload.layer import Layer
from swatsim.workload.tables import SAVED_KINDS, VALUES, Network
from swatsim.workload.work import Extent

log = logging.getLogger(__name__)


def layer_table(model: nn.Module, example_input: Tensor, name: str = "") -> Network:
    """Return the layers that a model runs and what its modules save for the backward pass.

    Runs the model forward twice as it trains, with gradients, on the samples of the example and
    one more (at least 2 and 3, which a batch norm needs): what differs grows with the batch.
    Modules are in training mode, or in their own if the model is. Its parameters, buffers and modes
    and torch's random state are as before afterwards. Nothing is listed by a list of functions:
    whatever autograd saves is there, under the module that runs, as `Kept` measures it; so
    ``footprint.of_network(table, batch=N)`` is what `Kept` gives for such a batch in one pass, in
    the model's value type, on this device. What is saved in the region of a checkpoint is not
    there.

    Layers are the modules Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d and Linear, and what
    else multiplies by a parameter: a function that a module calls, the projections of
    MultiheadAttention.

    Parameters
    ----------
    model : torch.nn.Module
    example_input : torch.Tensor, shape (N, ...)
        Its samples are repeated.
    name : str
        The network's; the model's class by default.

    Returns
    -------
    Network
        Layers named as in ``model.named_modules()``, a second run ``NAME@2``; a function that is a
        layer after its parameter. What else saves something is named after the module if it is
        one of torch's, after the module that calls and the operation if not: ``block.relu``,
        ``block.relu_1``.

    Raises
    ------
    RecordingError
        If an argument is no module or tensor, an input has no batch, or there is no layer.
    """
    _check(model, example_input)
    kind, samples = type(model).__name__, max(len(example_input), 2)
    shape = (len(example_input), *example_input.shape[1:])
    described = (name or kind, f"{kind}, as it ran on an input of {shape}")
    table, larger = _table(model, example_input, samples), _table(model, example_input, samples + 1)
    if not table.layers:
        raise RecordingError(f"{kind} runs no layer, nothing that multiplies by a parameter")
    _compare(table, larger, kind)
    found = table.network(*described)
    try:
        one = _table(model, example_input, 1)
    except ValueError:  # a batch norm that has one value a channel
        return found
    _compare(one, one, kind)
    alone = one.network(*described)
    return found if _same(alone, found) else replace(found, alone=alone)


def _check(model: Any, example_input: Any) -> None:
    if not isinstance(model, nn.Module):
        raise RecordingError(f"model is a {type(model).__name__}, must be a torch.nn.Module")
    if not isinstance(example_input, Tensor):
        got = type(example_input).__name__
        raise RecordingError(f"example_input is a {got}, must be a tensor such as the model reads")
    if not example_input.dim() or not len(example_input):
        shape = tuple(example_input.shape)
        raise RecordingError(f"example_input is {shape}, must have at least one sample, on axis 0")


def _table(model: nn.Module, example: Tensor, samples: int) -> _Table:
    """Return what the model runs and keeps on a number of samples."""
    with _as_it_trains(model, example):
        table = _Table(samples, sum(it.numel() for it in model.parameters()))
        forward = ForwardPass(model, table.before)
        x = example[torch.arange(samples, device=example.device) % len(example)]
        output = forward.run(x)
        inputs = {place: "input" for place, _ in storages(x)}
        table.read(forward.saved, {**forward.names, **inputs}, model)
        del output
    return table


@contextmanager
def _as_it_trains(model: nn.Module, example: Tensor) -> Iterator[None]:
    """Run the model in training mode, and leave modes, buffers and random numbers as they were."""
    modes = [(module, module.training) for module in model.modules()]
    owners = [(module, dict(module._buffers)) for module in model.modules()]
    kept = [(it, it._version, it.clone()) for it in model.buffers()]
    tensors = [example, *model.parameters()]
    devices = {it.device for it in tensors if it.device.type == "cuda"}
    if not model.training:
        model.train()
    try:
        with torch.random.fork_rng([*devices]), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, version, before in kept:
                if buffer._version != version:
                    buffer.copy_(before)
        for owner, buffers in owners:
            owner._buffers.update(buffers)


@dataclass(eq=False)
class _Entry:
    """A storage that something other than a layer saves, as far as one pass tells."""

    found: Saved
    name: str
    kind: str
    tensor: str
    larger: int = 0  # elements of one more sample


@dataclass
class _Table:
    """What one forward pass runs and keeps."""

    samples: int
    trained: int
    layers: list[tuple[int, Layer]] = field(default_factory=list)  # when each ran
    biased: set[str] = field(default_factory=set)
    inputs: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    entries: list[_Entry] = field(default_factory=list)
    acts: dict[str, _Entry] = field(default_factory=dict)
    values: torch.dtype = torch.float32
    _of_frame: dict[int, str] = field(default_factory=dict)
    _frames: list[Frame] = field(default_factory=list)  # so that no other takes its place
    _calls: dict[str, int] = field(default_factory=dict)
    _rows: dict[int, str] = field(default_factory=dict)
    _letters: dict[int, str] = field(default_factory=dict)
    _products: dict[int, list[str]] = field(default_factory=dict)

    def before(self, time: int, frame: Frame, module: Any, given: Any, named: Any) -> None:
        """Add a module that is a layer when it begins to run."""
        values = (*given, *named.values())
        x = next((value for value in values if isinstance(value, Tensor)), None)
        if x is not None and is_plain(module):
            layer = Layout.of(describe(frame.name, module, x), x, None, self.samples).layer
            self._of_frame[id(frame)] = self._add(layer, time, frame.name)
            self._frames.append(frame)
            if module.bias is not None:
                self.biased.add(frame.name)

    def read(self, saved: list[Saved], names: Mapping[int, str], model: nn.Module) -> None:
        """Add what was saved; `names` has what gave a storage, by its place."""
        self.values = values_of(saved, model)
        self._name_root(model)
        parameters = {id(it): name for name, it in model.named_parameters()}
        labels = _Labels(names)
        for found in saved:
            layer = self._layer(found, parameters)
            if found.own is not None:
                continue
            input = PRODUCTS.get(found.operation, ("", ""))[0]
            if layer and found.part == input:
                self._keep_input(layer, found, labels.of(found, layer[0]))
            else:
                kind = "weight" if layer else kind_of(found)
                name = layer[0] if layer else self._row(found)
                self.entries.append(_Entry(found, name, kind, labels.of(found, name)))

    def _name_root(self, model: nn.Module) -> None:
        for layer, module in self.modules.items():
            if module == type(model).__name__ and is_plain(model):
                self.modules[layer] = ""

    def _add(self, layer: Layer, time: int, module: str) -> str:
        """Add a layer, by the number of its run, and return its name."""
        again = sum(it.name.partition("@")[0] == layer.name for _, it in self.layers)
        if again:
            layer = layer.model_copy(update={"name": f"{layer.name}@{again + 1}"})
        self.layers.append((time, layer))
        self.modules[layer.name] = module
        return layer.name

    def _keep_input(self, layers: list[str], found: Saved, tensor: str) -> None:
        for name in layers:
            self.inputs[name] = tensor
            self.acts[name] = _Entry(found, name, "act", tensor)

    def _layer(self, found: Saved, parameters: Mapping[int, str]) -> list[str]:
        """Return the layers whose product saves a tensor; more than one if torch runs them as one.

        A product that a module's own forward does not run is a layer if it is by a parameter.
        """
        if found.operation not in PRODUCTS:
            return []
        if id(found.frame) in self._of_frame:
            return [self._of_frame[id(found.frame)]]
        key = id(found.node)
        if key not in self._products:
            self._products[key] = self._by_parameter(found, parameters)
        return self._products[key]

    def _by_parameter(self, found: Saved, parameters: Mapping[int, str]) -> list[str]:
        weight = weight_of(found.node)
        name = parameters.get(id(weight)) if weight is not None else None
        if weight is None or name is None:
            return []
        layers = self._described(found, weight, name.removesuffix(".weight"))
        return [self._add(layer, found.time, found.module) for layer in layers]

    def _described(self, found: Saved, weight: Tensor, name: str) -> list[Layer]:
        """Return the layers of a product by a parameter, or by a part of it."""
        if found.operation == "convolution":
            return [_convolution(found.node, weight, name)]
        sizes = _sizes(found)
        if sizes is None:
            return []
        rows, C, K = sizes
        positions = rows // self.samples if rows % self.samples == 0 else rows
        if isinstance(found.frame.module, nn.MultiheadAttention) and "in_proj" in name:
            return self._projections(found.frame, K, C, positions)
        return [linear(name, K, C, positions)]

    def _projections(self, frame: Frame, K: int, C: int, positions: int) -> list[Layer]:
        """Return the layers of attention's q, k and v, of which torch may run several as one."""
        self._frames.append(frame)
        size: Any = frame.module.embed_dim
        letters = self._letters.get(id(frame), "qkv")
        these, self._letters[id(frame)] = letters[: K // size], letters[K // size :]
        return [linear(f"{frame.name}.in_proj_{it}", size, C, positions) for it in these]

    def _row(self, found: Saved) -> str:
        """Return the name of a row: one for all that an operation saves."""
        key = id(found.node) if found.node is not None else id(found)
        if key not in self._rows:
            name = found.module if is_one_of_torchs(found.frame.module) else ""
            name = name or f"{found.module}.{operation_of(found)}".lstrip(".")
            count = self._calls[name] = self._calls.get(name, -1) + 1
            self._rows[key] = f"{name}_{count}" if count else name
        return self._rows[key]

    def network(self, name: str, citation: str) -> Network:
        """Return all of it."""
        layers = tuple(layer for _, layer in sorted(self.layers, key=lambda pair: pair[0]))
        what = (layers, tuple(self.saved()), frozenset(self.biased), self.inputs)
        return Network(name, citation, *what, self.extents(), self.modules, self.trained)

    def saved(self) -> list[tables.Saved]:
        """Return what all but the layers saves; an operation's statistics as one."""
        rows: dict[Any, tables.Saved] = {}
        for entry in self.entries:
            row = self._saved(entry)
            key = (row.name, row.kind) if row.kind == "statistics" else id(entry)
            before = rows.get(key)
            if before is not None:
                more = {"C": before.C + row.C, "fixed": before.fixed + row.fixed}
                row = replace(before, **more)  # type: ignore[arg-type]
            rows[key] = row
        return [*rows.values()]

    def _saved(self, entry: _Entry) -> tables.Saved:
        """Return a row of the table, with what grows with the batch apart."""
        extent, found = self._extent(entry), entry.found
        C, H, *rest = (*found.shape[1:], 1, 1)
        sizes = (C, H, prod(rest))
        if prod(sizes) != extent.sample or entry.kind == "statistics":
            sizes = (extent.sample, 1, 1)
        part, dtype = part_of(found, entry.kind), dtype_of(found, self.values)
        usual, own = SAVED_KINDS.get(entry.kind, ("input", None))
        return tables.Saved(
            entry.name,
            entry.kind,
            *sizes,
            entry.tensor,
            part="" if part == usual else part,
            dtype=None if (own or VALUES) in (dtype, TYPES.get(found.dtype)) else dtype,
            fixed=extent.fixed,
            module=found.module,
        )

    def extents(self) -> dict[str, Extent]:
        """Return the elements of inputs that are a part of what is kept."""
        shapes = {layer.name: layer.shape_of("act", 1) for _, layer in self.layers}
        found = {}
        for name, entry in self.acts.items():
            extent = self._extent(entry)
            if extent != Extent(prod(shapes[name])):
                found[entry.tensor] = extent
        return found

    def _extent(self, entry: _Entry) -> Extent:
        elements = size_of(entry.found)
        return Extent(entry.larger, elements - self.samples * entry.larger)


class _Labels:
    """Names of storages, each its own: after what gave it, else after what keeps it first."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._labels: dict[int, str] = {}

    def of(self, found: Saved, keeper: str) -> str:
        """Return a storage's name."""
        if found.place not in self._labels:
            name = self._names.get(found.place) or f"{keeper}.{found.part}".removesuffix(".result")
            taken = sum(it.partition(" (")[0] == name for it in self._labels.values())
            self._labels[found.place] = f"{name} ({taken + 1})" if taken else name
        return self._labels[found.place]


def _compare(table: _Table, larger: _Table, kind: str) -> None:
    """Find what one more sample adds to each storage; a batch's share where nothing fits."""
    pairs = [*zip(_entries(table), _entries(larger), strict=False)]
    same = len(_entries(table)) == len(_entries(larger))
    if not same or any(one.found.what != other.found.what for one, other in pairs):
        message = (
            "%s does not do the same on %d samples as on %d: what it keeps is shared out evenly"
        )
        log.warning(message, kind, larger.samples, table.samples)
        pairs = [(entry, entry) for entry in _entries(table)]
    for one, other in pairs:
        more = size_of(other.found) - size_of(one.found)
        even = one is other or more < 0 or more * table.samples > size_of(one.found)
        one.larger = size_of(one.found) // table.samples if even else more


def _same(alone: Network, found: Network) -> bool:
    """Whether a table says of one sample what was found for it alone."""
    counted = (footprint.of_network(table).rows for table in (alone, found))
    one, other = ([(row.module, row.source, row.bytes) for row in rows] for rows in counted)
    return one == other


def _entries(table: _Table) -> list[_Entry]:
    return [*table.entries, *table.acts.values()]


def _sizes(found: Saved) -> tuple[int, int, int] | None:
    """Return the rows of a product's input, its columns, and those of its weight, if they show."""
    input, weight = (_shape(found, part) for part in PRODUCTS[found.operation])
    if input is None or weight is None or prod(input[:-2]) != 1 != prod(weight[:-2]):
        return None
    return prod(input[:-1]), input[-1], weight[-1]


def _shape(found: Saved, part: str) -> tuple[int, ...] | None:
    """Return the shape of a product's factor, saved or not."""
    sizes = getattr(found.node, f"_saved_{part}_sym_sizes", None)
    if sizes is None:
        factor = getattr(found.node, f"_saved_{part}", None)
        sizes = None if factor is None else factor.shape
    return None if sizes is None else tuple(sizes)


def _convolution(node: Any, weight: Tensor, name: str) -> Layer:
    """Return the layer of a call of a convolution's function."""
    extra = tuple(node._saved_output_padding) if node._saved_transposed else None
    sizes = (tuple(node._saved_stride), tuple(node._saved_padding), tuple(node._saved_dilation))
    geometry = Geometry.called(weight, *sizes, node._saved_groups, extra)
    return geometry.layer(name, tuple(node._saved_input.shape[2:]))
