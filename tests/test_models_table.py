"""docs/models.md is what benchmarks/share_held.py writes; none of its libraries is needed here."""

from __future__ import annotations

import configparser
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("share_held", ROOT / "benchmarks/share_held.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "share_held", module)  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    for name in [each for each in sys.modules if each.partition(".")[0] == "families"]:
        del sys.modules[name]


def test_the_page_has_the_form_that_the_script_writes(script: ModuleType) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
    head, _, _ = "\n".join(script.page([], "")).partition("Made by")
    assert PAGE.startswith(head)
    assert f"| {' | '.join(script.COLUMNS)} |" in PAGE
    names = [tuple(re.split(r" \| ", row.strip("| "))[:2]) for row in rows]
    assert names == [(model.family, model.name) for model in script.models()]
    assert all(row.count("|") == len(script.COLUMNS) + 1 for row in rows)
    assert len(names) == len(set(names)) >= 30
    assert f"\n{len(rows)} models of " in PAGE


def test_the_extra_has_every_library_that_models_are_of() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = {line.split(">=")[0] for line in setup["options.extras_require"]["models"].split()}
    text = "".join(path.read_text() for path in (ROOT / "benchmarks/families").glob("*.py"))
    assert wanted == set(re.findall(r'import_module\("(\w+)"\)', text))


def test_a_model_of_torch_alone_is_measured_and_one_that_fails_is_a_row(script: ModuleType) -> None:
    models = {model.name: model for model in script.models()}
    good = script.measured(models["nn.GRUCell"])
    assert good.is_right
    assert good.observed.of_weights == good.traced.of_weights == good.observed.share == 1
    assert good.traced.left_alone == ("cell",)
    encoder = script.measured(models["nn.TransformerEncoder"])
    assert encoder.is_right
    assert encoder.observed.of_weights == encoder.observed.share == 1
    assert not encoder.observed.others
    # of each of two layers six by weights, and attention's two
    assert encoder.observed.layers == 2 * (6 + 2)

    def absent() -> Any:
        raise ImportError("no library | of this name")

    failed = script.measured(script.Model("some", "model", absent))
    assert "ImportError: no library / of this name" in script.row(failed)
    assert script.summary([good, failed]) == (
        "2 models of 2 families: 1 as they should be, 0 not, 1 failed."
    )


@pytest.mark.parametrize(
    ("held", "is_right", "words"),
    [
        ({"of_weights": 0.9}, False, "90 %"),
        ({"of_weights": 0.9, "left_alone": ("a", "b", "c")}, True, "`a`, `b`, 1 more"),
        ({"of_weights": 1.2, "left_alone": ("a",)}, False, "120 %"),
        ({"of_weights": 0.99999}, False, "> 99.9 %"),
        ({"others": {"some products": 0.00001}}, True, "some products < 0.1 %"),
    ],
)
def test_a_row_says_what_is_wrong(
    script: ModuleType, held: dict[str, Any], is_right: bool, words: str
) -> None:
    whole = script.Held(2, 10**6, 1.0, 1.0, {}, ())
    row = script.Row("some", "model", whole, replace(whole, **held), is_equal=True)
    both = replace(row, observed=row.traced)
    assert (row.is_right, both.is_right) == (is_right, is_right)
    assert words in script.row(both)
    assert not replace(row, is_equal=False).is_right


def test_what_multiplies_by_a_weight_is_found(script: ModuleType) -> None:
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 4, 4))
            self.token = torch.nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x @ self.weight[0]  # 2 x 4 x 4
            y = y @ (2 * self.weight[1]).mT  # 2 x 4 x 4
            query = self.token[None] @ self.weight[2]  # 4 x 4
            fixed = torch.arange(4.0)[:, None]
            return (y @ query.mT).sum() + (y @ fixed).sum() + (y @ y.mT).sum()  # 8, 8, 2 x 2 x 4

    torch.manual_seed(0)
    model, batches = Mixed(), [{"x": torch.randn(2, 4)} for _ in range(2)]

    def run(batch: dict[str, Any], listed: Any) -> None:
        with listed:
            model(**batch)

    assert script.by_weights(run, model, batches) == (32 + 32 + 16 + 8, 32 + 32 + 16 + 8 + 8)
