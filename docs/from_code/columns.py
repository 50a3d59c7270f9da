"""The columns of results: name, unit, type, meaning, and how each adds up."""

from __future__ import annotations

from from_code.markdown import code, table, words
from swatsim.columns import COLUMNS, FORM
from swatsim.form import Column

#: `Column.adds` -> a heading, and how such a column behaves when rows are put together.
ADDS = {
    "key": ("Names", "Which row it is: no two have the same in all of these."),
    "shape": ("Shapes", "Of the layer, and of what was recorded of it; they do not add up."),
    "sum": ("Counts", "They sum, over whichever rows."),
    "mean": ("Shares", "They are averaged."),
    "step": ("Of a step", "The same in all rows of a step; they sum over steps."),
    "same": ("Of a machine", "The same in all rows of a machine."),
    "most": ("Largest", "Of the rows of a machine the largest counts."),
    "cut": ("Blocks", "How the row's op is cut into blocks."),
    "listed": ("Lists", "What there is in the rows is listed."),
}


def pages() -> dict[str, str]:
    """Return the page of the schema."""
    before = (
        "`results.parquet`, `results.csv` and `Results.frame` have these columns, schema version "
        f"{FORM.version}; older versions are read from {min(FORM.upgrades)} on. `schema.json`, "
        "beside each result, says the same.\n"
    )
    parts = [f"## {title}\n\n{says}\n\n{_table(adds)}" for adds, (title, says) in ADDS.items()]
    page = ["# Columns of results\n", before, *parts, "## What holds between them\n", _relations()]
    return {"reference/columns.md": "\n".join(page)}


def _table(adds: str) -> str:
    head = ("column", "type", "unit", "meaning")
    return table(head, [_row(each) for each in COLUMNS if each.adds == adds])


def _row(column: Column) -> tuple[str, ...]:
    meaning = words(column.meaning)
    if column.optional and "empty" not in meaning:
        meaning += "; may be empty"
    return code(column.name), column.dtype, words(column.unit), meaning


def _relations() -> str:
    sums = [f"- `{it}` is the sum of {_names(parts)}." for it, parts in FORM.sums.items()]
    products = [f"- `{it}` is the product of {_names(on)}." for it, on in FORM.products.items()]
    bounds = [f"- `{less}` is nowhere above `{more}`." for less, more in FORM.at_most.items()]
    return "\n".join([*sums, *products, *bounds, ""])


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(map(code, names))
