"""What is written can be read, whatever is asked for; what is read means what was recorded."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from swatsim.errors import RecordingError, SwatsimError, TraceError, WorkloadError
from swatsim.tracefile import Manifest, Trace, TraceWriter, open_trace
from swatsim.tracefile.format_1 import layers_digest
from swatsim.tracefile.plain import canonical, digest
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Layer
from tests.test_house import ROOT
from tests.traces import as_format_1, make_trace

OLD = ROOT / "tests/data/format_1/resnet8-fashion-mnist-swat-u-80"
FC = Layer(name="fc", kind="linear", C=5, K=3)
ACT = np.eye(2, 5, dtype=bool)


def read_all(path: Path) -> Trace:
    trace = open_trace(path)
    for number in trace.steps:
        list(trace.step(number).check())
    return trace


def edited(path: Path, change: dict[str, Any], sealed: bool) -> None:
    """Change a manifest, and if `sealed` its digest with it."""
    found = {**json.loads((path / "manifest.json").read_text()), **change}
    del found["digest"]
    if sealed:
        found["digest"] = digest(canonical(found))
    (path / "manifest.json").write_text(json.dumps(found))


# ---- what is read ------------------------------------------------------------------------------


def unpadded(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Change the padding of a strided layer so that its output has the size that it had."""
    changed = [dict(layer) for layer in layers]
    strided = next(layer for layer in changed if layer["stride"] == [2, 2] and layer["R"] == 3)
    strided["padding"] = [[0, 1], [1, 1]]
    return changed


def test_a_bit_of_a_padding_is_noticed_in_the_manifest_and_in_each_step(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "t")
    layers = unpadded(json.loads((OLD / "manifest.json").read_text())["layers"])
    text = (OLD / "manifest.json").read_text()
    at = text.index('"padding"', text.index('"stages.1.conv1"'))
    at = text.index("1", at)
    (tmp_path / "t/manifest.json").write_text(text[:at] + "0" + text[at + 1 :])
    with pytest.raises(TraceError, match="manifest.json does not match its digest"):
        open_trace(tmp_path / "t")
    for sealed in (True, False):
        (tmp_path / "t/manifest.json").write_text(text)
        edited(tmp_path / "t", {"layers": layers}, sealed)
        with pytest.raises(TraceError, match="step 0 .*other layers, .*does not fit its layers"):
            read_all(tmp_path / "t")


@pytest.mark.parametrize("change", [{"batch_size": 9}, {"samples": [0, 2]}])
def test_another_batch_or_other_samples_are_noticed_in_each_step_of_format_1(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    trace = as_format_1(make_trace(tmp_path / "t", steps=(0,)).path)
    edited(trace.path, change, sealed=True)
    with pytest.raises(TraceError, match="another batch size or other samples"):
        read_all(trace.path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, bytes]:
    trace = make_trace(tmp_path_factory.mktemp("flip") / "t", steps=(0,))
    return trace, (trace.path / "manifest.json").read_bytes()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True))
def test_every_flipped_bit_of_a_manifest_is_noticed(
    whole: tuple[Trace, bytes], place: float
) -> None:
    trace, original = whole
    content = bytearray(original)
    bit = int(place * 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    (trace.path / "manifest.json").write_bytes(content)
    try:
        found = open_trace(trace.path).manifest
    except SwatsimError as error:
        assert "\n" not in str(error)
        return
    assert found == trace.manifest  # a space that became another


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": "8"},
        {"batch_size": 8.0},
        {"samples": [0, True]},
        {"samples": [0, 1.0]},
        {"schema_version": True},
        {"schema_version": 1.0},
        {"layers": [{"name": "x", "C": "3", "K": 1}]},
        {"layers": [{"name": "x", "C": 3, "K": True}]},
        {"layers": [{"name": "x", "C": 3, "K": 1, "stride": [1.0, 1]}]},
        {"layers": [{"name": 5, "C": 3, "K": 1}]},
        {"policy": [["name", "x"]]},
        {"provenance": None},
        {"digest": 5},
    ],
)
def test_nothing_is_taken_for_what_it_nearly_is(tmp_path: Path, change: dict[str, Any]) -> None:
    trace = make_trace(tmp_path / "t", steps=(0,))
    text = json.dumps({**json.loads((trace.path / "manifest.json").read_text()), **change})
    (trace.path / "manifest.json").write_text(text)
    with pytest.raises((TraceError, WorkloadError), match="is not allowed|schema version"):
        open_trace(trace.path)


