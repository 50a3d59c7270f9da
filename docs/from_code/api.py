"""The API: a page for each public name, of its docstring."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

from from_code.markdown import table, toctree

#: Module -> its public names that have a page, and what the module is for. None: all of `__all__`.
MODULES: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "swatsim": ("What most scripts need.", None),
    "swatsim.tracer.pytorch": (
        "Recording a PyTorch run, and a model's layer table; the only package that imports torch.",
        None,
    ),
    "swatsim.policies": ("Which values survive: published methods, and one of your own.", None),
    "swatsim.tracer.synthetic": ("A trace without training.", ("synthesize",)),
    "swatsim.workload.networks": ("Layer tables of published networks.", ("network",)),
    "swatsim.workload.footprint": (
        "What a training step keeps for its backward pass.",
        ("of_network", "of_masks"),
    ),
    "swatsim.errors": (
        "What is refused: each is a `SwatsimError`, with one line that says what to do.",
        (
            "ConfigError",
            "PolicyError",
            "RecordingError",
            "ResultsError",
            "TraceError",
            "WorkloadError",
        ),
    ),
    "swatsim.workload.flops": (
        "Multiply-accumulates and FLOPs, dense and effectual.",
        ("macs_dense", "macs_effectual", "macs_unpadded", "macs_expected", "training_macs"),
    ),
}

#: Bases whose members are not the reader's: a record's are pydantic's.
FOREIGN = "object, BaseModel, tuple, str"
#: Members of every record of ours that are for errors alone.
INTERNAL = "error_type, subject, model_config"


def pages() -> dict[str, str]:
    """Return an index, a page a module, and one for each of its names."""
    made = {"reference/api/index.md": _index()}
    for module in MODULES:
        made[f"reference/api/{module}.md"] = _module(module)
        for name in names(module):
            if home(module, name) == module:
                made[f"reference/api/{module}.{name}.md"] = _object(module, name)
    return made


def home(module: str, name: str) -> str:
    """Return the first module that has what a name of this one is: there is its page."""
    value = _of(module, name)
    return next(it for it in MODULES if name in names(it) and _of(it, name) is value)


def names(module: str) -> list[str]:
    """Return a module's names that have a page, by the alphabet."""
    chosen = MODULES[module][1] or import_module(module).__all__
    return sorted((it for it in chosen if not it.startswith("_")), key=str.lower)


def _of(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def aliases() -> dict[str, str]:
    """Return what a docstring's types may be called, and which page's object each is."""
    return {
        name: f"{home(module, name)}.{name}"
        for module in reversed(MODULES)
        for name in names(module)
        if kind(_of(module, name)) in {"Classes", "Errors"}
    }


def _index() -> str:
    rows = [(f"[{module}]({module}.md)", what) for module, (what, _) in MODULES.items()]
    return "\n".join(
        [
            "# API\n",
            "What has no page here is not public: it may change with any version.\n",
            table(("module", "what it is for"), rows),
            toctree(MODULES, hidden=""),
        ]
    )


def _module(module: str) -> str:
    known = names(module)
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name in known:
        value = _of(module, name)
        link = f"[`{name}`]({home(module, name)}.{name}.md)"
        kinds.setdefault(kind(value), []).append((link, first_sentence(value)))
    listed = [
        f"## {title}\n\n{table(('name', 'what it is'), kinds[title])}"
        for title in ("Functions", "Classes", "Errors", "Values")
        if title in kinds
    ]
    own = (f"{module}.{name}" for name in known if home(module, name) == module)
    pages_of = toctree(own, hidden="")
    return "\n".join([f"# {module}\n", f"{MODULES[module][0]}\n", *listed, pages_of])


def kind(value: Any) -> str:
    """Return what a public value is, as a page's heading."""
    if inspect.isclass(value):
        return "Errors" if issubclass(value, Exception) else "Classes"
    return "Functions" if callable(value) else "Values"


def first_sentence(value: Any) -> str:
    """Return the first sentence of a docstring; of a value of no class here, what it holds."""
    if kind(value) == "Values":
        return f"{len(value)} entries: {', '.join(f'`{each}`' for each in value)}"
    paragraph = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:])\s+(?=[A-Z])", paragraph)[0]
    return re.sub(r"`+([^`]+)`+", r"`\1`", sentence)


def _object(module: str, name: str) -> str:
    value = _of(module, name)
    what, options = _directive(value)
    lines = [f".. currentmodule:: {module}", "", f".. {what}:: {name}"]
    lines += [f"   {option}" for option in options]
    return "\n".join([f"# {name}\n", "```{eval-rst}", *lines, "```", ""])


def _directive(value: Any) -> tuple[str, tuple[str, ...]]:
    """Return autodoc's directive of a value, and its options."""
    match kind(value):
        case "Functions":
            return "autofunction", ()
        case "Values":
            return "autodata", (":no-value:",)
        case "Errors":
            return "autoexception", (":show-inheritance:",)
        case _:
            return "autoclass", (
                ":members:",
                f":inherited-members: {FOREIGN}",
                f":exclude-members: {INTERNAL}",
            )
