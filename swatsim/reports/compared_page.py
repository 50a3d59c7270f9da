"""The page of a comparison: what is fastest, over what, and what differs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from swatsim.errors import ResultsError
from swatsim.reports import compared_words as words
from swatsim.reports.compared_bars import times
from swatsim.reports.html import Chart, Page, Section, Table
from swatsim.reports.tables import Row
from swatsim.reports.verdict import BOUNDS

if TYPE_CHECKING:
    from swatsim.reports.compare import Comparison

#: What each takes, and over what.
TAKEN = (
    *("label", "time_ms", "ms_per_image", "images_per_s", "speed_up", "speed_up_layers"),
    *("energy_mj", "energy_efficiency", "own_speed_up"),
)
#: What each is.
ABOUT = (
    *("label", "method", "trace", "machine", "dtype", "clock_mhz", "dram_mb_per_s"),
    *("multipliers", "energy_table", "macs_per_image", "steps", "images", "batch_size", "ops"),
    *("share", "others_left_out", "own_baseline"),
)
#: Of a layer and op.
LAYERS = (
    *("layer", "op", "label", "time_ms", "ms_per_image", "speed_up", "own_speed_up"),
    *("energy_pj", "dram_bytes", "of_ideal"),
)


def page_of(comparison: Comparison) -> Page:
    """Return the page of a comparison; the fastest comes first."""
    title = f"{len(comparison.rows)} results compared"
    first = words.fastest(comparison)
    cost = words.amount(comparison, words.cost_of(comparison, first))
    tiles = [
        (f"{comparison.unit.of_what}, the fastest: {first['label']}", cost),
        (f"speed-up of that over {comparison.baseline.words}", words.times(first["speed_up"])),
        (
            f"energy of the same: that of {comparison.baseline.words} / its own",
            words.times(first["energy_efficiency"]),
        ),
    ]
    about = f"{words.of_baseline(comparison)}. " + ABOUT_FIGURES
    summary = [f"{one}." for one in comparison.sentences]
    summary += [f"{one}." for one in words.notes(comparison)]
    summary += [f"Warning: {one}." for one in comparison.warnings]
    shown = [one for one in tiles if one[1] != "-"]
    return Page(title, about, shown, summary, list(_sections(comparison)))


#: What all figures here are.
ABOUT_FIGURES = (
    "Times, energies and counts are a step's, the mean of the recorded ones, unless they say an "
    "image's; speed-ups are over the common baseline, in time, and own ones over what each is "
    "compared with by itself."
)


def _sections(comparison: Comparison) -> Iterator[Section]:
    rows = [{**row, "energy_mj": row["energy_pj"] / 1e9} for row in words.in_order(comparison)]
    caption = "What each takes, the common baseline marked"
    chart = Chart("times", lambda: times(comparison), f"{caption}.", "comparison.csv")
    taken = Table("comparison", rows, "What each takes, the fastest first", TAKEN)
    yield Section("Time", charts=[chart], tables=[taken])
    text = "How many times as fast a step would be: with a DRAM that is never waited for; with PEs "
    text += "that lose no cycle, on this DRAM; with both. What the vector unit works at stays."
    bounds = Table("bounds", _bounds(comparison, rows), "Bounds, and what would change them")
    yield Section("What bounds each", text, tables=[bounds])
    about = Table(
        "compared", [{name: row[name] for name in ABOUT} for row in rows], "What they are"
    )
    yield Section("What is compared", tables=[about])
    try:
        layers = comparison.layers()
    except ResultsError:  # of other networks, or their files have gone: the rows are there
        return
    table = Table("layers", layers, "Layers and ops of each, in one step", LAYERS, folded=True)
    yield Section("Layers and ops", tables=[table])


def _bounds(comparison: Comparison, rows: list[Row]) -> list[Row]:
    found = []
    for row in rows:
        one = comparison.compared[row["label"]].verdict
        own = {"label": row["label"], "bound_by": BOUNDS[one.bound], "share_of_time": one.share}
        changes = {name: getattr(one, name) for name in ("no_dram_wait", "ideal_pes", "ideal")}
        found.append({**own, **changes})
    return found
