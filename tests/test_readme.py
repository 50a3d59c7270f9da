"""The README tells the truth: its commands are CI's, its code runs, its table is what comes out."""

from __future__ import annotations

import importlib.util
import re
import shlex
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from swatsim.cli.main import VERBS
from swatsim.workload import storage

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ci_calls_exactly_the_test_command() -> None:
    assert blocks("sh")[1].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_what_is_needed_is_what_is_installed_and_tested() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *dict(setup["options.extras_require"]).values()]
    needed = {line for text in lists for line in text.split()} - {"swatsim[test]"}
    (tested,) = (line for line in needed if line.startswith("torch=="))
    (least,) = (line for line in needed if line.startswith("torch>="))
    # .ci/lowest makes a pin of each
    assert all(re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", line) for line in needed - {tested})
    assert tested.startswith(least.replace(">=", "=="))
    assert f"any torch from {least.removeprefix('torch>=')} on" in README
    pythons = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert setup["options"]["python_requires"] == f">={pythons[0]}"
    assert f"Python {pythons[0]} or newer (CI's workflow runs {', '.join(pythons)})" in README


def test_the_first_command_names_a_trace_that_ships() -> None:
    words = shlex.split(blocks("sh")[0])
    trace = words[words.index("simulate") + 1]
    assert (ROOT / trace / "manifest.json").is_file()


def test_python_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    whole, one_op = (code for code in blocks("python") if code.startswith("import"))
    exec(whole.replace('"results"', repr(str(tmp_path))), {})
    assert (tmp_path / "results.parquet").is_file()
    for code in blocks("python"):
        if "ByScore" in code or "LessAndLess" in code:
            exec(code, {})
        if code.startswith("swatsim.machine"):
            exec(code, {"swatsim": importlib.import_module("swatsim")})
    names: dict[str, object] = {}
    exec(one_op, names)
    assert names["counters"].cycles_compute > 0  # type: ignore[attr-defined]


README_PY = load(ROOT / "benchmarks" / "readme.py")
#: Run afresh, one a mechanism; tests/reports/test_titles.py runs `tensordash` and `scnn`.
RUN = ("dadiannao", "stc", "scale-sim-ws", "sparten", "ideal")
#: Of the memories, the fast ones.
MEMORIES = [change for change in README_PY.MEMORIES if "keep_on_chip" not in change][:4]
BLOCKS = [("traces/README.md", name) for name in README_PY.BLOCKS["traces/README.md"]]


def rows_of(name: str) -> list[str]:
    block = README.partition(f"<!-- begin: {name} -->\n")[2].partition("<!-- end: ")[0]
    return block.splitlines()


def test_the_table_of_machines_has_them_all_and_what_comes_out_of_some() -> None:
    table = rows_of("machines")
    assert [*README_PY.machines(RUN)] == table[:2] + [
        row for row in table[2:] if row.split("`")[1] in RUN
    ]
    presets = [point.preset for point in README_PY.read_spec(README_PY.MACHINES).points()]
    assert [row.split("`")[1] for row in table[2:]] == presets


def test_the_table_of_memories_has_them_all_and_what_comes_out_of_some() -> None:
    table = rows_of("memories")
    run = [*README_PY.bandwidths(MEMORIES)]
    assert run[:2] == table[:2]
    assert set(run) < set(table)
    words = [[f"{name}={value}" for name, value in it.items()] for it in README_PY.MEMORIES]
    assert [row.split(" | ")[0].split("`")[1::2] for row in table[2:]] == words


@pytest.mark.parametrize(("file", "name"), BLOCKS)
def test_a_table_is_what_comes_out(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert f"<!-- begin: {name} -->" in text
    assert README_PY.replace(text, name, README_PY.BLOCKS[file][name]()) == text


def test_the_table_of_swat_is_what_comes_out_of_its_measurements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = load(ROOT / "benchmarks" / "paper" / "swat.py")
    assert module.replace(README, "swat", module.readme()) == README
    assert (ROOT / "benchmarks/paper/swat.md").read_text() == "\n".join(module.report()) + "\n"


def test_how_far_dnnsim_lies_is_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = load(ROOT / "benchmarks" / "paper" / "dnnsim_pairs.py")
    layers = {layer.name: layer for layer in module.network("resnet50").layers}
    odd = {name for name, layer in layers.items() if module.is_odd(layer)}
    worst = module.compare(layers["layer3.0.conv2"], 20, 70)
    machine = (ROOT / "swatsim/simulator/machines/cartesian/README.md").read_text()
    for text in (README, machine):
        block = text.partition("<!-- begin: dnnsim -->")[2].partition("<!-- end: dnnsim -->")[0]
        assert all(f"`{name}`" in block for name in odd)
        assert f"The most, {worst.difference:+.0f} %," in block
        assert "20 % of the weights and 70 % of the activations" in " ".join(block.split())


def test_what_autograd_keeps_is_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = load(ROOT / "benchmarks" / "kept.py")
    small = list(module.rows(("resnet8",)))
    assert len(small) == 2 + len(module.TODAY)
    for arguments in small:
        assert module.row(*arguments) in README


def test_every_policy_is_in_the_table() -> None:
    from swatsim import policies

    found = set(re.findall(r"^\| `(\w+)\(", README, flags=re.M))
    ours = [getattr(policies, name) for name in policies.__all__]
    assert found == {it.__name__ for it in ours if hasattr(it, "describe")} - {"Policy"}


def test_links_lead_somewhere() -> None:
    for text in (README, CONTRIBUTING):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / target).exists(), target


def test_every_dependency_has_its_reason() -> None:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = [setup["options.extras_require"][name] for name in ("torch", "models", "test", "dev")]
    for line in "\n".join([setup["options"]["install_requires"], *extras]).split():
        package = re.split(r"[><=\[]", line)[0]
        assert package == "swatsim" or re.search(rf"^\| .*{package}", CONTRIBUTING, flags=re.M)


def test_the_readme_has_every_command_and_no_other() -> None:
    verbs = set(re.findall(r"\bswatsim ([a-z]+)", README))
    assert set(VERBS) <= verbs
    shown = set(re.findall(r"^swatsim (\w+)", "\n".join(blocks("sh")), flags=re.M))
    assert shown <= set(VERBS)


def test_every_storage_format_has_its_row_and_its_word() -> None:
    memory = (ROOT / "swatsim" / "simulator" / "memory" / "README.md").read_text()
    table = memory.partition("| format | bits of a block |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^ ]+) \|", table, flags=re.M)
    placed = [name for name, it in storage.FORMATS.items() if it.placed]
    assert rows == [*placed, "N:M"]
    section = README.partition("\n## Footprint")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in section for name in storage.FORMATS)