def test_what_is_said_twice_is_refused(tmp_path: Path) -> None:
    path = make_trace(tmp_path / "t", steps=(0,)).path / "manifest.json"
    path.write_text(path.read_text().replace('"C": 3,', '"C": 3,\n"C": 3,'))
    with pytest.raises(TraceError, match="it says 'C' twice"):
        open_trace(path.parent)


def without_digests(path: Path) -> None:
    """Make of a trace what an earlier swatsim would have written."""
    edited(path, {}, sealed=False)
    for step in (path / "steps").iterdir():
        with safe_open(step, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = {key: text for key, text in file.metadata().items() if "digest" not in key}
        step.write_bytes(save(tensors, metadata=metadata))


def test_a_trace_of_format_1_without_digests_is_read(tmp_path: Path) -> None:
    trace = as_format_1(make_trace(tmp_path / "t", steps=(0,)).path)
    without_digests(trace.path)
    old = read_all(trace.path)
    assert (old.manifest.digest, old.step(0).layers_digest, old.id) == (None, None, trace.id)


def test_a_trace_of_format_1_is_not_continued(tmp_path: Path) -> None:
    trace = as_format_1(make_trace(tmp_path / "t", steps=(0,)).path)
    before = {file: file.read_bytes() for file in files(trace.path)}
    with pytest.raises(TraceError, match="is of format 1, which is read, .*choose another path"):
        Recorder(trace.path, batch_size=8, samples=range(2), append=True)
    assert {file: file.read_bytes() for file in files(trace.path)} == before


def test_layers_that_come_later_leave_earlier_steps_as_they_are(tmp_path: Path) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        for number, name in enumerate("abc"):
            recorder.declare(Layer(name=name, kind="linear", C=5, K=3))
            with recorder.step(number) as step:
                for layer in "abc"[: number + 1]:
                    step.operand(layer, "fprop", "act", ACT)
    assert [layer.name for layer in read_all(tmp_path / "t").layers] == list("abc")


def test_the_digest_of_format_1_is_what_the_format_s_page_says() -> None:
    layer = Layer(name="x", C=3, K=8, H=5, W=5, R=3, S=3, padding=((0, 1), (1, 1)))
    manifest = Manifest(schema_version=1, layers=(FC, layer), batch_size=4, samples=(0, 2))
    text = '[4,[0,2],[{"C":3,"H":5,"K":8,"R":3,"S":3,"W":5,"name":"x","padding":[[0,1],[1,1]]}]]'
    assert layers_digest({"x"}, manifest) == digest(text)


def test_a_manifest_that_has_no_end_is_not_waited_for(tmp_path: Path) -> None:
    manifest = make_trace(tmp_path / "t", steps=(0,)).path / "manifest.json"
    for target in ("/proc/kmsg", "/proc/self/pagemap", "/dev/zero", "/proc/self/fd/0", "."):
        manifest.unlink()
        manifest.symlink_to(target)
        with pytest.raises(TraceError, match="manifest.json"):
            open_trace(manifest.parent)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(TraceError, match="manifest.json"):
        open_trace(manifest.parent)


def test_a_step_that_results_could_not_number_is_refused(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t", steps=(0,))
    step = trace.path / "steps/0.safetensors"
    shutil.copy(step, step.with_name(f"{2**63}.safetensors"))
    with pytest.raises(TraceError, match="step 9223372036854775808 is not allowed: .*below 2"):
        open_trace(trace.path)


# ---- what is written ---------------------------------------------------------------------------


def kind(value: object) -> str:
    """Name a value that may have no text."""
    return type(value).__name__


def files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    "size", [0, -1, 1.5, float("nan"), True, "3", 2**31 + 1, 10**5000], ids=kind
)
def test_a_batch_that_can_not_be_is_refused_before_anything_is_on_disk(
    tmp_path: Path, size: Any
) -> None:
    recorder = Recorder(tmp_path / "t", batch_size=4, samples=[0, 2])
    recorder.declare(FC)
    with pytest.raises(RecordingError, match="batch_size=.* is not allowed"):
        with recorder.step(0, batch_size=size):
            raise AssertionError("it began")
    record = recorder.begin(0)
    record.operand("fc", "fprop", "act", ACT)
    with pytest.raises(RecordingError, match="batch_size=.* is not allowed"):
        recorder.end(record, size)
    recorder.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "number", [2**63, 10**5000, np.bool_(True), np.float64(1.0), None], ids=kind
)
def test_a_number_that_can_not_be_is_refused(tmp_path: Path, number: Any) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder, TraceWriter(tmp_path / "w") as writer:
        with pytest.raises(RecordingError, match="is not allowed: steps are counted from 0"):
            recorder.begin(number)
        with pytest.raises(TraceError, match="is not allowed: steps are counted from 0"):
            writer.step(number)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    policy = {"s": np.float32(0.5), "n": np.int16(3), "on": np.bool_(True), 4: (np.str_("x"),)}
    recorder = Recorder(
        tmp_path / "t", batch_size=np.int64(4), samples=np.array([0, 2]), policy=policy
    )
    recorder.declare(Layer(name="fc", kind="linear", C=np.int64(5), K=np.uint8(3)))
    with recorder.step(np.int32(7), batch_size=np.uint8(3)) as step:
        step.operand("fc", ("fprop", "wgrad"), "act", ACT)
        step.notes["loss"] = np.float64("nan")
    recorder.close()
    trace = read_all(tmp_path / "t")
    assert trace.manifest.policy == {"s": 0.5, "n": 3, "on": True, "4": ["x"]}
    assert (trace.manifest.samples, trace.manifest.layers) == ((0, 2), (FC,))
    assert trace.step(np.int64(7)).batch_size == 3
    assert str(trace.step(7).notes) == "{'loss': nan}"


