"""What results, traces, recorders and sweeps say of themselves at a prompt and in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.policies import SwatU
from swatsim.reports import tables
from swatsim.reports.verdict import verdict
from swatsim.results import LEADING, Results
from swatsim.tracefile import Trace
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace


class Tags(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(what: Any) -> list[str]:
    """Return the lines of a notebook, and hold them to those of a prompt."""
    page = Tags()
    page.feed(what._repr_html_())
    assert page.tags <= {"div", "b", "br"}
    assert page.text == repr(what).split("\n")
    return page.text


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("displayed") / "<b>x&", (0, 7))


@pytest.fixture(scope="module")
def results(trace: Trace) -> Results:
    return swatsim.simulate(trace, "tensordash")


def test_results_say_of_what_they_are_what_a_step_takes_and_the_verdict(results: Results) -> None:
    of, takes, bound, rows = seen(results)
    assert of == "Results: tensordash against tensordash dense; <b>x&"
    assert takes.startswith("A step's layers (mean of 2 steps of 2 of 8 images): ")
    step = tables.summarise(results).ops[-1]
    assert f"{tables.per_step(step, 2)['time_ms']:.3g} ms, " in takes
    assert takes.endswith(f"speed-up over tensordash dense: {step['speed_up']:.2f}x")
    assert bound == verdict(results).sentence
    assert rows == f"{len(results.rows)} rows in .frame"
    assert repr(tables.summarise(results)) == repr(results)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "Results: no rows"),
        ([{"a": 1}], "Results: 1 rows, of other columns"),
        (None, "rows, which are not one machine's: "),
    ],
)
def test_rows_that_don_t_add_up_are_shown_too(results: Results, rows: Any, said: str) -> None:
    mixed = [*results.rows, *({**row, "step": 9} for row in results.rows[:1])]
    (line,) = seen(Results(mixed if rows is None else rows, {}))
    assert said in line


def test_a_machine_without_a_clock_has_no_time(trace: Trace) -> None:
    class Own:
        name = "own"
        simulate_op = simulate_dense = staticmethod(
            lambda op: swatsim.machine("tensordash").simulate_op(op)
        )
        describe = staticmethod(dict)

    found = swatsim.simulate(trace, Own(), ops=["fprop"])
    assert "of no clock; speed-up over own" in seen(found)[1]
    assert found.frame.time_ms.isna().all()


def test_a_trace_says_its_layers_steps_images_and_policy(trace: Trace) -> None:
    what, images = seen(trace)
    assert what == f"Trace {trace.path}: 4 layers, steps 0, 7"
    assert images == "2 of 8 images of a batch; policy: random"


def test_a_step_says_its_masks_and_a_machine_its_name(trace: Trace) -> None:
    step = trace.step(7)
    masks = f"{len(step.records)} masks of 4 layers, a batch of 8"
    (said,) = seen(step)
    assert said.startswith(f"Step 7 of {trace.path}: {masks}")
    machine = swatsim.machine("tensordash", rows=8)
    assert "'tensordash[rows=8]'" in repr(machine)
    assert len(repr(machine)) < 100, "its parameters are its config's to show"


def test_a_name_that_a_terminal_obeys_is_escaped(tmp_path: Path) -> None:
    found = make_trace(tmp_path / "a\x1b[31m\nb", (0,))
    lines = seen(found)
    assert len(lines) == 2
    assert "a\\x1b[31m b" in lines[0] or "a\\x1b[31m\\nb" in lines[0]


def test_a_recorder_says_where_it_is(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    path = tmp_path / "t"
    with swatsim.Tracer(model, SwatU(0.5), path, steps=(0, 3)) as tracer:
        model(torch.randn(2, 4)).sum().backward()
        tracer.step()
        shown = f"Tracer of Sequential into {path}: at step 1, recorded steps 0"
        assert seen(tracer) == [shown]
    assert repr(tracer) == f"{shown}; closed"
    with swatsim.Observer(model, tmp_path / "o", steps=(0,)) as observer:
        assert seen(observer)[0].startswith(f"Observer of Sequential into {tmp_path / 'o'}: ")


def test_a_sweep_says_how_far_it_is_and_what_is_fastest(trace: Trace, tmp_path: Path) -> None:
    machines = [{"preset": "tensordash"}, {"preset": "scnn", "set": {"pe_h": 0}}]
    spec = {"traces": [str(trace.path)], "steps": [0], "machines": machines}
    found = swatsim.sweep(spec, tmp_path / "s", executor=Here())
    points, fastest, *rest = seen(found)
    assert points == f"Sweep in {tmp_path / 's'}: 2 points, 1 done, 1 failed"
    assert fastest.startswith(f"Fastest: tensordash on {trace.path}, ")
    assert rest[0] == "1 that no other beats in all costs: .front"
    assert list(found.frame.columns)[:4] == ["trace", "machine", "time_ms", "ms_per_image"]
    assert set(found.frame.columns) == {name for row in found.rows for name in row}


def test_frames_have_what_one_wants_first(results: Results) -> None:
    frame = results.frame
    assert tuple(frame.columns[: len(LEADING)]) == LEADING
    assert np.array_equal(frame.time_ms, frame.cycles / (1000 * frame.clock_mhz))
    layers, ops = swatsim.per_layer(results), swatsim.per_op(results)
    assert list(layers.columns[:6]) == ["layer", "op", "steps", "cycles", "time_ms", "speed_up"]
    assert list(ops.columns[:4]) == ["steps", "cycles", "time_ms", "speed_up"]
    own = frame[frame.role == "machine"]
    assert ops.time_ms["step"] == pytest.approx(own.time_ms.sum())
    assert layers.time_ms.sum() == pytest.approx(own.time_ms.sum())
