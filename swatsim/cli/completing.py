"""Answering a shell that asks which words may come next, without loading what a verb needs.

What a verb's arguments may be is remembered, by the digest of the package's code: to find it out
takes as long as loading the verb, and the registries that it names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class

from swatsim.cache import folder_of, read, write
from swatsim.cli.lazy import LazyGroup, completed
from swatsim.provenance import sources

Known = dict[str, Any]

#: Of the characters at which bash tears words, those that stand in words of ours.
BREAKS = "=:"


def complete(group: LazyGroup, variable: str, instruction: str) -> int:
    """Print the words that may come next, and return the exit code.

    Parameters
    ----------
    group : LazyGroup
    variable : str
        The environment variable with which the shell asks.
    instruction : str
        Its value: the shell's name and "complete".
    """
    shell, _, what = instruction.rpartition("_")
    found = get_completion_class(shell)
    if found is None or what != "complete":
        return 1
    log = logging.getLogger("swatsim")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a warning would stand amid what is being typed
    try:
        asked = _Bash if shell == BashComplete.name else found
        click.echo(asked(_Remembered(group), {}, group.name or "", variable).complete())
    finally:
        log.setLevel(level)
    return 0


class _Bash(BashComplete):
    """Bash, which tears words at "=" and ":", and completes what stands behind the last of them."""

    _ahead = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, piece = super().get_completion_args()
        *args, whole = _joined([*args, piece])
        self._ahead = whole if _breaks(piece) else whole.removesuffix(piece)
        return args, whole

    def format_completion(self, item: CompletionItem[Any]) -> str:
        lengths = range(len(item.value), 0, -1)
        there = next((n for n in lengths if self._ahead.endswith(item.value[:n])), 0)
        return super().format_completion(CompletionItem(item.value[there:], type=item.type))


def _breaks(word: str) -> bool:
    return bool(word) and not word.strip(BREAKS)


def _joined(words: list[str]) -> list[str]:
    """Return words as they were typed; an empty one is a new one, whatever stands before it."""
    found = words[:1]
    for before, word in pairwise(words):
        if _breaks(word) or (word and _breaks(before)):
            found[-1] += word
        else:
            found.append(word)
    return found


class _Remembered(click.Group):
    """The verbs of a group, as they are remembered."""

    def __init__(self, group: LazyGroup) -> None:
        super().__init__(group.name, params=group.params, context_settings=group.context_settings)
        self._group = group

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._group.list_commands(ctx):
            return None
        version = sources()
        folder = folder_of(version) if version else None
        path = folder / f"{cmd_name}.words" if folder else None
        with suppress(OSError, ValueError):
            content = read(path) if path else None
            if content is not None:
                return _restored(json.loads(content))
        command = self._group.get_command(ctx, cmd_name)
        if path and command:
            with suppress(OSError):
                write(path, json.dumps(known_of(command)).encode())
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return self._group.shell_complete(ctx, incomplete)


def known_of(command: click.Command) -> Known:
    """Return what completion needs of a command, as JSON has it."""
    context = click.Context(command, info_name=command.name, resilient_parsing=True)
    found: Known = {"name": command.name, "help": command.get_short_help_str(100)}
    found["parameters"] = [_parameter(param, context) for param in command.params]
    if isinstance(command, click.Group):
        verbs = (command.get_command(context, name) for name in command.list_commands(context))
        found["verbs"] = [known_of(verb) for verb in verbs if verb is not None]
    return found


def _parameter(param: click.Parameter, context: click.Context) -> Known:
    items = param.shell_complete(context, "")
    items += [
        it
        for name in items
        if name.value.endswith("=")
        for it in param.shell_complete(context, name.value)
    ]
    found = {
        "name": param.name,
        "nargs": param.nargs,
        "items": [[it.value, it.type] for it in items],
    }
    if isinstance(param, click.Option):
        found |= {"opts": [*param.opts, *param.secondary_opts], "help": param.help}
        found |= {"flag": param.is_flag, "multiple": param.multiple}
    return found


def _restored(known: Mapping[str, Any]) -> click.Command:
    params = [_restored_parameter(one) for one in known["parameters"]]
    own: dict[str, Any] = {"params": params, "help": known["help"]}
    if "verbs" not in known:
        return click.Command(known["name"], **own)
    verbs = map(_restored, known["verbs"])
    return click.Group(known["name"], commands={verb.name or "": verb for verb in verbs}, **own)


def _restored_parameter(known: Mapping[str, Any]) -> click.Parameter:
    def items(ctx: object, param: object, incomplete: str) -> list[CompletionItem]:
        paths = [
            CompletionItem(incomplete, type=kind) for _, kind in known["items"] if kind != "plain"
        ]
        words = [value for value, kind in known["items"] if kind == "plain"]
        return [*paths, *completed(words, incomplete)]

    if "opts" not in known:
        return click.Argument([known["name"]], nargs=known["nargs"], shell_complete=items)
    own = {"is_flag": True} if known["flag"] else {"multiple": known["multiple"]}
    return click.Option(
        [known["name"], *known["opts"]], help=known["help"], shell_complete=items, **own
    )
