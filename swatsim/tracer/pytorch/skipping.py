"""Which modules and parameters a user leaves alone: by name, with all that is below, by pattern."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from swatsim.errors import RecordingError, unknown
from swatsim.tracer.pytorch.naming import layer_name


def checked_skip(skip: Collection[str], named: Mapping[str, nn.Module]) -> frozenset[str]:
    """Return the names of all modules and parameters to leave alone.

    Parameters
    ----------
    skip : collection of str
        Names of modules or parameters, or shell patterns of them (``"blocks.*.attn"``). A module is
        left alone with all that is in it.
    named : mapping of str to torch.nn.Module
        A model's modules, the model itself first.

    Raises
    ------
    RecordingError
        If it is no collection of names, or one of them matches nothing.
    """
    if isinstance(skip, str) or not isinstance(skip, Iterable):
        raise RecordingError(
            f"skip={skip!r} is not allowed: must be a collection of module names, such as ('fc',)"
        )
    parameters = _parameters(named)
    known = dict.fromkeys([*named, *parameters])
    chosen: set[str] = set()
    for name in skip:
        found = _matching(str(name), known)
        if not found:
            raise RecordingError(unknown("module to skip", str(name), named))
        chosen |= found
    root = next(iter(named), None)
    left = set(known) if root in chosen else _below(chosen, known)
    return frozenset(left | {parameters[name] for name in left & parameters.keys()})


def is_skipped(name: str, skip: Collection[str]) -> bool:
    """Whether a layer is left alone: by its name, or by that of the parameter it is a part of."""
    return bool(skip) and (name in skip or name.partition("[")[0] in skip)


def _matching(name: str, known: Collection[str]) -> set[str]:
    if name in known:  # also one with a character that means something in a pattern
        return {name}
    return {each for each in known if fnmatchcase(each, name)}


def _below(chosen: Collection[str], known: Iterable[str]) -> set[str]:
    tops = tuple(f"{name}." for name in chosen)
    return {name for name in known if name in chosen or name.startswith(tops)}


def _parameters(named: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the layer of each parameter; of the model's own by both names that they have."""
    root = next(iter(named), None)
    return {
        called: layer_name(path, name)
        for path, module in named.items()
        for name, _ in module.named_parameters(recurse=False)
        for called in (f"{path}.{name}", *([name] if path == root else []))
    }
