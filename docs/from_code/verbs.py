"""The command line: each verb with its help and options, as click has them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from from_code.markdown import table, terms, toctree, words
from swatsim.cli.main import cli


def pages() -> dict[str, str]:
    """Return an index and a page a verb."""
    with click.Context(cli, info_name="swatsim") as context:
        made = {"reference/verbs/index.md": _index(context)}
        for name in cli.list_commands(context):
            made[f"reference/verbs/{name}.md"] = "\n".join(
                _verb(_command(cli, context, name), context)
            )
    return made


def _command(group: click.Group, context: click.Context, name: str) -> click.Command:
    command = group.get_command(context, name)
    if command is None:
        raise LookupError(f"swatsim has no verb {name}, and lists it")
    return command


def _index(context: click.Context) -> str:
    names = cli.list_commands(context)
    rows = [
        (f"[`{it}`]({it}.md)", words(_command(cli, context, it).get_short_help_str(120)))
        for it in names
    ]
    before = "swatsim's own options stand before the verb; each verb has `--help`.\n"
    own = terms(_options(cli, context))
    parts = ("# Command line\n", before, table(("verb", "what it does"), rows), own)
    return "\n".join([*parts, toctree(names, hidden="")])


def _verb(command: click.Command, parent: click.Context, level: int = 1) -> Iterator[str]:
    """Yield a verb's page, and below it what it is made of."""
    with click.Context(command, info_name=command.name, parent=parent) as context:
        yield f"{'#' * level} {context.command_path}\n"
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"```text\n{context.command_path} {usage}\n```\n"
        yield _help(command)
        if options := list(_options(command, context)):
            yield f"{'#' * (level + 1)} Options\n" if level == 1 else "**Options**\n"
            yield terms(options)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                yield from _verb(_command(command, context, name), context, level + 1)


def _help(command: click.Command) -> str:
    """Return a verb's help; a paragraph that click leaves as it is stays so."""
    text = inspect.cleandoc(command.help or "")
    paragraphs = re.split(r"\n\s*\n", text.replace("\f", ""))
    shown = [
        f"```text\n{each.removeprefix(chr(8)).strip(chr(10))}\n```"
        if each.startswith("\b")
        else words(each)
        for each in paragraphs
    ]
    return "\n\n".join(shown) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[str]]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # an argument is said in the verb's own help
            yield f"`{record[0]}`", [words(record[1])]
