"""What pages show is what comes out: blocks, code, commands, links."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest

import swatsim as package
from swatsim.cli import sweep
from swatsim.cli.main import VERBS, cli
from swatsim.workload import storage
from tests.command import swatsim
from tests.pictures import unpainted
from tests.scripts import load
from tests.sweeps.test_sweep import Here

ROOT = Path(__file__).parents[1]
PAGES, MADE = load("pages"), load("readme")
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES.pages()}
#: Those that are read one after another, not beside code.
NARRATIVE = {name: text for name, text in TEXTS.items() if name.startswith("docs/")}
TUTORIAL = TEXTS["docs/tutorial.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


# ---- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [it for it in NARRATIVE if "/howto/" in it or "/why/" in it])
def test_a_page_begins_with_what_it_answers(name: str) -> None:
    head, question = NARRATIVE[name].split("\n\n")[:2]
    assert head.startswith("# ")
    assert question.startswith("*")
    assert len(NARRATIVE[name].splitlines()) >= 20


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    lines = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M).splitlines()
    heads = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "examples/README.md", *TEXTS])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / name).read_text()):
        path, _, anchor = target.partition("#")
        place = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert place.exists(), target
        assert not anchor or anchor in anchors(place.read_text()), target


def test_the_readme_leads_to_every_page() -> None:
    reached = {f"docs/{it}" for it in re.findall(r"\(docs/([\w/-]+\.md)", TEXTS["README.md"])}
    assert set(NARRATIVE) - reached <= {"docs/index.md"}


# ---- commands ------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of swatsim's in a page's shell blocks."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True) if part.startswith("swatsim ") else []
                if words:
                    yield words[1:]


def test_pages_have_every_command() -> None:
    shown = {words[0] for text in TEXTS.values() for words in commands(text)}
    assert shown <= set(VERBS)
    assert set(VERBS) - shown <= set(re.findall(r"\bswatsim (\w+)", "".join(TEXTS.values())))


@pytest.mark.parametrize("name", [it for it, text in TEXTS.items() if list(commands(text))])
def test_commands_are_ones_that_are_understood(name: str) -> None:
    for verb, *words in commands(TEXTS[name]):
        command, context = cli.get_command(click.Context(cli), verb), click.Context(cli)
        assert command is not None
        if isinstance(command, click.Group):
            verb, *words = words
            command = command.get_command(context, verb)
            assert command is not None
        # options alone: what the words are, such as a trace of the reader's, is not there
        command.make_parser(click.Context(command)).parse_args(list(words))


#: What spares time where a command runs here: no process that draws, no pool of them, one step.
QUICKLY = {
    "simulate": ("--plots", "none"),
    "sweep": ("--dask", "here", "--step", "0"),
    "estimate": ("--step", "2339"),
}


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "_cluster", lambda *named: Here())
    printed: dict[str, str] = {}
    with unpainted():
        for verb, *words in commands(TUTORIAL):
            if not any(word.startswith("runs/") for word in words):
                code, out, errors = swatsim(verb, *words, *QUICKLY.get(verb, ()))
                assert code == 0, errors
                printed.setdefault(verb, out)
    done = ("info", "simulate", "compare", "sweep", "report", "timeline", "estimate")
    assert set(printed) == set(done)
    assert (tmp_path / "results/tensordash/report/report.html").is_file()
    # pages have it as a terminal shows it, whose lines are shorter, its tables with fewer columns
    begin("verdict", printed["simulate"])
    begin("first", printed["simulate"], until="\n\n")
    begin("compared", printed["compare"], until="\nOf a step")
    begin("estimated", printed["estimate"], until=" takes ")
    assert {*"\n".join(PAGES.block("first")[1:-1]).replace("─", "").split()} <= {
        *printed["simulate"].split()
    }


def begin(block: str, printed: str, until: str = "\n```") -> None:
    """Check that what a command prints begins with a block's text."""
    text = "\n".join(PAGES.block(block)[1:]).partition(until)[0]
    assert printed.split()[: len(text.split())] == text.split()


# ---- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [it for it, text in TEXTS.items() if blocks(text, "python")])
def test_python_is_python(name: str) -> None:
    for code in blocks(TEXTS[name], "python"):
        ast.parse(code)


@pytest.mark.parametrize("page", ["python", "format", "policy", "validation"])
def test_python_examples_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    text = TEXTS[f"docs/{'' if page == 'validation' else 'howto/'}{page}.md"]
    some = partial(package.simulate, steps=(0, 2339))  # as good as all six, in a third of the time
    monkeypatch.setattr(package, "simulate", some)
    with unpainted():
        for code in blocks(text, "python"):
            if "Tracer" not in code:
                exec("import swatsim\n" + code, names)
    assert page != "python" or names["counters"].cycles_compute > 0  # type: ignore[attr-defined]
    assert page != "format" or swatsim("check", "runs/by-hand")[0] == 0


