"""Figures of a whole step, and of its layers alone: what they are of, recomputed by hand."""

from __future__ import annotations

import csv
import html
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.columns import COLUMNS
from swatsim.errors import ResultsError
from swatsim.outputs import PLOTS
from swatsim.reports import everything_else, layer_bars, page_tables, tables
from swatsim.reports.over_steps import over_steps
from swatsim.reports.page import of_results
from swatsim.reports.remarks import remarks
from swatsim.reports.span import EARLIER, Span, span_of
from swatsim.reports.stage import STEP
from swatsim.reports.step_time import step_time
from swatsim.reports.sweep_page import of_sweep
from swatsim.results import Results
from swatsim.sweeps.store import Store
from swatsim.tracefile import Operation, OtherWork
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import OPERANDS_OF, OPS, OUTPUT_OF, Layer
from tests.command import swatsim as run
from tests.pictures import unpainted
from tests.sweeps.test_sweep import Here

# ---- rows by hand --------------------------------------------------------------------------------

#: What a column holds in a row by hand that says nothing of it.
EMPTY = {"int64": 0, "float64": 0.0, "string": ""}
SIZES = {"samples": 2, "C": 4, "K": 4, "H": 1, "W": 1, "R": 1, "S": 1, "P": 1, "Q": 1, "groups": 1}
#: Cycles of a step: the machine's, the baseline's.
LAYER = {"fprop": (10, 40), "dgrad": (20, 40), "wgrad": (30, 40)}
ELSE = {
    ("forward", "norm"): (50, 50),
    ("forward", "gelu"): (20, 20),
    ("optimizer", "sgd"): (10, 10),
    ("policy", "topk"): (40, None),
}


def by_hand(role: str, op: str, cycles: int, step: int = 0, **own: Any) -> dict[str, Any]:
    """Make a row of a machine with one multiplier, which says how long something takes."""
    row: dict[str, Any] = {c.name: None if c.optional else EMPTY[c.dtype] for c in COLUMNS}
    names = ("cycles", "cycles_compute", "lane_cycles", "cycles_compute_dense_operands")
    row |= {"trace": "t", "trace_id": "1", "step": step, "layer": "a", "op": op, "role": role}
    row |= {"machine": "m", "variant": "" if role == "machine" else "dense", "pes": 1, "lanes": 1}
    row |= {"clock_mhz": 1000, "dram_mb_per_s": 1000, "dtype": "fp32", **SIZES}
    row |= dict.fromkeys(names, cycles) | {"cycles_dense_operands": float(cycles)}
    if op == "other":
        kind = {"kind": "other", "lane_cycles_vector": cycles, "vector_elements": cycles}
        return row | kind | {"layer": "model", **own}
    densities = {f"density_{operand}": 0.5 for operand in OPERANDS_OF[op]}  # type: ignore[index]
    macs = {"macs_dense": 32, "macs_unpadded": 32, "macs_effectual": 8}
    bucket = {"lane_cycles_effectual": 8, "lane_cycles_idle": cycles - 8}
    return row | {
        "kind": "linear",
        "stride_h": 1,
        "stride_w": 1,
        **densities,
        **macs,
        **bucket,
        **own,
    }


def rows_of_step(step: int = 0) -> list[dict[str, Any]]:
    rows = []
    for place, role in enumerate(("machine", "baseline")):
        rows += [by_hand(role, op, cycles[place], step) for op, cycles in LAYER.items()]
        for (phase, function), cycles in ELSE.items():
            if cycles[place] is not None:
                named = {"phase": phase, "function": function, "dram_bytes_vector": 10}
                rows.append(by_hand(role, "other", cycles[place], step, **named))
    return rows


def results_by_hand(*steps: int, left_out: str = "") -> Results:
    rows = [row for step in steps or (0,) for row in rows_of_step(step)]
    return Results(rows, {"parameters": {"others_left_out": left_out}})


def test_a_step_is_its_layers_and_everything_else_by_hand() -> None:
    results = results_by_hand()
    ratios = page_tables.ratios(results)
    ours, theirs = 60 + 120, 120 + 80  # layers, and everything else; the policy's is ours alone
    assert ratios["speed_up"] == theirs / ours
    assert ratios["speed_up_layers"] == 120 / 60
    assert ratios["elsewhere"] == 80 / 200
    assert ratios["policy"] == 40 / 180
    assert ratios["of_ideal_layers"] == 3 * 8 / 60
    expected = "step 1.11x; its layers alone 2.00x; 40 % of the baseline's time is elsewhere"
    assert page_tables.of_step(ratios) == expected
    assert "takes 22 % of the step, and the baseline nothing" in page_tables.of_method(ratios)
    *_, layers, step = (tables.summarise(results).of_layers, tables.per_op(results)[-1])
    assert (layers["cycles"], step["cycles"], step["baseline"]["cycles"]) == (60, 180, 200)


