"""Markdown, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()
) -> str:
    """Return a table; columns of `numbers`, counted from 0, are set to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines) + "\n"


def cell(value: object) -> str:
    """Return a value as a table's cell: on one line, and no bar in it ends the cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def terms(entries: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a list of terms, each with paragraphs that say what it is."""
    return "\n".join(
        f"{term}\n: " + "\n\n  ".join(" ".join(text.split()) for text in texts if text) + "\n"
        for term, texts in entries
    )


def code(value: object) -> str:
    """Return a value as code; nothing of none."""
    text = str(value)
    return f"`{text}`" if text else ""


def words(text: str) -> str:
    """Return plain words, of which Markdown makes nothing else."""
    for mark in "\\`*_<>[]{}$#|":
        text = text.replace(mark, f"\\{mark}")
    return text


def toctree(names: Iterable[str], **options: str) -> str:
    """Return a list of pages, by their places relative to this one."""
    head = [f":{name}: {value}".rstrip() for name, value in options.items()]
    return "\n".join(["```{toctree}", *head, "", *names, "```"]) + "\n"


def sentence(text: str) -> str:
    """Return words as a sentence: it begins with a capital letter, and ends with a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