def test_text_that_is_no_unicode_comes_back(tmp_path: Path) -> None:
    text = "caf\udce9 \U0001f600 \\ud83d"
    with Recorder(tmp_path / "t", batch_size=2, policy={text: text}) as recorder:
        recorder.declare(FC)
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "act", ACT)
            step.notes[text] = text
    trace = read_all(tmp_path / "t")
    assert trace.manifest.policy == trace.step(0).notes == {text: text}


def nested(depth: int) -> Any:
    return {"x": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    "value", [object(), 1j, {1, 2}, b"x", 10**5000, nested(60), np.ones(2)], ids=kind
)
@pytest.mark.parametrize("where", ["policy", "parameters", "notes"])
def test_what_json_can_not_hold_is_refused(tmp_path: Path, where: str, value: Any) -> None:
    stated = {where: {"x": value}} if where != "notes" else {}
    with pytest.raises(RecordingError, match=f"{where}=.* is not allowed: must be a dict of JSON"):
        with Recorder(tmp_path / "t", batch_size=2, **stated) as recorder:
            recorder.declare(FC)
            with recorder.step(0) as step:
                step.operand("fc", "fprop", "act", ACT)
                step.notes["x"] = value
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "layer",
    [
        FC.model_copy(update={"C": -5}),
        FC.model_copy(update={"name": f"{'x' * 1000}@2"}),
        FC.model_copy(update={"name": "a\nb"}),
        "fc",
        None,
    ],
)
def test_a_layer_that_no_reader_would_take_is_refused(tmp_path: Path, layer: Any) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        with pytest.raises((RecordingError, WorkloadError), match="is not allowed"):
            recorder.declare(layer)