def test_shares_are_written_where_they_have_room() -> None:
    """The policy's forty cycles become eight times as many: all else is narrow then."""
    rows = [
        {**row, "cycles": 8 * row["cycles"]} if row["phase"] == "policy" else row
        for row in rows_of_step()
    ]
    figure = step_time(Results(rows, {"parameters": {"others_left_out": ""}}))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    parts = [part.get_window_extent() for part in axes.patches]
    labels = [text.get_window_extent() for text in axes.texts]
    assert 1 < len(labels) < len(parts)
    for label in labels:
        x = (label.x0 + label.x1) / 2
        (part,) = [it for it in parts if it.contains(x, (label.y0 + label.y1) / 2)]
        assert part.x0 <= label.x0
        assert label.x1 <= part.x1


def test_a_number_that_its_bar_has_no_room_for_is_behind_it_in_black() -> None:
    rows = rows_of_step()
    for row in rows:
        if row["op"] == "wgrad" and row["role"] == "machine":
            row["cycles"] = 4000  # a hundredth of the baseline's speed
    figure = layer_bars.speed_up(Results(rows, {"parameters": {"others_left_out": ""}}))
    inks = {text.get_text(): text for axes in figure.axes for text in axes.texts}
    assert inks["0.01"].get_color() == "black"
    assert inks["0.01"].get_position()[0] > 0.01
    assert inks["4.00"].get_color() == "white"


def test_of_some_images_it_is_said_what_does_not_shrink_with_them() -> None:
    rows = rows_of_step()
    images = rows[0]["samples"]
    for batch, says in ((images, 0), (8 * images, 1)):
        some = remarks(Results(rows, {"parameters": {"batch_size": batch}}))
        assert sum("does not shrink with them" in sentence for sentence in some) == says


def test_a_step_without_its_layers_is_refused() -> None:
    rows = [row for row in results_by_hand().rows if row["op"] == "other"]
    with pytest.raises(ResultsError, match="hold no row of a layer: .* select whole steps"):
        tables.per_op(Results(rows, {}))


def test_everything_else_is_put_together_by_phase_and_function() -> None:
    rows = everything_else.by_function(results_by_hand(0, 1))
    assert [(row["phase"], row["function"]) for row in rows] == [*ELSE]
    norm, *_, topk = rows
    assert (norm["cycles"], norm["share"], norm["baseline_share"]) == (100, 50 / 180, 50 / 200)
    assert (topk["cycles"], topk["baseline_cycles"], topk["baseline_share"]) == (80, 0, 0)
    assert {row["bound_by"] for row in rows} == {"vector lanes"}, "20 bytes take 20 cycles at most"
    parts = everything_else.shown(rows, most=1)
    functions = [[row["function"] for row in part] for part in parts]
    assert functions == [["norm", "gelu", "all"], ["sgd", "all"], ["topk", "all"]], "one is named"
    (part,) = everything_else.shown(
        [{**norm, "function": f, "cycles": n} for f, n in zip("abc", (9, 2, 1), strict=True)],
        most=1,
    )
    assert [row["function"] for row in part] == ["a", "and 2 more", "all"]
    for part in parts:
        *some, whole = part
        assert whole["cycles"] == sum(row["cycles"] for row in some)
    goes = everything_else.where_time_goes(results_by_hand(0, 1))
    assert [row["part"] for row in goes] == [*OPS, "forward", "optimizer", "policy", "step"]
    assert sum(row["share"] for row in goes[:-1]) == pytest.approx(1)
    assert goes[-1]["cycles"] == 180, "a mean step's"
    assert goes[-1]["baseline_time_ms"] == 200 / 1e6


def test_what_dram_takes_longer_for_is_bound_by_it() -> None:
    results = results_by_hand()
    for row in results.rows:
        row["dram_bytes_vector"] *= 3  # a byte a cycle: 30 cycles
    found = {row["function"]: row["bound_by"] for row in everything_else.by_function(results)}
    assert found == {"norm": "vector lanes", "gelu": "DRAM", "sgd": "DRAM", "topk": "vector lanes"}


