"""The policies: what each drops, and the paper that its docstring names."""

from __future__ import annotations

import inspect
import re

from from_code.api import first_sentence
from from_code.markdown import terms, words
from swatsim.policies import POLICIES
from swatsim.policies.method import Method

#: What names a publication: an arXiv number, or a title and its year.
PAPER = re.compile(r"arXiv:\d|\"[^\"]+\",[^.]*\b(?:19|20)\d\d\b")

BEFORE = """\
# Policies

Which values survive: score x granularity x allocation x schedule. Each gives the same bits in
NumPy and in torch. [`Periodic`](api/swatsim.policies.Periodic.md) chooses anew only now and then;
[`ByScore`](api/swatsim.policies.ByScore.md) is one of a score of your own. `swatsim synth --policy`
takes the name in front; a class's page has its parameters.
"""


def pages() -> dict[str, str]:
    """Return the list of policies."""
    entries = [
        (
            f"`{name}`",
            [
                f"[`{kind.__name__}`](api/swatsim.policies.{kind.__name__}.md): "
                f"{first_sentence(kind)}",
                "`".join(map(words, paper(kind).split("`"))),
            ],
        )
        for name, kind in POLICIES.items()
    ]
    return {"reference/policies.md": f"{BEFORE}\n{terms(entries)}"}


def paper(kind: type[Method]) -> str:
    """Return the sentence of a policy's docstring that names its paper; "" where none does."""
    for paragraph in (inspect.getdoc(kind) or "").split("\n\n"):
        text = " ".join(paragraph.split())
        if found := PAPER.search(text):
            end = re.compile(r"\.(?=\s+[A-Z])").search(text, found.end())
            return text[: end.end()] if end else text
    return ""
