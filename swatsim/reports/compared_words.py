"""What a comparison says in words, and as a short table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import inf, isfinite
from typing import TYPE_CHECKING

from swatsim.printable import printable
from swatsim.reports import differences
from swatsim.reports.among import among
from swatsim.reports.comparable import NO_DRAM, alike_in_energy
from swatsim.reports.labels import cell, shown, times
from swatsim.reports.remarks import LAYERS_ALONE
from swatsim.reports.span import Span, percent
from swatsim.reports.tables import Row, quotient
from swatsim.reports.verdict import LEAST

if TYPE_CHECKING:
    from swatsim.reports.compare import Comparison

#: Rows that a notebook and a prompt show.
SHOWN = 20
#: Columns of it at a prompt.
PROMPTED = 9
#: What work differs in is said where the fastest is.
DIFFERENT = "different work"


def fastest(comparison: Comparison) -> Row:
    """Return the row of the shortest time, the first of several."""
    return in_order(comparison)[0]


def in_order(comparison: Comparison) -> list[Row]:
    """Return the rows, the fastest first."""
    return sorted(comparison.rows, key=lambda row: cost_of(comparison, row))


def cost_of(comparison: Comparison, row: Row) -> float:
    """Return what a row takes, in the comparison's unit."""
    return comparison.unit.cost(row, row["images"])


def baseline_cost(comparison: Comparison) -> float:
    """Return what the common baseline takes, in the comparison's unit."""
    reference = comparison.baseline
    return comparison.unit.cost(reference.side.step, reference.images)


def of_baseline(comparison: Comparison) -> str:
    """Return in words what the common baseline is, and what it takes."""
    taken = amount(comparison, baseline_cost(comparison))
    reference = comparison.baseline
    whose = f"the own baseline of {comparison.rows[reference.whose]['label']}"
    words = whose if reference.is_baseline else "one of them"
    return f"Common baseline: {reference.words} ({words}), {taken} for {comparison.unit.of_what}"


def notes(comparison: Comparison) -> list[str]:
    """Return what is to be known of all figures: that they are of layers alone, and why."""
    why = {
        row["label"]: row["others_left_out"] for row in comparison.rows if row["others_left_out"]
    }
    if not why:
        return []
    reasons = set(why.values())
    alike = len(reasons) == 1 and len(why) == len(comparison.rows)
    return [f"{LAYERS_ALONE}: {reasons.pop() if alike else among(why)}"]


def mean_of(row: Row) -> str:
    """Return in words what a row's step is of: mean of 2 steps of 4 images."""
    return Span.from_row(row).mean


def amount(comparison: Comparison, cost: float) -> str:
    """Return a cost with its unit: 0.32 ms."""
    return f"{cell(comparison.unit.column, cost)} {comparison.unit.word}"


def sentences(comparison: Comparison) -> list[str]:
    """Return which is the fastest, by how much, over what; and which takes the least energy."""
    return [_fastest(comparison), *_most_frugal(comparison)]


def _fastest(comparison: Comparison) -> str:
    first, *others = in_order(comparison)
    cost, title = cost_of(comparison, first), "Fastest: " * bool(others)
    words = f"{title}{first['label']}, {amount(comparison, cost)} for {comparison.unit.of_what}"
    if isfinite(first["speed_up"]):
        words += f", {times(first['speed_up'])} as fast as {comparison.baseline.words}"
    factor = quotient(cost_of(comparison, others[0]), cost) if others else inf
    if isfinite(factor):
        often = f"{times(factor)} as fast" if factor > LEAST else "as fast"
        words += f"; {often} as the next, {others[0]['label']}"
    return words + _held(comparison) + _differ(comparison)


def _held(comparison: Comparison) -> str:
    """Return which share of a step's multiplications figures are of, where that is but a part."""
    rows = comparison.rows
    if not any(Span.from_row(row).partial for row in rows):
        return ""
    words = among({row["label"]: _share(row["share"]) for row in rows})
    return f"; of a step's multiplications that is {words}"


def _differ(comparison: Comparison) -> str:
    """Return what else the time compares, for the sentence that is read alone."""
    different = any(one.startswith(DIFFERENT) for one in comparison.warnings)
    found = differences.unasked([one.ranked for one in comparison.compared.values()])
    names = [*(["work"] if different else []), *(what.name for what in found)]
    if not names:
        return ""
    return f"; they differ in {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def _most_frugal(comparison: Comparison) -> list[str]:
    """Return which takes the least energy without leakage, and which with it, if all have one.

    Results without a DRAM in their energy count where no other has one.
    """
    every = [row for row in comparison.rows if isfinite(row["energy_pj"])]
    if not every:
        return []
    known = alike_in_energy(every)
    best, words = _least(comparison, known, "energy_pj")
    said = f"Least energy, without leakage: {words} for {comparison.unit.of_what}"
    if isfinite(best["energy_efficiency"]):
        said += f", the baseline's energy / its own: {best['energy_efficiency']:.2f}"
    if all(isfinite(row["energy_with_leakage_pj"]) for row in known):
        said += f"; with leakage: {_least(comparison, known, 'energy_with_leakage_pj')[1]}"
    return [said + _not_ranked(every, known)]


