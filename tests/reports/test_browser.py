"""Pages in a real browser: at three widths, printed, without a script and without a network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import swatsim
from swatsim.results import Results
from tests.pictures import unpainted
from tests.reports.browser import Browser, Tab, find
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

PROGRAM = find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium on this machine: apt install chromium"
)

WIDTHS = (375, 800, 1280)
#: A4 across, without margins, in pixels.
PAPER = 1032
#: What layers may be called.
HOSTILE = (
    "</title><script>alert(1)</script>",
    "'\"><img src=https://example.org/x onerror=alert(1)>",
    "$\\frac{a}{b}$ style=" + "y" * 120,
    "=cmd|'/C calc'!A0",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    found = swatsim.simulate(
        make_trace(tmp_path_factory.mktemp("pages") / "<i>t</i>"), "tensordash"
    )
    names = dict(zip(dict.fromkeys(row["layer"] for row in found.rows), HOSTILE, strict=True))
    rows = [{**row, "layer": names[row["layer"]]} for row in found.rows]
    return Results(rows, found.provenance)


@pytest.fixture(scope="module")
def pages(results: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("written")
    found = {"results": swatsim.report(results, folder / "results")[0]}
    with unpainted():
        trace = make_trace(folder / "t" / "a'b&<c>")
        machines = [{"preset": "scale-sim-ws", "grid": {"rows": [4, 8, 16], "columns": [4, 8, 16]}}]
        spec = {"traces": [str(trace.path)], "machines": machines, "steps": [0]}
        swatsim.sweep(spec, folder / "sweep", executor=Here())
        found["sweep"] = swatsim.report(folder / "sweep")[0]
        compared = swatsim.compare(results, results, labels=HOSTILE[:2])
        found["comparison"] = next(
            path for path in compared.save(folder / "compared") if path.suffix == ".html"
        )
    return found


#: Whether something takes room on the page.
SHOWN = "const shown = (one) => one.checkVisibility();"
#: Cells that end beyond the paper.
CUT = """[...document.querySelectorAll("td, th")]
    .filter((one) => one.getBoundingClientRect().right > document.body.clientWidth + 1).length"""


@pytest.mark.parametrize("which", ["results", "sweep", "comparison"])
def test_a_page_fits_every_width_and_paper(
    browser: Browser, pages: dict[str, Path], which: str
) -> None:
    tab = Tab(browser, pages[which], WIDTHS[0])
    for width in WIDTHS:
        tab.resize(width)
        assert tab.value("document.documentElement.scrollWidth") == width
        assert tab.value("document.querySelector('h1').getBoundingClientRect().bottom") < 400
    # what compares points or results is beside each other
    beyond = "const one = document.querySelector('.wide'); one.scrollWidth - one.clientWidth"
    assert which == "results" or tab.value(beyond) <= 0
    tab.resize(PAPER)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.value("document.documentElement.scrollWidth") == PAPER
    assert tab.value(CUT) == 0
    # folded parts too, but for what a long table leaves out, and nothing to type into
    on_paper = "tbody tr:not(.screen), h2, .paper"
    assert tab.value(SHOWN + f"[...document.querySelectorAll('{on_paper}')].every(shown)")
    on_screen = ".filter, .said, .screen"
    assert not tab.value(SHOWN + f"[...document.querySelectorAll('{on_screen}')].some(shown)")
    # on each page once more
    heads = "[...document.querySelectorAll('thead')].map((one) => getComputedStyle(one))"
    repeated = "(one) => one.display === 'table-header-group' && one.breakInside === 'avoid'"
    assert tab.value(f"{heads}.every({repeated})")
    # where a heading is repeated, a browser leaves a button in it out
    button = "(one) => getComputedStyle(one).display === 'contents'"
    assert tab.value(f"[...document.querySelectorAll('th button')].every({button})")
    printed = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 2
    assert tab.complaints() == []


def test_the_verdict_stands_before_all_figures(browser: Browser, pages: dict[str, Path]) -> None:
    tab = Tab(browser, pages["results"], 1280)
    first = "[...document.querySelector('main').children].slice(0, 3).map((one) => one.className)"
    assert tab.value(first) == ["", "verdict", "tiles"]
    assert tab.value("document.querySelector('.verdict').textContent").startswith("Bound by ")
    assert tab.value("document.querySelector('.tiles').getBoundingClientRect().bottom") < 800
    drawn = "[...document.images].every((one) => one.complete && one.naturalWidth > 300)"
    assert tab.value(drawn)
    assert tab.value("document.images.length") > 4


def test_a_bar_says_its_figures(browser: Browser, pages: dict[str, Path]) -> None:
    tab = Tab(browser, pages["results"], 1280)
    spot = "document.querySelector('img[alt^=\"Speed-up of each layer\"]').parentElement"
    spot += ".querySelectorAll('rect')[7]"
    tab.value(f"{spot}.scrollIntoView({{block: 'center'}})")
    box = tab.value(f"{spot}.getBoundingClientRect().toJSON()")
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
    said = tab.value(f"{spot}.closest('figure').querySelector('.said').textContent")
    assert said == tab.value(f"{spot}.textContent")
    assert re.search(r", (fprop|dgrad|wgrad): \d+\.\d\dx\n.* ms a step, the baseline .* ms\n", said)


#: The rows of the table of layers, as far as they are shown.
ROWS = "const table = document.querySelector('[aria-label^=\"Every layer and op\"] table');"
ROWS += "const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);"


def test_tables_are_sorted_and_filtered(
    browser: Browser, pages: dict[str, Path], results: Results
) -> None:
    tab = Tab(browser, pages["results"], 800)
    cycles = ROWS + "const at = [...table.tHead.rows[0].cells].findIndex("
    cycles += "(one) => one.textContent === 'cycles');"
    column = cycles + "rows.map((row) => row.cells[at].textContent)"
    before = tab.value(column)
    for order in ("descending", "ascending"):
        tab.value(cycles + "table.tHead.rows[0].cells[at].querySelector('button').click()")
        assert tab.value(cycles + "table.tHead.rows[0].cells[at].ariaSort") == order
        numbers = [int(text.replace(",", "")) for text in tab.value(column)]
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert sorted(tab.value(column)) == sorted(before)
    tab.value("document.querySelector('details:has(.filter [aria-label]), details').open = true")
    write = ROWS + "const input = table.closest('.wide').previousElementSibling.querySelector("
    write += "'input'); input.value = '{}'; input.dispatchEvent(new Event('input'));"
    tab.value(write.format("img WGRAD"))
    shown = tab.value(
        ROWS + "rows.map((row) => [row.cells[0].textContent, row.cells[1].textContent])"
    )
    assert shown == [[HOSTILE[1], "wgrad"]]
    tab.value(write.format(""))
    assert len(tab.value(column)) == len(before)
    assert tab.complaints() == []


def test_a_page_without_its_script_has_the_same_numbers_and_no_dead_button(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with_it, without = (Tab(browser, pages["results"], 800, script=on) for on in (True, False))
    cells = "[...document.querySelectorAll('td')].map((one) => one.textContent)"
    assert with_it.value(cells) == without.value(cells)
    dead = "document.querySelectorAll('button, input').length"
    assert with_it.value(dead) > 5
    assert without.value(dead) == 0
    assert without.value("document.querySelector('rect title').textContent")


def test_nothing_else_runs_on_a_page(browser: Browser, pages: dict[str, Path]) -> None:
    """A page's own policy refuses what somebody put there, and the test would see it."""
    tab = Tab(browser, pages["results"], 800)
    tab.value(
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        "document.body.append(one); const two = new Image();"
        "two.src = 'https://example.org/x.png'; document.body.append(two)"
    )
    assert tab.value("window.ran") is None
    assert len(tab.complaints()) >= 2
