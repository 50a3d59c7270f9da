"""Files of the project that are pages as they are: READMEs, measurements, examples, notebooks."""

from __future__ import annotations

import json
from pathlib import Path

from from_code import links
from from_code.markdown import table, toctree

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str]:
    """Return a page for each file of `links.homes` that is Markdown, examples, notebooks."""
    made = {
        page: _included(path)
        for path, page in links.homes().items()
        if path.endswith(".md") and _ours(page)
    }
    made |= {page: _example(path) for path, page in links.homes().items() if path.endswith(".py")}
    made |= {
        page: _notebook(path) for path, page in links.homes().items() if path.endswith(".ipynb")
    }
    made["measured/index.md"] = _index("Measured", made, "measured/", links.MEASURED)
    made["notebooks/index.md"] = _index("Notebooks", made, "notebooks/", links.NOTEBOOKS)
    return made


def _ours(page: str) -> bool:
    """Whether a page is made here: those of machines have a module of their own."""
    return page.startswith(("measured/", "project/", "examples/", "reference/trace.md"))


def _included(path: str) -> str:
    text = (ROOT / path).read_text()
    title = text.splitlines()[0]
    page = [title, "", f"```{{include}} ../../{path}", ":start-line: 1", "```", ""]
    if path == "examples/README.md":
        page.append(toctree(sorted(it.stem for it in (ROOT / "examples").glob("*.py")), hidden=""))
    return "\n".join(page)


def _example(path: str) -> str:
    name = Path(path).stem
    return f"# {name}\n\n```{{literalinclude}} ../../{path}\n:language: python\n```\n"


def _notebook(path: str) -> str:
    """Return a notebook whose links lead to pages."""
    book = json.loads((ROOT / path).read_text())
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = links.rewritten("".join(cell["source"]), path)
    return json.dumps(book, indent=1)


def _title(page: str, text: str) -> str:
    if page.endswith(".ipynb"):
        text = "".join(json.loads(text)["cells"][0]["source"])
    return text.splitlines()[0].removeprefix("# ")


def _index(title: str, made: dict[str, str], folder: str, words: str) -> str:
    inside = {page: text for page, text in made.items() if page.startswith(folder)}
    names = [page.removeprefix(folder) for page in inside]
    rows = [
        (f"[{_title(page, text)}]({name})",)
        for name, (page, text) in zip(names, inside.items(), strict=True)
    ]
    stems = (name.rpartition(".")[0] for name in names)
    return "\n".join(
        [f"# {title}\n", f"{words}\n", table(("page",), rows), toctree(stems, hidden="")]
    )