def test_a_figure_says_what_it_is_of() -> None:
    assert not span_of(results_by_hand()).left_out
    rows = [row for row in rows_of_step() if row["op"] != "other"]
    for parameters, why in (({"others_left_out": "asked"}, "asked"), ({}, EARLIER)):
        span = span_of(Results(rows, {"parameters": parameters}))
        assert (span.left_out, span.subject) == (why, "a step's layers")
        assert Span.from_row(span.columns) == span
    nothing = Results(rows, {"parameters": {"others_left_out": ""}})
    assert span_of(nothing).subject == "a step", "it does nothing else"
    assert page_tables.of_step(page_tables.ratios(nothing)) == "2.00x"


def test_outputs_that_nobody_wants_are_averaged_with_all() -> None:
    results = results_by_hand(0, 1)
    for row in results.rows:
        if (row["op"], row["step"]) == ("wgrad", 0):
            row["density_output"] = 0.1
    by_op = {row["op"]: row["density_output"] for row in tables.per_layer(results)}
    assert by_op["wgrad"] == pytest.approx(0.55)
    assert math.isnan(by_op["fprop"])
    assert page_tables.of_outputs(results).endswith(
        "wgrad 55 % (some are left out in 1 of 1 layers)"
    )
    assert not page_tables.of_outputs(results_by_hand())


def test_a_run_of_whole_steps_by_hand() -> None:
    results = results_by_hand(0, 1, 2)
    found = swatsim.estimate(results, 3)
    assert (found.ours["cycles"].value, found.baseline["cycles"].value) == (3 * 180, 3 * 200)
    assert found.ratios["speed_up"].value == 200 / 180
    assert found.ratios["speed_up_layers"].value == 2
    assert found.ratios["elsewhere"].value == 0.4
    assert found.others_left_out == ""
    alone = swatsim.estimate(results.layers_only(), 3)
    assert alone.ours["cycles"].value == 3 * 60
    assert alone.others_left_out
    assert "speed_up_layers" not in alone.ratios


# ---- a trace from Recorder, to the end -----------------------------------------------------------

HEADS, ROWS, DEPTH = 3, 8, 4
LAYERS = (
    Layer(name="qkv", kind="linear", C=16, K=48),
    Layer(name="scores", kind="matmul", C=HEADS * DEPTH, K=HEADS * ROWS, H=ROWS, groups=HEADS),
    Layer(name="values", kind="matmul", C=HEADS * ROWS, K=HEADS * DEPTH, H=ROWS, groups=HEADS),
)


def noted(module: str, phase: Any, *functions: str, elements: int) -> OtherWork:
    size = 4 * elements
    made = tuple(
        Operation(function=name, elements=elements, read=size, written=size) for name in functions
    )
    return OtherWork(module=module, phase=phase, operations=made, read=size, written=size)


