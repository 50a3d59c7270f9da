"""``swatsim compare``: two results side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from swatsim.reports.tables import Row


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
def compare(a: str, b: str) -> None:
    """Show two results side by side.

    A and B are folders that simulate wrote, of the same trace, steps and ops.
    """
    from swatsim.cli.show import console, table
    from swatsim.reports.compare import compare as beside
    from swatsim.results import load

    results = [load(folder) for folder in (a, b)]
    rows = beside(*results)
    headings = ("layer", "op", "cycles A", "cycles B", "time A", "time B", "B faster than A")
    every = (*headings, "speed-up A", "speed-up B", "energy A", "energy B", "DRAM A", "DRAM B")
    machines = [one.rows[0]["machine"] for one in results]
    title = f"A: {machines[0]}\nB: {machines[1]}\n{results[0].rows[0]['trace']}"
    console().print(table(title, every, map(_words, rows), left=2))


def _words(row: Row) -> list[str]:
    from swatsim.cli.show import count, joules, size, times

    found = [row["layer"], row["op"], count(row["cycles_a"]), count(row["cycles_b"])]
    found += [_ms(row["time_ms_a"]), _ms(row["time_ms_b"]), times(row["faster"])]
    found += [times(row["speed_up_a"]), times(row["speed_up_b"])]
    energies = (row["energy_pj_a"], row["energy_pj_b"])
    found += ["-" if energy is None else joules(energy) for energy in energies]
    return [*found, size(row["dram_bytes_a"]), size(row["dram_bytes_b"])]


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value == value else "-"
