"""Masks that somebody else made, for layers of a table: which is whose, and whether it fits."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from swatsim.errors import RecordingError, WorkloadError, listed, shown
from swatsim.policies.draw import generator
from swatsim.tracer.mask_files import MALFORMED, NUMBERS, damaged, stored_in, unreadable
from swatsim.tracer.stored import Density, Given, Stored
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, Layer, Operand, OpName
from swatsim.workload.windows import Mask

log = logging.getLogger(__name__)

#: A path, several, or arrays by name.
Source: TypeAlias = (
    str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Any] | None
)
#: So many names stand in a warning.
NAMED = 3


class Key(NamedTuple):
    """Which masks of a layer: of one op, or of all that read the operand."""

    layer: str
    op: OpName | None
    operand: Operand


class GivenMasks:
    """Masks of some operands of some layers.

    Parameters
    ----------
    files : list of str
        Names of files, without their folders.
    found : mapping of Key to Stored or Density
    batch, seed : int
        Of masks that a density stands for.
    """

    def __init__(
        self, files: Sequence[str], found: Mapping[Key, Given], batch: int, seed: int
    ) -> None:
        self._files, self._found = list(files), found
        self._batch, self._seed = batch, seed

    def of(self, layer: Layer, operand: Operand, ops: Sequence[OpName]) -> dict[OpName, Mask]:
        """Return the masks that were given, by op; one that several ops read is read once.

        A weight is the same in all runs of its layer: `NAME@2` has that of `NAME`.

        Raises
        ------
        RecordingError
            If a file can't be read any more.
        """
        masks: dict[Key, Mask] = {}
        given: dict[OpName, Mask] = {}
        for op in ops:
            if (key := self._key(layer, op, operand)) is not None:
                if key not in masks:
                    masks[key] = self._read(self._found[key], layer, operand)
                given[op] = masks[key]
        return given

    def has(self, layer: Layer, operand: Operand) -> bool:
        """Whether a layer's mask of an operand was given, for all of its ops or for one."""
        return any(self._key(layer, op, operand) is not None for op in OPS)

    def _key(self, layer: Layer, op: OpName, operand: Operand) -> Key | None:
        names = [layer.name]
        if operand == "weight" and not layer.multiplies_activations:
            names.append(layer.name.partition("@")[0])
        keys = [Key(name, of, operand) for name in names for of in (op, None)]
        return next((key for key in keys if key in self._found), None)

    def _read(self, given: Given, layer: Layer, operand: Operand) -> Mask:
        shape = layer.shape_of(operand, self._batch)
        if isinstance(given, Density):
            rng = generator(self._seed, layer.name, OPERANDS.index(operand))
            return given.draw(given.share, shape, layer.channels_of(operand).axis, rng)
        try:
            return given.kept().reshape(shape)
        except OSError as error:
            raise unreadable(given.where, error.strerror or str(error)) from None
        except MALFORMED as error:
            raise damaged(given.where, error) from None

    def named(self, policy: Mapping[str, Any]) -> dict[str, Any]:
        """Return a policy's description with what the masks are from, as JSON.

        Where nothing else is dropped its name is `given`: zeros of a method are no dense training.
        """
        if not self._found:
            return dict(policy)
        name = "given" if policy.get("name") == "dense" else policy.get("name")
        return {**policy, "name": name, "masks": self._files or ["arrays"]}

    def describe(self) -> dict[str, Any]:
        """Return whose masks were given, as JSON, for the trace's provenance."""
        count = {
            name: len({it.layer for it in self._found if it.operand == name}) for name in OPERANDS
        }
        return {"masks": {"files": self._files, "layers_with": count}} if self._found else {}


def given_masks(
    source: Source, layers: Sequence[Layer], batch: int, seed: int, without_dgrad: str | None
) -> GivenMasks:
    """Return masks by layer, each known to fit.

    Names are ``LAYER`` (its weight), ``LAYER.OPERAND``, or ``LAYER.OP.OPERAND`` for one op alone.

    Parameters
    ----------
    source : path, sequence of paths, mapping of str to array, or None
        Of a folder all files are read; arrays hold bools or numbers.
    layers : sequence of Layer
    batch : int
        Samples that activations and gradients have.
    seed : int
        Of masks that a density stands for.
    without_dgrad : str or None
        The layer that has no dgrad.

    Raises
    ------
    RecordingError
        If something can't be read, a mask is of no layer or does not fit it, or nothing in a
        checkpoint is of a layer.
    """
    by_name = {layer.name: layer for layer in layers}
    found: dict[Key, Given] = {}
    sets, files = _sets(source)
    for where, tensors in sets:
        keys = {name: _key(name, by_name, it.is_mask) for name, it in tensors.items()}
        _check_known(where, tensors, keys, by_name)
        for name, key in keys.items():
            if key is not None:
                if key in found:
                    both = f"{tensors[name].where} and {found[key].where}"
                    raise RecordingError(f"{both} are masks of the same operand: give one")
                _check(tensors[name], key, by_name[key.layer], batch, without_dgrad)
                found[key] = tensors[name]
    return GivenMasks(files, found, batch, seed)


