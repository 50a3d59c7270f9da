"""Plots beside results: drawn, or taken from the store where the same were drawn before.

Matplotlib takes longer to load than a small trace to simulate, and drawing as long again: it is
loaded here, and only where there is something to draw.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from swatsim.outputs import PLOTS
from swatsim.provenance import sources
from swatsim.simulator.stored import digest_of
from swatsim.table import Rows, digest

if TYPE_CHECKING:
    from swatsim.reports.style import Figure
    from swatsim.results import Results
    from swatsim.store import Store


log = logging.getLogger(__name__)

Plots = dict[str, bytes]

#: Of entries in a store: those of another form are found under other keys.
FORM = 1
#: What draws, beside this package.
_BENEATH = ("matplotlib", "pillow", "numpy")


def plots_of(results: Results, names: Sequence[str], store: Store | None = None) -> Plots:
    """Return plots, file name to PNG: of those wanted all that can be drawn, or were before.

    What can't be is logged, and costs no number.

    Parameters
    ----------
    results : Results
    names : sequence of str
        Of `PLOTS`.
    store : Store, optional
        Where they are kept.
    """
    keys = _keys(results, names) if store is not None and names else {}
    kept = {name: store.get(key, counted=False) for name, key in keys.items()} if store else {}
    found = {f"{name}.png": content for name, content in kept.items() if content is not None}
    missing = [name for name in names if f"{name}.png" not in found]
    drawn, failed = draw(results, missing) if missing else ({}, {})
    for name, why in failed.items():
        log.warning("%s can't be drawn (%s); no number is missing for that", name, why)
    for name, key in keys.items():
        if store is not None and f"{name}.png" in drawn:
            store.put(key, drawn[f"{name}.png"])
    both = {**found, **drawn}
    return {name: both[name] for name in map("{}.png".format, names) if name in both}


def draw(results: Results, names: Sequence[str] = tuple(PLOTS)) -> tuple[Plots, dict[str, str]]:
    """Return some of a simulation's plots: those for which there is something to show.

    Returns
    -------
    dict of str to bytes
        File name to PNG.
    dict of str to str
        File name to what went wrong, of those that can't be drawn.
    """
    os.environ["MPLBACKEND"] = "agg"  # whatever a user's shell says: matplotlib would fail on it
    # matplotlib, which takes as long to load as all else
    from swatsim.reports import style
    from swatsim.reports.tables import summarise

    results = summarise(results)
    drawn: Plots = {}
    failed: dict[str, str] = {}
    for name in (name for name in names if PLOTS[name].there(results.rows)):
        try:
            drawn[f"{name}.png"] = style.as_png(_function(name)(results))
        except Exception as error:  # noqa: BLE001  (whatever it is, the numbers are there)
            failed[f"{name}.png"] = f"{type(error).__name__}: {error}"
    return drawn, failed


def _function(name: str) -> Callable[[Results], Figure]:
    """Return what draws a plot; its module loads matplotlib."""
    draws: Callable[[Results], Figure]
    draws = getattr(import_module(f"swatsim.reports.{PLOTS[name].module}"), name)
    return draws


def _keys(results: Results, names: Sequence[str]) -> Mapping[str, str]:
    """Return by the names of plots the keys under which they are kept; none: nothing is.

    A plot depends on the rows, on what was run, and on what draws. Where a user has told matplotlib
    how to draw, it is asked each time.
    """
    rows = digest(results.rows) if isinstance(results.rows, Rows) else ""
    if not rows or not sources() or any(path.exists() for path in _settings()):
        return {}
    with_what = sources(), [version(name) for name in _BENEATH]
    about = results.provenance.get("parameters")
    there = (name for name in names if PLOTS[name].there(results.rows))
    return {name: digest_of((FORM, "plot", name, rows, about, with_what)) for name in there}


def _settings() -> Iterator[Path]:
    """Yield where matplotlib looks for settings of a user's own."""
    home, known = Path(os.path.expanduser("~")), os.environ  # as it is, where none is known
    folders = [Path(), home / ".config/matplotlib", home / ".matplotlib"]
    folders += [Path(known[name]) for name in ("MPLCONFIGDIR", "MATPLOTLIBRC") if known.get(name)]
    if known.get("XDG_CONFIG_HOME"):
        folders.append(Path(known["XDG_CONFIG_HOME"]) / "matplotlib")
    for folder in folders:
        yield folder if folder.is_file() else folder / "matplotlibrc"
