"""``swatsim compare``: two results side by side."""

from __future__ import annotations

import click

from swatsim.cli.show import console, count, joules, percent, size, table, times
from swatsim.columns import Role
from swatsim.reports import differences, gpu_time, page_tables
from swatsim.reports.compare import compare as beside
from swatsim.reports.compare import unlike
from swatsim.reports.span import percent as of_share
from swatsim.reports.span import span_of
from swatsim.reports.tables import LAYERS, OF_IDEAL, STEP, Row, total_of
from swatsim.results import Results, load
from swatsim.workload.phases import OTHER


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
def compare(a: str, b: str) -> None:
    """Show two results side by side.

    A and B are folders that simulate wrote, of the same trace, steps and ops. Cycles, times,
    energies and bytes are a step's: the mean of the recorded ones, of their recorded images.
    """
    results = [load(folder) for folder in (a, b)]
    rows = beside(*results)
    headings = ("layer", "op", "cycles A", "cycles B", "time A", "time B", "B faster than A")
    own = ("speed-up A", "speed-up B", "of the ideal A", "of the ideal B")
    every = (*headings, *own, "energy A", "energy B", "DRAM A", "DRAM B")
    firsts = [total_of(one, Role.MACHINE) for one in results]
    properties = [differences.words(differences.values_of(row)) for row in firsts]
    names = [
        f"{letter}: {row['machine']} ({words}); {_of_share(one)}"
        for letter, row, words, one in zip("AB", firsts, properties, results, strict=True)
    ]
    whole = not any(span_of(one).left_out for one in results)
    whose = "a step" if whole else "a step's layers"
    of_step = f"{results[0].rows[0]['trace']}, {whose}: {span_of(results[0]).mean}"
    out = console()
    cells = (_words(row, whole) for row in rows)
    out.print(table("\n".join([*names, of_step]), every, cells, left=2))
    out.print(f"Of the ideal{', layers alone' if whole else ''}: {OF_IDEAL}.")
    for letter, one in zip("AB", results, strict=True):
        for sentence in gpu_time.sentences(one):
            out.print(f"{letter}: {sentence}.")
    for warning in unlike(*results):
        out.print(f"warning: {warning}.")


def _of_share(results: Results) -> str:
    """Return what of a step results are of, in words, and what its speed-up is made of."""
    span = span_of(results)
    words = "of its layers in the trace"
    if span.share is not None:
        words = f"of {of_share(span.share)} of a step's multiplications"
    if span.left_out:
        return f"{words}; layers alone: {span.left_out}"
    return f"{words}; speed-up: {page_tables.of_step(page_tables.ratios(results))}"


def _words(row: Row, whole: bool) -> list[str]:
    """Return a row's cells; `whole`: the last one is of a step with everything else in it."""
    named = {
        OTHER: ("everything else", "-"),
        LAYERS: (row["layer"], "all ops"),
        STEP: ("everything", "whole step") if whole else (row["layer"], "all ops"),
    }.get(row["op"], (row["layer"], row["op"]))
    cells = [*named, count(row["cycles_a"]), count(row["cycles_b"])]
    cells += [_ms(row["time_ms_a"]), _ms(row["time_ms_b"]), times(row["faster"])]
    cells += [times(row["speed_up_a"]), times(row["speed_up_b"])]
    of_layers = row["op"] != OTHER and not (whole and row["op"] == STEP)
    cells += [percent(row[f"of_ideal_{side}"]) if of_layers else "-" for side in "ab"]
    energies = (row["energy_pj_a"], row["energy_pj_b"])
    cells += ["-" if energy is None else joules(energy) for energy in energies]
    return [*cells, size(row["dram_bytes_a"]), size(row["dram_bytes_b"])]


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value == value else "-"