OTHERS = (
    noted("norm", "forward", "native_layer_norm", elements=3000),
    noted("mlp", "backward", "mul", "add", elements=2000),
    noted("", "optimizer", "_foreach_addcdiv_", elements=1500),
    noted("qkv", "policy", "topk", elements=1000),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give a trace with everything else noted, one of the same masks without, and their results."""
    folder = tmp_path_factory.mktemp("whole")
    for name, others in (("whole", OTHERS), ("layers", None)):
        rng = np.random.default_rng(16)
        with Recorder(folder / name, batch_size=2) as recorder:
            for layer in LAYERS:
                recorder.declare(layer)
            for number in (0, 5):
                with recorder.step(number) as step:
                    for layer in LAYERS:
                        for op in OPS:
                            for operand in OPERANDS_OF[op]:
                                mask = rng.random(layer.shape_of(operand, 2)) < 0.4
                                step.operand(layer.name, op, operand, mask)
                    wanted = rng.random(LAYERS[0].shape_of(OUTPUT_OF["wgrad"], 2)) < 0.1
                    step.output("qkv", "wgrad", wanted)
                    step.others = others
    found = {name: folder / name for name in ("whole", "layers")}
    for name, path in [*found.items()]:
        found[f"{name} results"] = folder / f"{name}-results"
        swatsim.simulate(path, "tensordash").save(found[f"{name} results"])
    return found


def said(*arguments: object) -> str:
    code, out, errors = run(*arguments)
    assert code == 0, errors
    return " ".join(out.split())


def cycles_of(folder: Path, role: str, keep: Callable[[Mapping[str, str]], bool]) -> int:
    """Add up a column of results.csv."""
    with (folder / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == role and keep(row)]
    return sum(int(row["cycles"]) for row in rows)


@pytest.fixture(scope="module")
def words(folders: dict[str, Path]) -> str:
    """Give the headline, from results.csv alone."""
    folder = folders["whole results"]
    step = [cycles_of(folder, role, lambda _: True) for role in ("baseline", "machine")]
    layers = [
        cycles_of(folder, role, lambda row: row["op"] != "other")
        for role in ("baseline", "machine")
    ]
    elsewhere = 100 * (step[0] - layers[0]) / step[0]
    return (
        f"step {step[0] / step[1]:.2f}x; its layers alone {layers[0] / layers[1]:.2f}x; "
        f"{elsewhere:.0f} % of the baseline's time is elsewhere"
    )


def test_every_headline_is_recomputed_from_results_csv(
    folders: dict[str, Path], words: str, tmp_path: Path
) -> None:
    out = said("simulate", folders["whole"], "-m", "tensordash", "--all")
    assert re.search(
        rf"A step \(mean of 2 .*?\) takes .*; of the baseline .*: {words}\. Bound", out
    )
    assert "Of the ideal, layers alone:" in out
    assert out.count("policy: what the method itself costs all") == 1
    assert "mul+add" in out
    assert "3x(8x4 @ 4x8)" in out
    assert "Of their outputs, those that somebody wants: wgrad " in out
    page = of_results(swatsim.load_results(folders["whole results"]))
    assert page.notes[0].startswith(f"Speed-up over tensordash dense: {words}; ")
    tiles = dict(page.tiles)
    shown = [
        tiles["speed-up of the step over tensordash dense"],
        next(
            value for label, value in tiles.items() if label.startswith("the same, of its layers")
        ),
    ]
    assert words.startswith(f"step {shown[0]}; its layers alone {shown[1]}; ")
    title = " ".join(
        step_time(swatsim.load_results(folders["whole results"]))
        .axes[0]
        .get_title(loc="left")
        .split()
    )
    assert f"Speed-up: {words}" in title


def test_a_comparison_shows_the_step_and_its_layers(folders: dict[str, Path], words: str) -> None:
    step, layers = re.findall(r"([\d.]+)x", words)
    out = said("compare", folders["whole results"], "--layers")
    assert re.search(rf"tensordash on whole [\d.]+ {step}x {layers}x ", out)
    assert re.search(rf"all layers everything else .* all layers whole step [\d.]+ {step}x ", out)


def test_a_sweep_says_both(folders: dict[str, Path], words: str, tmp_path: Path) -> None:
    machines = [{"preset": "tensordash", "grid": {"rows": [4]}}]
    spec = {"traces": [folders["whole"]], "machines": machines}
    found = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    (row,) = found.rows
    best = Store(tmp_path / "out").load(row["point"])
    ratios = page_tables.ratios(best)
    assert {name: row[name] for name in ratios} == ratios
    assert row["others_left_out"] == ""
    page = of_sweep(found.rows, "out", best)
    assert f"speed-up over its own baseline: {page_tables.of_step(ratios)}" in page.verdict
    columns = page.sections[0].tables[1].columns
    assert {"speed_up", "speed_up_layers", "elsewhere", "of_ideal_layers"} <= set(columns)


def test_layers_alone_say_so_and_why(folders: dict[str, Path]) -> None:
    out = said("simulate", folders["layers"], "-m", "tensordash")
    assert re.search(r"A step's layers \(.*?\) take .*: \d\.\d\dx\. Bound", out)
    assert "Figures are of a step's layers alone; " in out
    assert "is in none of them: the trace does not note it." in out
    out = said("simulate", folders["whole"], "-m", "tensordash", "--layers-only")
    assert "is in none of them: layers only were asked for." in out
    page = of_results(swatsim.load_results(folders["layers results"]))
    assert "x, of a step's layers alone; " in page.notes[0]
    assert "is in none of them: the trace does not note it." in " ".join(page.summary)
    assert "speed-up of the layers over tensordash dense" in dict(page.tiles)
    assert page.sections[0].title == "Layers and ops"
    out = said("estimate", folders["layers results"], "--run-steps", 6)
    assert "of 2 images each, layers alone" in out
    out = said("estimate", folders["layers"], "--images", "-m", "tensordash")
    assert "everything else that a step does is not in them" in out


def test_layers_and_whole_steps_are_compared_in_layers_with_a_warning(
    folders: dict[str, Path],
) -> None:
    whole = swatsim.load_results(folders["whole results"])
    layers = swatsim.simulate(folders["whole"], "tensordash", layers_only=True)
    found = swatsim.compare(whole, layers, labels=["A", "B"])
    assert [row["op"] for row in found.layers()[-2:]] == ["layers", "layers"]
    assert found.rows[0]["speed_up"] == found.rows[1]["speed_up"] == found.rows[1]["own_speed_up"]
    (warning,) = found.warnings
    assert warning.startswith(
        "some are of a step's layers alone, layers only were asked for (B); the others of all"
    )
    both = swatsim.compare(whole, whole)
    assert not both.warnings
    assert [row["op"] for row in both.layers()[-6::2]] == ["layers", "other", "step"]
    assert [row["op"] for row in swatsim.compare(layers).layers()[-2:]] == ["wgrad", "layers"]


def test_a_page_has_everything_else_and_its_plots_say_what_they_are_of(
    folders: dict[str, Path],
) -> None:
    with unpainted():
        page, *parts = swatsim.report(folders["whole results"])
    names = {path.name for path in parts}
    assert {"step_time.csv", "step_time.png", "everything_else.csv"} <= names
    text = html.unescape(page.read_text())
    assert "policy is what the method itself does" in text
    with (page.parent / "everything_else.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["function"] for row in rows] == [work.name for work in OTHERS]
    whole = cycles_of(folders["whole results"], "machine", lambda row: row["op"] == "other")
    assert sum(int(row["cycles"]) for row in rows) == whole
    with (page.parent / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert {row["layer"] for row in layers} == {layer.name for layer in LAYERS}
    assert {row["kind"] for row in layers} == {"linear", "matmul"}
    with (page.parent / "reductions.csv").open() as file:
        reduced = {row["what"]: row for row in csv.DictReader(file)}
    right = 4 * 2 * sum(layer.weights for layer in LAYERS if layer.multiplies_activations)
    assert float(reduced["right activations in dgrad, values"]["dense"]) == right
    assert float(reduced["weights in dgrad, values"]["dense"]) == 4 * LAYERS[0].weights


def test_bars_of_layers_say_so_and_those_of_cycles_end_with_the_step(
    folders: dict[str, Path],
) -> None:
    results = tables.summarise(swatsim.load_results(folders["whole results"]))
    axes, layers = layer_bars.speed_up(results).axes
    assert "all but the first bar of layers alone" in axes.get_title(loc="left")
    assert [axes.get_yticklabels()[0].get_text(), layers.get_yticks().tolist()] == [STEP, []]
    step = results.ops[-1]
    assert f"step, everything else in it: {step['speed_up']:.2f}x" in [
        line.get_label() for line in axes.get_lines()
    ]
    for plot, ratio in (
        (layer_bars.pe_cycles, "speed_up"),
        (layer_bars.energy, "energy_efficiency"),
    ):
        axes = plot(results).axes[0]
        assert axes.get_yticklabels()[0].get_text() == STEP
        boxes = [box for part in axes.collections for box in part.get_paths()]
        first = min(box.vertices[0, 1] for box in boxes)
        end = max(box.vertices[:, 0].max() for box in boxes if box.vertices[0, 1] == first)
        assert end == pytest.approx(1 / step[ratio])
    above = over_steps(results).axes[0]
    line = next(line for line in above.get_lines() if line.get_label() == "whole step")
    assert list(line.get_ydata()) == [
        row["speed_up"] for row in tables.by_step(results) if row["op"] == "step"
    ]
    assert all(plot.there(results.rows) for plot in PLOTS.values())


def test_a_run_in_phases_shows_where_its_policy_changes(folders: dict[str, Path]) -> None:
    results = swatsim.simulate(folders["whole"], "tensordash")
    assert not over_steps(results).axes[0].texts
    phases = [{"from": 0, "policy": {"name": "dense"}}, {"from": 1, "policy": {"name": "rigl"}}]
    results.provenance["parameters"]["policy"] = {"name": "phased", "phases": phases}
    above, below = over_steps(results).axes
    assert [text.get_text() for text in above.texts] == ["rigl from 1 on"]
    for axes in (above, below):
        assert [0.5, 0.5] in [list(line.get_xdata()) for line in axes.get_lines()]


def test_info_says_of_what_figures_will_be(folders: dict[str, Path]) -> None:
    out = said("info", folders["whole"], "--all")
    assert "others in 2 of 2 steps: forward 2 operations" in out
    assert re.search(r"scores matmul .*? 3 - ", out), "it has no weights"
    assert "others not known: figures of this trace are of layers alone" in said(
        "info", folders["layers"]
    )
