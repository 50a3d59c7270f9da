"""What stands between single backticks of a docstring: a link, if it names something; or code."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

#: What numpydoc takes to be in other projects' documentation, which no build asks for.
ELSEWHERE = ("python:", "numpy:", "numpy.")


class Name(XRefRole):
    """A name of the public API, as near as it is known from where it stands."""

    def __init__(self) -> None:
        super().__init__(innernodeclass=nodes.literal)

    def process_link(
        self, env: Any, refnode: Any, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Note in which module and class the name stands."""
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        refnode["reftype"] = "name"
        return title, target


def resolved(app: Any, env: Any, node: pending_xref, text: Any) -> Any:
    """Return a link to what a name is of, or the name alone, if it is of nothing or of several."""
    if node["reftarget"].startswith(ELSEWHERE):
        return nodes.inline("", text.astext().removeprefix("python:"))
    if node.get("reftype") != "name":
        return None
    objects = env.get_domain("py").objects
    target = node["reftarget"].removesuffix("()")
    module, owner = node.get("py:module") or "", node.get("py:class") or ""
    near = (f"{module}.{owner}.{target}", f"{module}.{target}", f"swatsim.{target}", target)
    found = [it for it in near if it in objects][:1]
    found = found or [it for it in objects if it.endswith(f".{target}") and not objects[it].aliased]
    if len(found) != 1:
        return text
    known = objects[found[0]]
    place = node["refdoc"]
    return make_refnode(app.builder, place, known.docname, known.node_id, text, found[0])
