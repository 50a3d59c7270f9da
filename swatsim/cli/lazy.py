"""Verbs that are loaded when they are used, and options that are: so that --help is quick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from swatsim.errors import listed, unknown

Names = Callable[[], Iterable[str]]


def completed(names: Iterable[str], incomplete: str, kind: str = "plain") -> list[CompletionItem]:
    """Return the names that begin so, as a shell is told of them."""
    return [CompletionItem(name, type=kind) for name in beginning(names, incomplete)]


def beginning(names: Iterable[str], incomplete: str) -> list[str]:
    """Return the names that begin so; of "name=value" the value once "name=" is there.

    Values may follow one another, behind a comma each.
    """
    name, equals, value = incomplete.partition("=")
    if not equals:
        return [it for it in names if it.startswith(name) and not it.partition("=")[2]]
    others, comma, last = value.rpartition(",")
    own = [it.partition("=")[2] for it in names if it.startswith(name + equals)]
    return [name + equals + others + comma + it for it in own if it and it.startswith(last)]


def completing(known: Names, *, or_path: bool = False) -> dict[str, Any]:
    """Return what makes an argument or an option complete the names of a registry.

    `or_path`: it may be a file or a folder too.
    """

    def complete(ctx: object, param: object, incomplete: str) -> list[CompletionItem]:
        paths = [CompletionItem(incomplete, type="file")] if or_path else []
        return [*paths, *completed(known(), incomplete)]  # bash forgets what comes before a path

    return {"shell_complete": complete}


class Group(click.Group):
    """Commands under a command; a refusal names the nearest.

    Parameters
    ----------
    what : str
        What its commands are called: "verb".
    """

    def __init__(self, *arguments: Any, what: str, **other: Any):
        super().__init__(*arguments, **other)
        self._what = what

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that a command line begins with, and the rest.

        Raises
        ------
        click.UsageError
            If there is none of that name; it names the nearest.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(unknown(self._what, args[0], known), ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose verbs are modules: the verb ``info`` is ``info`` of the module ``info``.

    Parameters
    ----------
    package : str
        Where the modules are.
    verbs : mapping of str to str
        Name to what the group's help says of it: the first sentence of the verb's own.
    examples : mapping of str to str
        Name to a command that the verb's help ends with.
    """

    def __init__(
        self,
        *arguments: Any,
        package: str,
        verbs: Mapping[str, str],
        examples: Mapping[str, str],
        **other: Any,
    ):
        super().__init__(*arguments, what="verb", **other)
        self._package = package
        self._verbs = verbs
        self._examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return sorted({*self._verbs, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, loaded; None if there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self._verbs:
            module = import_module(f"{self._package}.{cmd_name}")
            command = getattr(module, cmd_name)
            command.epilog = f"\b\nExample:\n  {self._examples[cmd_name]}"
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs and options that begin so; no verb is loaded for it."""
        verbs = self._verbs.items()
        found = [CompletionItem(name, help=it) for name, it in verbs if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs, and load none."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._verbs.items()))


class Registered(click.Option):
    """An option whose help ends with the names of a registry, which is loaded when it is shown.

    Parameters
    ----------
    known : callable to iterable of str
    """

    def __init__(self, *arguments: Any, known: Names, **other: Any):
        super().__init__(*arguments, **other)
        self._known = known

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help."""
        record = super().get_help_record(ctx)
        return record and (record[0], record[1].replace("{known}", listed(self._known())))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so."""
        return completed(self._known(), incomplete)


class Choice(click.Choice[str]):
    """One of some names; a refusal names the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name, if it is one of them."""
        if value in self.choices:
            return value
        what = max(param.opts, key=len).lstrip("-") if param else "value"
        raise click.UsageError(unknown(what, str(value), self.choices), ctx)


class Chosen(click.ParamType[str]):
    """One of the names of a registry, which is loaded when one is given, or help is shown."""

    name = "choice"

    def __init__(self, known: Names) -> None:
        self._known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return all names, for help."""
        return self._choice.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name, if it is one of them."""
        return self._choice.convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so."""
        return completed(self._known(), incomplete)

    @property
    def _choice(self) -> Choice:
        return Choice(self._known())
