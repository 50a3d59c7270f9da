"""Energies, and kinds of DRAM: each entry of the files that ship, with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from from_code.markdown import code, table, words
from swatsim.simulator.energy import table as energy
from swatsim.simulator.memory import dram

ROOT = Path(__file__).parents[2]

#: What a figure is called on the page; one that is not here shows its name.
SHOWN = {
    "multiply": "multiplication {} pJ",
    "add": "addition {} pJ",
    "pj": "{} pJ",
    "write": "to write {} pJ",
    "bits": "of {} bits",
    "kib": "{} KiB",
    "mb_per_s": "{} MB/s",
    "ns": "{} ns",
    "multiply_um2": "multiplier {} um2",
    "add_um2": "adder {} um2",
    "um2": "{} um2",
    "um2_per_bit": "{} um2 more a bit",
    "mm2": "{} mm2",
    "leak_mw": "leaks {} mW",
    "mw_per_mm2": "{} mW a mm2",
}


def pages() -> dict[str, str]:
    """Return the page of energies and the page of kinds of DRAM."""
    return {"reference/energies.md": _energies(), "reference/drams.md": _drams()}


def _energies() -> str:
    parts = [
        "# Energies and areas\n",
        "What an event costs, and how large things are and what they leak (`area`), node by node, "
        "with the source of each entry: [how energies are counted](../machines/memory.md#energy), "
        "[and areas](../machines/memory.md#area-and-leakage). `--energy FILE` takes a table of "
        "your own in the same form.\n",
    ]
    for name in energy.shipped():
        parts += [f"## {name}\n", *_file(energy.FOLDER / f"{name}.toml")]
    return "\n".join(parts)


def _drams() -> str:
    parts = [
        "# Kinds of DRAM\n",
        "`--set dram=NAME`: bandwidth of a channel, latency, and the energy of an access at each "
        "node that ships. `ideal` takes neither time nor energy. The path of a TOML file in the "
        "same form is a kind of your own.\n",
    ]
    for name in dram.shipped():
        if name != dram.IDEAL.name:
            parts += [f"## {name}\n", *_file(dram.FOLDER / f"{name}.toml")]
    return "\n".join(parts)


def _file(path: Path) -> Iterator[str]:
    """Yield a file's entries as a table, and the file with its comments."""
    yield table(("entry", "figures", "source"), entries(tomllib.loads(path.read_text())))
    place = path.relative_to(ROOT)
    shown = f"```{{literalinclude}} ../../{place}\n:language: toml\n```"
    yield f":::{{dropdown}} {place}\n{shown}\n:::\n"


def entries(found: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each entry that has a source: its name, its figures, the source."""
    for name, entry in found.items():
        if isinstance(entry, Mapping) and "source" in entry:
            yield code(above + name), _figures(entry), words(entry["source"])
        elif isinstance(entry, Mapping):
            yield from entries(entry, f"{above}{name}.")


def _figures(entry: Mapping[str, Any]) -> str:
    own = [_figure(it, entry[it]) for it in entry if it != "source" and not _listed(entry[it])]
    rows = [_figures(each) for value in entry.values() if _listed(value) for each in value]
    return "<br>".join([*([", ".join(own)] if own else []), *rows])


def _listed(value: object) -> bool:
    return isinstance(value, list)


def _figure(name: str, value: object) -> str:
    text = f"{value:g}" if isinstance(value, int | float) else words(str(value))
    return SHOWN.get(name, f"{words(name)} {{}}").format(text)
