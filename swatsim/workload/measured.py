"""What was measured of a training step's memory, beside the model of `footprint`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from swatsim.workload.footprint import PARAMETER, Footprint, Row

#: Kinds of rows whose size does not grow with the batch.
_OF_NO_SAMPLE = ("weight", "statistics")


@dataclass(frozen=True)
class Beside:
    """What a module saves for the backward pass, each tensor once, shared with others or not.

    Parameters
    ----------
    module : str
    measured, modelled : int
        Bytes.
    why : str
        Where they differ: what the model leaves out, or takes for a copy.
    """

    module: str
    measured: int
    modelled: int
    why: str = ""


def compare(measured: Mapping[str, int], footprint: Footprint) -> list[Beside]:
    """Return what each module saved beside what the model says that it saves.

    Parameters
    ----------
    measured : mapping of str to int
        Module -> bytes, as `swatsim.tracer.pytorch.Kept` measures them.
    footprint : Footprint
        Of the same batch, in the format "dense" where zeros were stored.

    Returns
    -------
    list of Beside
        In the order of the footprint, then what it lacks.
    """
    rows: dict[str, list[Row]] = {}
    for row in footprint.rows:
        rows.setdefault(_module(row.layer, measured), []).append(row)
    return [
        _beside(name, measured.get(name, 0), rows.get(name, []))
        for name in dict.fromkeys([*rows, *measured])
        if name in measured or _bytes(rows[name])
    ]


def of_batch(
    footprint: Footprint,
    samples: int,
    batch: int,
    own: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> Footprint:
    """Return for a whole batch what was counted for some of its samples; of dense rows, exactly.

    Parameters
    ----------
    footprint : Footprint
    samples, batch : int
        So many samples were counted, of so many.
    own : mapping of str to (int, int), optional
        The same of layers that have a batch of their own, by name.
    """
    return Footprint(tuple(_scaled(footprint.rows, (samples, batch), own)))


def _scaled(
    rows: Iterable[Row], all_others: tuple[int, int], own: Mapping[str, tuple[int, int]]
) -> Iterator[Row]:
    for row in rows:
        samples, batch = own.get(row.layer, all_others)
        if row.kind in _OF_NO_SAMPLE:
            yield row
        else:
            elements, size = row.elements * batch // samples, row.bytes * batch // samples
            yield replace(row, elements=elements, bytes=size)


def _module(layer: str, measured: Mapping[str, int]) -> str:
    """Return the module of a row: of a second run, of a later call, and of a function's caller."""
    name = layer.partition("@")[0]
    called_again, caller = re.sub(r"_\d+$", "", name), name.rpartition(".")[0]
    return next((it for it in (name, called_again, caller) if it in measured), name)


def _bytes(rows: Iterable[Row]) -> int:
    """Return the bytes of a module's tensors, each once, whoever else keeps it; not a parameter."""
    sizes = {row.source or f"{row.layer} {row.tensor}": row for row in rows}
    return sum(row.bytes for row in sizes.values() if row.shares != PARAMETER)


def _beside(name: str, measured: int, rows: list[Row]) -> Beside:
    modelled = _bytes(rows)
    return Beside(name, measured, modelled, _why(measured, modelled, {row.kind for row in rows}))


def _why(measured: int, modelled: int, kinds: set[str]) -> str:
    if measured == modelled:
        return ""
    if not modelled:
        return "not in the model: no layer, and in no table of the network that was given"
    if not measured:
        return "nothing of it was saved: frozen, without gradient, or in a checkpoint"
    if "dropout" in kinds and measured > modelled:
        return "on a CPU dropout keeps its mask in the type of the values; the model has bytes"
    if measured > modelled:
        return "the module keeps more than the tensors that the model knows"
    return "the model has a tensor of it that was not saved, or that is a parameter"