# ---- blocks --------------------------------------------------------------------------------------


def test_every_block_has_a_script_and_every_script_a_page() -> None:
    scripts = [path.read_text() for path in (ROOT / "benchmarks").rglob("*.py")]
    put = {name for text in scripts for name in re.findall(r'\bput\("([\w-]+)"', text)}
    there = {name for text in TEXTS.values() for name in re.findall(r"<!-- begin: (\S+) -->", text)}
    assert put | set(MADE.BLOCKS) == there


@pytest.mark.parametrize("name", ["accuracy", "densities", "dense-layer", "speed-ups", "steps"])
def test_a_block_is_what_comes_out(name: str) -> None:
    assert PAGES.block(name) == list(MADE.BLOCKS[name]())


def test_a_block_that_is_on_no_page_is_missed() -> None:
    with pytest.raises(LookupError, match="no page has a block 'nowhere'"):
        PAGES.put("nowhere", ["a line"])


def test_the_table_of_machines_has_them_all() -> None:
    table = PAGES.block("machines")
    # tests/reports/test_titles.py has the rows of two
    assert list(MADE.machines(())) == table[:2]
    presets = [point.preset for point in MADE.read_spec(MADE.MACHINES).points()]
    assert [row.split("`")[1] for row in table[2:]] == presets


def test_the_table_of_memories_has_them_all_and_what_comes_out_of_one() -> None:
    table = PAGES.block("memories")
    assert [*MADE.bandwidths(MADE.MEMORIES[-1:])] == [*table[:2], table[-1]]
    words = [[f"{name}={value}" for name, value in it.items()] for it in MADE.MEMORIES]
    assert [row.split(" | ")[0].split("`")[1::2] for row in table[2:]] == words


def test_the_table_of_swat_is_what_comes_out_of_its_measurements() -> None:
    script = load("paper/swat")
    assert PAGES.block("swat") == list(script.chosen())
    assert (ROOT / "benchmarks/paper/swat.md").read_text() == "\n".join(script.report()) + "\n"


def test_how_far_dnnsim_lies_is_what_comes_out() -> None:
    script = load("paper/dnnsim_pairs")
    layers = {layer.name: layer for layer in script.network("resnet50").layers}
    worst = script.compare(layers["layer3.0.conv2"], 20, 70)
    text = " ".join(PAGES.block("dnnsim"))
    assert all(f"`{name}`" in text for name, layer in layers.items() if script.is_odd(layer))
    assert f"The most, {worst.difference:+.0f} %," in text
    assert "20 % of the weights and 70 % of the activations" in text


def test_what_autograd_keeps_is_what_is_measured() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    script = load("kept")
    table = PAGES.block("kept")
    names = [(name, policy.describe()["name"]) for name, policy in script.rows()]
    assert [tuple(row.strip("| ").split(" | ")[:2]) for row in table[2:]] == names
    assert script.row("resnet8", script.SwatU(0.8)) in table


def test_every_family_of_runs_has_its_intervals() -> None:
    script, table = load("intervals"), PAGES.block("intervals")
    assert table[:2] == list(script.lines([script.Row("", n, 1, 1, 1) for n in script.COUNTS]))[:2]
    assert [row.strip("| ").partition(", steps scatter")[0] for row in table[2:]] == list(
        script.FAMILIES
    )


def test_whole_runs_are_measured_on_every_machine() -> None:
    script, table = load("whole_run"), PAGES.block("whole-run")
    rows = [script.Row("", *sample, 0, 1, 1) for sample in script.RECORDED]
    assert table[:2] == list(script.lines(rows))[:2]
    assert [row.strip("| ").partition(" | ")[0] for row in table[2:]] == list(script.MACHINES)


def test_every_policy_is_in_the_table() -> None:
    from swatsim import policies

    found = set(re.findall(r"^\| `(\w+)\(", TEXTS["docs/howto/policy.md"], flags=re.M))
    ours = [getattr(policies, name) for name in policies.__all__]
    assert found == {it.__name__ for it in ours if hasattr(it, "describe")} - {"Policy"}


def test_every_storage_format_has_its_row_and_its_word() -> None:
    memory = TEXTS["swatsim/simulator/memory/README.md"]
    table = memory.partition("| format | bits of a block |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^ ]+) \|", table, flags=re.M)
    placed = [name for name, it in storage.FORMATS.items() if it.placed]
    assert rows == [*placed, "N:M"]
    assert all(f"`{name}`" in TEXTS["docs/howto/footprint.md"] for name in storage.FORMATS)
