"""The documentation site, as far as it can be held without building it: .ci/docs does that."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import get_args

import click
import pytest

from swatsim.cli.main import VERBS, cli
from swatsim.columns import COLUMNS, FORM
from swatsim.form import Adds
from swatsim.policies import POLICIES
from swatsim.simulator.energy import table as energy
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.memory import dram
from swatsim.workload.networks import NETWORKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONF = (DOCS / "conf.py").read_text()
INDEX = (DOCS / "index.md").read_text()


@pytest.fixture(scope="module", autouse=True)
def _found() -> Iterator[None]:
    """Have `docs` among the places of modules, as conf.py does, and load none before."""
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


def setting(name: str) -> list[str]:
    for node in ast.parse(CONF).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return list(ast.literal_eval(node.value))
    raise LookupError(name)


# ---- what it is built with, and of ---------------------------------------------------------------


def test_what_builds_it_is_in_its_extra() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extra = {line.partition(">=")[0] for line in setup["options.extras_require"]["docs"].split()}
    used = {each.partition(".")[0].replace("_", "-") for each in setting("extensions")}
    assert used | {"furo", "sphinx"} <= extra
    assert 'html_theme = "furo"' in CONF
    assert "intersphinx" not in CONF, "a build asks no network"


def test_folders_that_are_made_are_in_neither_git_nor_sdist() -> None:
    import from_code

    ignored = (ROOT / ".gitignore").read_text().splitlines()
    pruned = (ROOT / "MANIFEST.in").read_text().splitlines()
    for folder in (*from_code.FOLDERS, "_build"):
        assert f"/docs/{folder}/" in ignored
        assert f"prune docs/{folder}" in pruned


def test_every_page_is_found_from_the_first() -> None:
    from from_code import links

    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}\n(.*?)```", INDEX, flags=re.S)
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    }
    written = {path.relative_to(DOCS) for path in [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")]}
    from_code_folders = {page.partition("/")[0] for page in links.homes().values()}
    ours = {str(it.with_suffix("")) for it in written if it.parts[0] not in from_code_folders}
    assert ours - {"index"} <= listed
    made = {page.rpartition(".")[0] for page in links.homes().values()}
    for name in listed - ours:
        assert name in made or name.startswith(
            ("reference/", "measured/", "notebooks/", "machines/")
        )


# ---- where links lead ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "led"),
    [
        ("../README.md", "https://example.org/swatsim/README.md"),
        ("howto/record.md#x", "/howto/record.md#x"),
        ("../swatsim/simulator/memory/README.md#time", "/machines/memory.md#time"),
        ("../swatsim/simulator/memory", "/machines/memory.md"),
        ("../swatsim/simulator/memory/drams", "/reference/drams.md"),
        ("../swatsim/policies", "https://example.org/swatsim/swatsim/policies"),
        ("../benchmarks/figures/report.png", "/../benchmarks/figures/report.png"),
        ("../examples/own_loop.py", "/examples/own_loop.md"),
        ("../notebooks/01_trace.ipynb", "/notebooks/01_trace.ipynb"),
        ("https://arxiv.org/abs/2001.01969", "https://arxiv.org/abs/2001.01969"),
        ("#here", "#here"),
    ],
)
def test_links_lead_to_pages_or_to_the_repository(link: str, led: str) -> None:
    from from_code import links

    assert links.rewritten(f"See [it]({link}).", "docs/validation.md") == f"See [it]({led})."


def test_links_in_code_stay() -> None:
    from from_code import links

    text = "```python\nx = [f](../a.py)\n```\n[g](howto/record.md)"
    assert links.rewritten(text, "docs/a.md") == text.replace("howto", "/howto")


def test_every_home_is_of_a_file() -> None:
    assert [path for path in homes() if not (ROOT / path).exists()] == []


def test_no_product_in_a_text_is_taken_for_emphasis() -> None:
    for path in (it for it in homes() if it.endswith(".md")):
        text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / path).read_text(), flags=re.S)
        lines = [line for line in text.splitlines() if not line.startswith("    ")]
        assert [line for line in lines if re.search(r"[\w)\]]\*[\w(\[]", line)] == [], path


def homes() -> dict[str, str]:
    from from_code import links

    return links.homes()


# ---- what is made from code ----------------------------------------------------------------------


def test_machines_have_all_presets_and_parameters() -> None:
    from from_code import machines

    made = machines.pages()
    for mechanism in MACHINES:
        page = made[f"reference/presets/{mechanism.name}.md"]
        assert f"machines/{mechanism.name}/README.md" in made[f"machines/{mechanism.name}.md"]
        for name, preset in mechanism.config_type.presets.items():
            assert f"### {name}\n" in page
            assert f"| `{name}` |" in made["reference/presets/index.md"]
            assert machines.words(preset.citation) in page
        for parameter in mechanism.config_type.model_fields:
            assert page.count(f"\n`{parameter}`\n: ") == 1


def test_verbs_have_all_options() -> None:
    from from_code import verbs

    made = verbs.pages()
    context = click.Context(cli, info_name="swatsim")
    for name in VERBS:
        command = cli.get_command(context, name)
        assert command is not None
        page = made[f"reference/verbs/{name}.md"]
        options = [it for it in command.params if isinstance(it, click.Option) and not it.hidden]
        assert all(f"{option.opts[-1]}" in page for option in options)
        assert "{known}" not in page


def test_columns_are_all_there_each_once() -> None:
    from from_code import columns

    page = columns.pages()["reference/columns.md"]
    assert set(columns.ADDS) == set(get_args(Adds))
    assert [it.name for it in COLUMNS if page.count(f"\n| `{it.name}` |") != 1] == []
    assert f"schema version {FORM.version}" in page


def test_energies_and_drams_have_each_entry_with_its_source() -> None:
    from from_code import energies

    made = energies.pages()
    for page, folder in (("energies", energy.FOLDER), ("drams", dram.FOLDER)):
        text = made[f"reference/{page}.md"]
        for path in folder.glob("*.toml"):
            sources = re.findall(r'^source = "(.*)"$', path.read_text(), flags=re.M)
            assert sources
            assert all(energies.words(source) in text for source in sources)


def test_entries_are_found_at_any_depth_and_figures_have_units() -> None:
    from from_code import energies

    table = {"a": {"b": {"pj": 2.0, "bits": 8, "source": "here"}}, "name": "mine"}
    assert list(energies.entries(table)) == [("`a.b`", "2 pJ, of 8 bits", "here")]


def test_policies_have_a_paper_and_networks_their_counts() -> None:
    from from_code import networks, policies

    without = [name for name, kind in POLICIES.items() if not policies.paper(kind)]
    assert without == ["dense"]
    listed = policies.pages()["reference/policies.md"]
    assert all(f"\n`{name}`\n: " in listed for name in POLICIES)
    table = networks.pages()["reference/networks.md"]
    assert all(f"\n| `{name}` | " in table for name in NETWORKS)
    assert "| `resnet50` | 54 | 25.56 | 4.089 | SGD |" in table


def test_every_public_name_has_a_page() -> None:
    pytest.importorskip("torch")
    from from_code import api

    import swatsim
    from swatsim import policies
    from swatsim.tracer import pytorch

    made = api.pages()
    for module in (swatsim, policies, pytorch):
        for name in module.__all__:
            if not name.startswith("_"):
                page = f"{api.home(module.__name__, name)}.{name}.md"
                assert f"reference/api/{page}" in made
                assert f"[`{name}`]({page})" in made[f"reference/api/{module.__name__}.md"]