def _not_ranked(every: Sequence[Row], known: Sequence[Row]) -> str:
    """Return in words whose energies are not ranked, and why; "": all are."""
    left = [row["label"] for row in every if row not in known]
    shown = among(dict.fromkeys(left, NO_DRAM)) if left else ""
    return f"; not ranked: {shown}" if left else ""


def _least(comparison: Comparison, rows: Sequence[Row], column: str) -> tuple[Row, str]:
    """Return the row of the least energy, and in words whose that is and how much."""
    costs = [comparison.unit.cost(row, row["images"], column) for row in rows]
    least = min(costs)
    best = rows[costs.index(least)]
    who = "the same" if best is fastest(comparison) else best["label"]
    return best, f"{who}, {shown(column, least)}"


#: Columns of the short table: heading to the cell's text.
Column = tuple[str, Callable[[Row], str]]


def columns(comparison: Comparison) -> list[Column]:
    """Return the columns of a table of the rows, the weightiest first: heading and text."""
    unit = comparison.unit
    per = "an image" if unit.per_image else "a step"
    found: list[Column] = [
        ("", lambda row: str(row["label"])),
        (f"{unit.word} {per}", lambda row: cell(unit.column, cost_of(comparison, row))),
        ("speed-up", lambda row: times(row["speed_up"])),
    ]
    differ = [
        it for it in differences.PROPERTIES if len({row[it.column] for row in comparison.rows}) > 1
    ]
    found += [(it.name, _property(it)) for it in differ]
    if any(row["layers_cycles"] != row["cycles"] for row in comparison.rows):
        found.append(("layers alone", lambda row: times(row["speed_up_layers"])))
    found += [
        (f"mJ {per}", lambda row: cell("energy_pj", unit.cost(row, row["images"], "energy_pj"))),
        ("energy: baseline's / own", lambda row: times(row["energy_efficiency"])),
        ("own speed-up", lambda row: times(row["own_speed_up"])),
        ("images/s", lambda row: cell("images_per_s", row["images_per_s"])),
        ("W, with leakage", lambda row: cell("power_w", row["power_w"])),
        ("bound by", lambda row: f"{row['bound']} {percent(row['bound_share'])}"),
    ]
    found += [(it.name, _property(it)) for it in differences.PROPERTIES if it not in differ]
    found.append(("share held", lambda row: _share(row["share"])))
    return [it for it in found if any(it[1](row) != "-" for row in comparison.rows)]


def has_energies(rows: Sequence[Row]) -> bool:
    """Whether the energy of any is known."""
    return any(isfinite(row["energy_pj"]) for row in rows)


def _property(what: differences.Property) -> Callable[[Row], str]:
    return lambda row: what.word(row[what.column])


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def as_text(comparison: Comparison) -> str:
    """Return a comparison as lines for a prompt."""
    cells = _cells(comparison, columns(comparison)[:PROMPTED])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    text = [*(f"{one}." for one in _head(comparison)), *lines, *_more(comparison)]
    return printable("\n".join([*text, *(f"warning: {one}." for one in comparison.warnings)]), "\n")


def as_html(comparison: Comparison) -> str:
    """Return a comparison as HTML for a notebook."""
    head, *rows = _cells(comparison, columns(comparison))
    text = "".join(f"<p>{_safe(one)}.</p>" for one in _head(comparison))
    heads = "".join(f"<th>{_safe(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    more = [*_more(comparison), *(f"Warning: {one}." for one in comparison.warnings)]
    return f"<div>{text}{table}{''.join(f'<p>{_safe(one)}</p>' for one in more)}</div>"


def _head(comparison: Comparison) -> list[str]:
    return [*comparison.sentences, of_baseline(comparison)]


def _cells(comparison: Comparison, chosen: Sequence[Column]) -> list[list[str]]:
    rows = in_order(comparison)[:SHOWN]
    return [[name for name, _ in chosen], *([text(row) for _, text in chosen] for row in rows)]


def _more(comparison: Comparison) -> list[str]:
    left = len(comparison.rows) - SHOWN
    return [f"and {left} more: .frame has all"] if left > 0 else []


def _safe(text: str) -> str:
    return escape(printable(text))
