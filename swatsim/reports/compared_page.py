"""The page of a comparison: what is fastest, over what, and what differs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from swatsim.errors import ResultsError
from swatsim.reports import compared_words as words
from swatsim.reports.compared_bars import times
from swatsim.reports.html import PRINTED, Chart, Page, Paper, Section, Table
from swatsim.reports.labels import alike, cell
from swatsim.reports.made import ANEW
from swatsim.reports.side_by_side import ALL_LAYERS
from swatsim.reports.tables import Row
from swatsim.reports.verdict import BOUNDS

if TYPE_CHECKING:
    from swatsim.reports.compare import Comparison

#: What each takes, and over what.
TAKEN = (
    *("label", "time_ms", "cycles", "ms_per_image", "images_per_s", "speed_up", "speed_up_layers"),
    *("energy_pj", "energy_efficiency", "own_speed_up", "power_w"),
)
#: What each is.
ABOUT = (
    *("label", "method", "trace", "machine", "dtype", "clock_mhz", "dram_mb_per_s", "multipliers"),
    *("area_mm2", "energy_table", "macs_per_image", "steps", "images", "batch_size", "ops"),
    *("share", "others_left_out", "own_baseline"),
)
#: What a table of that shows in any case; of the others what differs.
NAMES = ABOUT[:4]
#: Of a layer and op.
LAYERS = (
    *("layer", "op", "label", "time_ms", "ms_per_image", "speed_up", "own_speed_up"),
    *("energy_pj", "dram_bytes", "of_ideal"),
)
#: What all figures here are.
ABOUT_FIGURES = (
    "Times, energies and counts are a step's, the mean of the recorded ones, unless they say an "
    "image's; speed-ups are over the common baseline, in time, and own ones over what each is "
    "compared with by itself."
)
#: Results that the last line names.
NAMED = 10
#: Of so many layers and ops, at most, the figures are printed.
COSTLIEST = 10
#: Of more results than these a page has no layers and ops: `Comparison.layers` has them.
LAYERED = 30


def page_of(comparison: Comparison) -> Page:
    """Return the page of a comparison; the fastest comes first."""
    title = f"{len(comparison.rows)} results compared"
    first = words.fastest(comparison)
    cost = words.amount(comparison, words.cost_of(comparison, first))
    tiles = [
        (f"{comparison.unit.of_what}, the fastest: {first['label']}", cost),
        (f"speed-up of that over {comparison.baseline.words}", cell("speed_up", first["speed_up"])),
        (
            f"energy of the same, without leakage: that of {comparison.baseline.words} / its own",
            cell("energy_efficiency", first["energy_efficiency"]),
        ),
    ]
    sentence, *others = (f"{one}." for one in comparison.sentences)
    return Page(
        title,
        f"{words.of_baseline(comparison)}.",
        [one for one in tiles if one[1] != "-"],
        [*others, *(f"Warning: {one}." for one in comparison.warnings)],
        list(_sections(comparison)),
        verdict=sentence,
        notes=[ABOUT_FIGURES, *(f"{one}." for one in words.notes(comparison))],
        made=_made(comparison),
    )


def _made(comparison: Comparison) -> str:
    """Return in words of which results a page is made."""
    every = list(comparison.compared.items())
    named = [f"{label} ({one.made})" for label, one in every[:NAMED]]
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return f"Made of {'; '.join(named)}{more}. {ANEW}"


def _sections(comparison: Comparison) -> Iterator[Section]:
    rows = words.in_order(comparison)
    caption = "What each takes, the common baseline marked"
    chart = Chart("times", lambda: times(comparison), f"{caption}.", "comparison.csv")
    known = [name for name in TAKEN if any(_is_known(row[name]) for row in rows)]
    known = [name for name in known if name != "cycles" or comparison.unit.word == "cycles"]
    taken = Table("comparison", rows, "What each takes, the fastest first", known)
    yield Section("Time", charts=[chart], tables=[taken])
    text = "How many times as fast a step would be: with a DRAM that is never waited for; with PEs "
    text += "that lose no cycle, on this DRAM; with both. What the vector unit works at stays."
    bounds = Table("bounds", _bounds(comparison, rows), "Bounds, and what would change them")
    yield Section("What bounds each", text, tables=[bounds])
    yield _of_what([{name: row[name] for name in ABOUT} for row in rows])
    if len(rows) > LAYERED:
        return
    try:
        layers = comparison.layers()
    except ResultsError:  # of other networks, or their files have gone: the rows are there
        return
    caption, paper = "Layers and ops of each, in one step", _on_paper(layers, len(rows))
    table = Table("layers", layers, caption, LAYERS, folded=True, paper=paper)
    yield Section("Layers and ops", tables=[table])


def _on_paper(layers: list[Row], results: int) -> Paper | None:
    """Return which layers and ops are printed: those that take most, of all results together."""
    taken: dict[tuple[str, str], float] = {}
    for row in layers:
        if row["layer"] != ALL_LAYERS:
            key = row["layer"], row["op"]
            taken[key] = taken.get(key, 0.0) + row["cycles"]
    most = max(1, min(COSTLIEST, PRINTED // results))
    if len(taken) <= most:
        return None
    kept = sorted(taken, key=lambda key: -taken[key])[:most]
    rows = [
        place
        for place, row in enumerate(layers)
        if row["layer"] == ALL_LAYERS or (row["layer"], row["op"]) in kept
    ]
    return Paper(frozenset(rows), f"the {most} of {len(taken)} that take longest, and totals")


def _is_known(value: Any) -> bool:
    return value is not None and value == value


def _of_what(rows: list[Row]) -> Section:
    """Return what results are: a table of what differs, and what is alike in a sentence."""
    differ, text = alike(rows, ABOUT[len(NAMES) :])
    columns = (*NAMES, *differ) if len(rows) > 1 else ABOUT
    text = text if len(rows) > 1 else ""
    table = Table("compared", rows, "What they are, as far as they differ", columns)
    return Section("What is compared", text, tables=[table])


def _bounds(comparison: Comparison, rows: list[Row]) -> list[Row]:
    found = []
    for row in rows:
        one = comparison.compared[row["label"]].verdict
        own = {"label": row["label"], "bound_by": BOUNDS[one.bound], "share_of_time": one.share}
        found.append({**own, **one.changes})
    return found
