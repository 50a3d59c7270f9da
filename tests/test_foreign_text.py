"""Names, notes and paths that somebody else chose: drawn, printed and saved as they are."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
from matplotlib.text import Text

import swatsim
from swatsim.cli import drawing
from swatsim.errors import ConfigError, SwatsimError
from swatsim.outputs import CHOICES
from swatsim.printable import one_line, printable
from swatsim.reports import layer_bars
from swatsim.reports.over_steps import over_steps
from swatsim.reports.page import of_results
from swatsim.reports.roofline import roofline
from swatsim.reports.series import bars, speed_up_curves
from swatsim.reports.style import as_png
from swatsim.reports.zeros import reductions, sparsity
from swatsim.results import Results, as_csv, load
from swatsim.tracefile.plain import canonical, digest
from swatsim.workload.layer import Layer
from tests.command import process, refused
from tests.command import swatsim as command_line
from tests.pictures import unpainted
from tests.traces import make_trace

#: Names of layers that a trace admits, and that formulas, markup, formats and fonts trip over.
NAMES = (
    *(r"a$\frac$b", "$_$", "$", r"\$", "a$b$c", "^_{}$$", "%s{0}", "<b>&amp;</b>"),
    *(
        "[red]x[/red]:smile:",
        "=HYPERLINK(1)",
        "-1+2",
        "@x",
        "日本語",
        "e\u0301",
        "x" * 300,
        "'",
        '"',
    ),
)
ESCAPE = "\x1b[31m"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = [Layer(name=name, kind="linear", C=4, K=4) for name in NAMES]
    return make_trace(
        tmp_path_factory.mktemp("names") / "of$layers$", (0, 1), 2, tuple(layers)
    ).path


@pytest.fixture(scope="module")
def results(trace: Path) -> Results:
    return swatsim.simulate(trace, "tensordash", workers=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1", "conv1"),
        ("日本語 é", "日本語 é"),
        (ESCAPE, r"\x1b[31m"),
        ("a\nb\t", r"a\nb\t"),
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
    ],
)
def test_what_is_not_printable_is_escaped_and_the_rest_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown).encode()
    assert printable("\n" + text, keep="\n") == "\n" + printable(text, keep="\n")


def test_an_error_is_one_line_that_a_terminal_only_shows() -> None:
    error = SwatsimError(f"no trace in {ESCAPE}x\n\n  y\ud800")
    assert str(error) == r"no trace in \x1b[31mx y\ud800"
    assert one_line(" a\r\nb ") == "a b"


@pytest.mark.parametrize("name", ["speed_up", "pe_cycles", "energy", "roofline"])
def test_plots_draw_any_name_without_a_warning(results: Results, name: str) -> None:
    draw = roofline if name == "roofline" else getattr(layer_bars, name)
    figure = draw(results)
    assert as_png(figure)
    words = "\n".join(text.get_text() for text in figure.findobj(Text))
    assert "of$layers$" in words
    assert name == "roofline" or r"a$\frac$b" in words


def test_charts_and_curves_draw_any_name(results: Results) -> None:
    for draw in (over_steps, sparsity, reductions):
        assert as_png(draw(results))
    curve = {name[:40]: [(0.0, 1.0), (50.0, 2.0)] for name in NAMES[:6]}
    assert as_png(speed_up_curves(curve, title="$_$", baseline=r"$\x$"))
    heights = {name[:40]: {other[:40]: 1.0 for other in NAMES} for name in NAMES[:3]}
    assert as_png(bars(heights, title="$_$", ylabel="$$"))


def test_a_page_shows_any_name_and_allows_nothing_but_what_is_in_it(results: Results) -> None:
    with unpainted():
        text = of_results(results).files()["report.html"].decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'").split("; ")
    assert rules[:2] == ["default-src 'none'", "img-src data:"]
    for rule, kind in zip(rules[2:4], ("style", "script"), strict=True):
        (own,) = re.findall(rf"<{kind}\b[^>]*>(.*?)</{kind}>", text, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rule == f"{kind}-src 'sha256-{digest}'"
    assert not re.search(r"\s(style|on\w+)=", text.partition("<script")[0])
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in text


def test_a_page_of_a_command_line_of_any_bytes_can_be_written(results: Results) -> None:
    strange = Results(results.rows, {"command": [f"{ESCAPE}\udc80"], "parameters": {}})
    with unpainted():
        files = of_results(strange).files()
    assert ESCAPE.encode() not in b"".join(files.values())
    assert rb"\x1b[31m\udc80" in files["provenance.csv"]


def test_a_table_for_people_holds_no_formula_and_the_parquet_no_apostrophe(
    results: Results, tmp_path: Path
) -> None:
    results.save(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        names = {row["layer"] for row in csv.DictReader(file)}
    assert names == {f"'{name}" if name[0] in "=-@" else name for name in NAMES}
    assert {row["layer"] for row in load(tmp_path).rows} == set(NAMES)
    assert as_csv([{"a": -1, "b": "+1", "c": "1-"}]) == b"a,b,c\n-1,'+1,1-\n"


def test_the_command_line_shows_what_is_in_a_name_and_obeys_nothing(
    trace: Path, tmp_path: Path
) -> None:
    strange = os.fsencode(tmp_path) + b"/\x1b[31m$_$\xff\n=1"
    shutil.copytree(trace, os.fsdecode(strange))
    manifest = os.path.join(strange, b"manifest.json")
    with open(manifest) as file:
        changed = {**json.load(file), "policy": {"name": f"ran{ESCAPE}dom\u202e"}}
    del changed["digest"]
    changed["digest"] = digest(canonical(changed))
    with open(manifest, "w") as file:
        json.dump(changed, file)
    output = strange + b"-results"
    to = "-o", output + b"/t.json"
    for command in (
        ["info", strange],
        ["check", strange],
        ["simulate", strange, "-m", "tensordash", "-o", output],
        ["report", output],
        ["compare", output, output],
        ["timeline", strange, "-m", "tensordash", "--layer", "$_$", "--op", "fprop", *to],
    ):
        # the first in a process of its own: there the system made the words of these bytes
        with unpainted():
            code, out, errors = (process if command[0] == "info" else command_line)(*command)
        assert (code, errors) == (0, "")
        assert ESCAPE not in out
        assert "\u202e" not in out
        assert r"\x1b[31m" in out
    assert ESCAPE not in refused("info", strange + b"\x1b[31m")


def test_a_terminal_of_few_characters_shows_escapes(trace: Path) -> None:
    code, out, errors = process("info", trace, "--all", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0, errors
    assert r"\u65e5" in out


def test_a_plot_that_fails_costs_no_number(
    results: Results, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(results: Results) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(layer_bars, "speed_up", fail)
    with unpainted():
        files = of_results(results).files()
    assert "speed_up.png" not in files
    assert {"layers.csv", "pe_cycles.png", "pe_cycles.svg"} <= set(files)
    assert b"It could not be drawn; its numbers: <code>layers.csv</code>" in files["report.html"]
    drawn, failed = drawing.draw(results, CHOICES["main"])
    assert list(drawn) == ["pe_cycles.png"]
    assert failed == {"speed_up.png": "RuntimeError: no ink"}
    with caplog.at_level(logging.WARNING):
        assert list(drawing.plots_of(results, CHOICES["main"])) == ["pe_cycles.png"]
    assert "speed_up.png can't be drawn (RuntimeError: no ink)" in caplog.text


@pytest.mark.parametrize("name", ["", "a\x1b", "\ud800", "a\nb", None, 3])
def test_a_machine_of_a_users_own_has_a_name_that_can_stand_in_a_table(
    trace: Path, name: object
) -> None:
    class Mine:
        simulate_op = simulate_dense = describe = staticmethod(lambda op: None)

    mine = Mine()
    mine.name = name  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="name=.* is not allowed"):
        swatsim.simulate(trace, mine)  # type: ignore[arg-type]


@unpainted()
def test_a_page_of_other_results_does_not_stay(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    written = swatsim.report(tmp_path)
    (tmp_path / "report" / "mine.txt").write_text("a user's own")
    assert written[0].is_file()
    results.save(tmp_path)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["mine.txt"]
    one_step = Results([row for row in results.rows if row["step"] == 0], results.provenance)
    more = {path.name for path in swatsim.report(results, tmp_path / "page")}
    less = {path.name for path in swatsim.report(one_step, tmp_path / "page")}
    assert "over_steps.png" in more - less
    assert {path.name for path in (tmp_path / "page").iterdir()} == less


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": ["../x", "a/b", 3]}'])
def test_a_list_of_a_pages_files_is_not_believed(
    results: Results, tmp_path: Path, text: str
) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "x").write_text("kept")
    (tmp_path / "report" / "contents.json").write_text(text)
    (tmp_path / "report" / "report.html").write_text("of earlier results")
    results.save(tmp_path)
    assert (tmp_path / "x").is_file()
    assert not (tmp_path / "report" / "report.html").exists()