@pytest.mark.parametrize("op", [(), ("fprop", "fprop"), 5, None, ("fprop", "dgrad"), [["fprop"]]])
def test_ops_that_no_reader_would_take_are_refused(tmp_path: Path, op: Any) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(FC)
        with (
            pytest.raises(RecordingError, match="does not read|each once"),
            recorder.step(0) as step,
        ):
            step.operand("fc", op, "act", ACT)
    assert files(tmp_path) == []


def test_a_mask_that_is_too_large_is_refused_before_it_is_packed(tmp_path: Path) -> None:
    wide = Layer(name="wide", kind="linear", C=2**20, K=1)
    with Recorder(tmp_path / "t", batch_size=2**12) as recorder:
        recorder.declare(wide)
        with pytest.raises(RecordingError, match="act mask of 4096 samples would have 4294967296"):
            with recorder.step(0) as step:
                step.operand("wide", "fprop", "act", np.broadcast_to(True, (2**12, 2**20)))


def test_more_samples_than_are_read_are_refused_without_listing_them(tmp_path: Path) -> None:
    for batch, samples in (
        (4, [0, 4]),
        (4, [0, 0]),
        (4, [-1]),
        (2**31, range(2**31)),
        (4, "01"),
        (4, []),
        (4, 5),
    ):
        with pytest.raises((RecordingError, TraceError), match="samples.* is not allowed"):
            Recorder(tmp_path / "t", batch_size=batch, samples=samples)  # type: ignore[arg-type]


SCALARS = st.one_of(
    st.builds(lambda: 10**4000),  # what can't be printed at all is tried above
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([2**31, 2**63, np.int64(3), np.float32(0.8), np.uint8(2), 1.5]),
    st.floats(),
    st.text(st.characters(), max_size=3),
    st.sampled_from(["fc", "act", "fprop", "\ud800", b"x", object(), 1j]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | SCALARS, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_recorded_without_complaint_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of eight arguments seven are right, and one is anything."""

    def mostly(right: Any) -> Any:
        return data.draw(ANYTHING) if data.draw(st.integers(0, 7)) == 0 else right

    path = tmp_path_factory.mktemp("any") / "t"
    with contextlib.suppress(SwatsimError):
        about = {name: mostly({"name": 1}) for name in ("policy", "parameters")}
        batch = mostly(4)
        with Recorder(path, batch_size=batch, samples=mostly([0, 1]), **about) as recorder:
            recorder.declare(FC)
            for number in (0, mostly(1)):
                with recorder.step(number, batch_size=mostly(None)) as step:
                    shape = (recorder.kept(step.batch_size), 5)
                    step.operand(mostly("fc"), mostly("fprop"), mostly("act"), np.ones(shape, bool))
                    step.operand(
                        "fc", mostly(("wgrad",)), "act", mostly(np.eye(*shape, dtype=bool))
                    )
                    step.notes["any"] = mostly(0.5)
    if (path / "manifest.json").exists():
        read_all(path)
    assert not [file for file in files(path) if file.suffix == ".tmp"]


def test_digests_are_added_without_changing_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = as_format_1(make_trace(tmp_path / "t", steps=(0, 7)).path)
    before = {step: trace.step(step).header for step in trace.steps}
    without_digests(trace.path)
    add_digests = runpy.run_path(str(ROOT / "traces/add_digests.py"))["add_digests"]
    for said in ("digests added to manifest.json and 2 steps", "has its digests already"):
        add_digests(open_trace(trace.path))
        assert said in capsys.readouterr().out
    found = read_all(trace.path)
    assert {step: found.step(step).header for step in found.steps} == before
    assert found.id == trace.id
    assert "by swatsim" in found.manifest.provenance["digests_added"]
    assert found.step(7).layers_digest == trace.step(7).layers_digest


def test_a_trace_of_format_1_can_have_its_digests() -> None:
    trace = read_all(OLD)
    assert trace.manifest.digest
    assert all(trace.step(number).layers_digest for number in trace.steps)
