"""What compared results are called: what tells them apart, and nothing that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from swatsim.reports.compared import Compared
from swatsim.reports.methods import method

#: Between a method and the machine that it runs on.
ON = " on "
#: Steps that a label lists.
LISTED = 4
#: Work is called the same within this share of it.
SAME_WORK = 0.01


def labels_of(every: Sequence[Compared]) -> list[str]:
    """Return a label for each, all different: the method and the machine, where these differ."""
    methods, machines = methods_of(every), machines_of(every)
    pairs = zip(methods, machines, strict=True)
    return apart([ON.join(filter(None, pair)) for pair in pairs], every)


def methods_of(every: Sequence[Compared]) -> list[str]:
    """Return what tells the trace of each from others'; "" if there is but one."""
    first = {one.trace_id: one for one in every}
    if len(first) == 1:
        return [""] * len(every)
    words = [method(one.policy) for one in first.values()]
    full = [_parameters(one.policy, first.values()) for one in first.values()]
    traces = [one.trace for one in first.values()]
    both = [", ".join(filter(None, pair)) for pair in zip(words, traces, strict=True)]
    same = _same_work(list(first.values()))
    tried = [*((words, full) if same else ()), traces, both]
    ids = [f"{name} {id}" for name, id in zip(both, first, strict=True)]
    names = dict(zip(first, next(filter(_differ, tried), ids), strict=True))
    return [names[one.trace_id] for one in every]


def _differ(names: Sequence[str]) -> bool:
    return all(names) and len(set(names)) == len(names)


def _same_work(every: Sequence[Compared]) -> bool:
    macs = [one.macs for one in every]
    return max(macs) - min(macs) <= SAME_WORK * max(macs)


def _parameters(policy: Mapping[str, Any], others: Iterable[Compared]) -> str:
    """Return a method with those of its parameters in which others of its name differ."""
    alike = [one.policy for one in others if one.policy.get("name") == policy.get("name")]
    differ = [key for key in policy if len({str(one.get(key)) for one in alike}) > 1]
    rest = [f"{key}={policy[key]}" for key in differ if key not in ("sparsity", "n", "m")]
    return " ".join([method(policy), *rest])


def machines_of(every: Sequence[Compared]) -> list[str]:
    """Return the machine of each without the settings that all share; "" if there is but one."""
    names = list(dict.fromkeys(one.machine.name for one in every))
    if len(names) == 1:
        return [""] * len(every)
    settings = [_settings(name) for name in names]
    shared = set.intersection(*(set(of) for _, of in settings))
    short = [_named(preset, [it for it in of if it not in shared]) for preset, of in settings]
    found = dict(zip(names, short if _differ(short) else names, strict=True))
    return [found[one.machine.name] for one in every]


def _settings(machine: str) -> tuple[str, list[str]]:
    preset, _, rest = machine.partition("[")
    return preset, [pair for pair in rest.removesuffix("]").split(",") if pair]


def _named(preset: str, settings: Sequence[str]) -> str:
    return f"{preset}[{','.join(settings)}]" if settings else preset


def apart(names: Sequence[str], every: Sequence[Compared]) -> list[str]:
    """Return names that differ: those that don't have what tells their results apart behind them.

    Where nothing does, or there is no name at all, they are numbered.
    """
    found = list(names)
    if not any(found):
        found = [ON.join(filter(None, (one.machine.name, one.trace))) for one in every]
    for name in {name for name in found if found.count(name) > 1}:
        places = [i for i, one in enumerate(found) if one == name]
        own = _told_apart([every[i] for i in places])
        for i, word in zip(places, own, strict=True):
            found[i] = f"{name} ({word})"
    return found


#: What else may tell results of one trace and machine apart.
_ELSE: Sequence[Callable[[Compared], str]] = (
    lambda one: " and ".join(one.span.ops),
    lambda one: "layers alone" if one.span.left_out else "whole steps",
    lambda one: f"{one.energy_table} energies",
    lambda one: f"step {', '.join(map(str, one.numbers[:LISTED]))}",
    lambda one: PurePath(one.source.place).name,
)


def _told_apart(alike: Sequence[Compared]) -> list[str]:
    for words in _ELSE:
        found = [words(one) for one in alike]
        if _differ(found):
            return found
    return [str(number) for number in range(1, len(alike) + 1)]
