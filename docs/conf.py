"""The documentation site, which .ci/docs builds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import from_code
from from_code import api, links
from from_code.names import Name, resolved

from swatsim._version import __version__

project = "swatsim"
author = "The swatsim developers"
copyright = author
release = version = __version__

extensions = [
    "myst_nb",  # Markdown, and notebooks with the outputs that they are stored with
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_design",  # what folds
]
exclude_patterns = ["_build", "from_code"]
default_role = "name"
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"

autodoc_typehints = "none"  # the docstrings have them, in words
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = True
numpydoc_xref_aliases = api.aliases()
numpydoc_xref_ignore = "all"  # types of others are words
smartquotes = False  # "--set" is not a dash

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"swatsim {release}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def _read(app: Any, name: str, content: list[str]) -> None:
    """Lead links of a page that is written by hand to where the site has them."""
    path = Path(app.env.doc2path(name))
    page = str(path.relative_to(app.srcdir))
    if path.suffix == ".md" and page.split("/")[0] not in from_code.FOLDERS:
        content[0] = links.rewritten(content[0], f"docs/{page}")


def _included(app: Any, place: Path, parent: str, content: list[str]) -> None:
    """Lead links of a file of the project, which a page includes, to where the site has them."""
    path = (Path(app.srcdir) / place).resolve()
    content[0] = links.rewritten(content[0], str(path.relative_to(DOCS.parent)))


def _skipped(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, of which Python says their number: docstrings have them."""
    return True if str(value.__doc__).startswith("Alias for field number") else None


def setup(app: Any) -> None:
    """Make the pages that come from the code, before any is read."""
    app.add_role("name", Name())
    app.connect("builder-inited", lambda app: from_code.write(DOCS))
    app.connect("autodoc-skip-member", _skipped)
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("missing-reference", resolved)