def _sets(source: Source) -> tuple[list[tuple[str, Mapping[str, Given]]], list[str]]:
    """Return tensors by where they are from, and names of files."""
    if source is None:
        return [], []
    if isinstance(source, Mapping):
        return [("masks", {name: _of_array(name, it) for name, it in source.items()})], []
    several = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths = [Path(one) for one in several]
    return [(str(path), stored_in(path)) for path in paths], [path.name for path in paths]


def _of_array(name: str, value: Any) -> Stored:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        array = np.asarray(None)
    where = f"masks[{shown(name)}]"
    wrong = (
        "" if array.dtype.kind in NUMBERS else f"it is {shown(value, 60)}, not an array of numbers"
    )
    return Stored(where, array.shape, partial(_not_zero, array), wrong, is_mask=True)


def _not_zero(array: np.ndarray[Any, Any]) -> Mask:
    return np.asarray(array != 0)


def _key(name: str, layers: Mapping[str, Layer], is_mask: bool) -> Key | None:
    """Return which mask is called so; None: of no layer. A checkpoint has weights alone."""
    if name in layers:
        return Key(name, None, "weight")
    rest, _, last = name.rpartition(".")
    operand = next((it for it in OPERANDS if it == last), None)
    if operand is None or not (is_mask or operand == "weight"):
        return None
    if rest in layers:
        return Key(rest, None, operand)
    layer, _, middle = rest.rpartition(".")
    op = next((it for it in OPS if it == middle), None)
    return Key(layer, op, operand) if op and is_mask and layer in layers else None


def _check_known(
    where: str,
    tensors: Mapping[str, Given],
    keys: Mapping[str, Key | None],
    layers: Mapping[str, Layer],
) -> None:
    """Refuse masks of no layer; of a checkpoint warn, for it has much that is no layer's."""
    strange = [name for name, key in keys.items() if key is None]
    masks = [name for name in strange if tensors[name].is_mask]
    weights = [name for name in strange if len(tensors[name].shape) > 1]
    if masks or all(key is None for key in keys.values()):
        said = _with_near(masks or weights or strange, layers) or "it is empty"
        raise RecordingError(
            f"{where}: no layer of the table is called so: {said}; names are LAYER, LAYER.OPERAND "
            f"({', '.join(OPERANDS)}) or LAYER.OP.OPERAND, layers {listed(layers, 5)}"
        )
    if weights:
        log.warning(
            "%s: %d of its tensors are of no layer in the table, and left out: %s",
            *(where, len(weights), _with_near(weights, layers)),
        )


def _with_near(names: Sequence[str], layers: Iterable[str]) -> str:
    """Return some names, each with the nearest one that a layer's weight has."""
    known = [name for layer in layers for name in (f"{layer}.weight", layer)]
    parts = []
    for name in names[:NAMED]:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        parts.append(f"{shown(name)} (near: {near[0]!r})" if near else shown(name))
    return listed([*parts, *names[NAMED:]], NAMED)


def _check(stored: Given, key: Key, layer: Layer, batch: int, without_dgrad: str | None) -> None:
    """Refuse a mask that can't be read, is of an op that does not read it, or does not fit."""
    where = stored.where
    if stored.wrong:
        raise unreadable(where, stored.wrong)
    if key.op is not None and key.operand not in OPERANDS_OF[key.op]:
        reads = " and ".join(OPERANDS_OF[key.op])
        raise RecordingError(f"{where}: {key.op} does not read {key.operand}, but {reads}")
    if key.op == "dgrad" and layer.name == without_dgrad:
        raise RecordingError(
            f"{where}: layer {layer.name!r} has no dgrad: what it reads is the network's input"
        )
    if isinstance(stored, Density):
        if refusal := stored.refuses(layer):
            raise RecordingError(f"{where} is of another layer: {refusal}")
        return
    expected = layer.shape_of(key.operand, batch)
    if _without_ones(stored.shape) != _without_ones(expected) or stored.shape[:1] != expected[:1]:
        try:
            layer.check_shape(key.operand, stored.shape, batch)
        except WorkloadError as error:
            raise RecordingError(f"{where}: {error}, batch {batch}") from None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without sides of 1: a linear layer may be stored as a 1 x 1 convolution."""
    return tuple(side for side in shape if side != 1)
