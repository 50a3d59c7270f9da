"""Make what the README shows of the shipped trace: the table of machines and the pictures.

python benchmarks/readme.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import swatsim
from swatsim.report import plots, tables
from swatsim.simulator.machines import presets

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "resnet8-fashion-mnist-swat-u-80"
PICTURED = "tensordash"


def machines() -> Iterator[str]:
    """Write one row a preset: speed-up per op and of the step, and where it is on the way."""
    yield "| machine | fprop | dgrad | wgrad | training step | effectual share of the lane-cycles |"
    yield "|---|---|---|---|---|---|"
    for name, _, _ in presets():
        rows = tables.per_op(swatsim.simulate(TRACE, name))
        speed_ups = " | ".join(f"{row['speed_up']:.2f}x" for row in rows)
        yield f"| `{name}` | {speed_ups} | {rows[-1]['utilisation']:.3f} |"


def replace(text: str, name: str, lines: Iterator[str]) -> str:
    """Put lines between the two comments that bear a name."""
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    block = begin + "\n".join(lines) + "\n" + end
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, flags=re.S)


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(replace(readme.read_text(), "machines", machines()))
    results = swatsim.simulate(TRACE, PICTURED)
    for name in ("speed_up", "pe_cycles"):
        picture = plots.as_png(getattr(plots, name)(results))
        (ROOT / "benchmarks" / "figures" / f"{name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
