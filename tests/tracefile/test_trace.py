"""A trace comes back bit for bit, and nothing that is damaged or foreign is believed."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from swatsim.errors import RecordingError, TraceError, WorkloadError
from swatsim.tracefile import Step, Trace, TraceWriter, open_trace
from swatsim.tracefile.header import StepHeader, dump_header
from swatsim.tracefile.schema import Manifest, MaskRecord, StepLayer
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Layer
from tests.traces import LAYERS, as_format_1, make_trace

FC = Layer(name="fc", kind="linear", C=5, K=3)
OWN = StepLayer(layer=FC, batch=2, samples=1)


def step_file(trace: Path, number: int = 0) -> Path:
    return trace / "steps" / f"{number}.safetensors"


def one_mask(path: Path, **masks: np.ndarray) -> Path:
    """Record fc's fprop with the given masks."""
    with Recorder(path, batch_size=2) as recorder:
        recorder.declare(FC)
        with recorder.step(0) as step:
            for operand, mask in masks.items():
                step.operand("fc", "fprop", operand, mask)
    return path


def test_masks_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    weight, act = rng.random((3, 5)) < 0.5, rng.random((2, 5)) < 0.5
    step = open_trace(one_mask(tmp_path / "t", weight=weight, act=act)).step(0)
    np.testing.assert_array_equal(step.mask("fc", "fprop", "weight"), weight)
    np.testing.assert_array_equal(step.mask("fc", "fprop", "act"), act)
    assert step.record("fc", "fprop", "act").ones == act.sum()
    assert not step.mask("fc", "fprop", "act").flags.writeable
    assert [(layer.name, op) for layer, op in step.ops()] == [("fc", "fprop")]


def test_element_i_is_bit_i_of_the_stored_bytes(tmp_path: Path) -> None:
    weight = np.zeros((3, 5), bool)
    weight.flat[[0, 3, 9, 14]] = True
    path = one_mask(tmp_path / "t", weight=weight, act=np.ones((2, 5), bool))
    with safe_open(step_file(path), framework="numpy") as file:
        frame = file.get_tensor("fc/fprop/weight").tobytes()
    assert zstandard.decompress(frame) == bytes([0b0000_1001, 0b0100_0010])


def test_ones_take_no_bytes_and_equal_masks_are_stored_once(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    records = {record.key: record for record in trace.step(0).records}
    grad = records["fc", "wgrad", "grad_out"]
    assert (grad.codec, grad.tensor, grad.density) == ("ones", None, 1.0)
    shared = records["block.conv", "dgrad", "weight"].tensor
    assert shared == records["block.conv", "fprop", "weight"].tensor == "block.conv/fprop/weight"
    with safe_open(step_file(trace.path), framework="numpy") as file:
        assert "block.conv/dgrad/weight" not in file.keys()  # noqa: SIM118


def test_notes_come_back_and_a_step_without_has_none(tmp_path: Path) -> None:
    notes = {"loss": 0.5, "lr": [1e-3, None], "where": "n\u00e4chste \U0001f600"}
    for name, noted in {"a": notes, "b": {}}.items():
        with Recorder(tmp_path / name, batch_size=2) as recorder:
            recorder.declare(FC)
            with recorder.step(0) as step:
                step.operand("fc", "fprop", "act", np.eye(2, 5, dtype=bool))
                step.notes.update(noted)
    first, second = open_trace(tmp_path / "a"), open_trace(tmp_path / "b")
    assert first.step(0).notes == notes
    assert second.step(0).notes == {}
    assert first.id == second.id  # it is of the masks


def test_a_layer_s_name_may_be_anything_printable(tmp_path: Path) -> None:
    name = 'a"\\\u00e4 \U0001f600/../__metadata__'
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(Layer(name=name, kind="linear", C=5, K=3))
        with recorder.step(0) as step:
            step.operand(name, "fprop", "act", np.eye(2, 5, dtype=bool))
    assert list(open_trace(tmp_path / "t").step(0).check())


def tensor_bytes(content: bytes) -> int:
    """Count what lies behind a safetensors header."""
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def test_the_file_is_what_safetensors_makes_of_it(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    with safe_open(step_file(trace.path), framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        theirs = save(tensors, metadata=file.metadata())
    ours = step_file(trace.path).read_bytes()
    assert tensor_bytes(ours) == tensor_bytes(theirs)  # in another order
    assert int.from_bytes(ours[:8], "little") % 8 == 0
    step_file(trace.path).write_bytes(theirs)
    assert open_trace(trace.path).id == trace.id


def test_the_id_tells_traces_apart_by_their_masks(tmp_path: Path) -> None:
    masks = {"weight": np.ones((3, 5), bool), "act": np.eye(2, 5, dtype=bool)}
    first = open_trace(one_mask(tmp_path / "a", **masks))
    (tmp_path / "copy").symlink_to(tmp_path / "a")
    assert open_trace(tmp_path / "copy").id == first.id
    step = step_file(tmp_path / "a")
    other = one_mask(tmp_path / "b", **masks | {"act": np.eye(2, 5, k=1, dtype=bool)})
    step.write_bytes(step_file(other).read_bytes())
    assert open_trace(tmp_path / "a").id != first.id


def test_the_id_of_a_recording_of_format_1_is_what_it_was(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    assert as_format_1(trace.path).id == "8ea3847dcea67756" != trace.id


def test_steps_are_sorted_as_numbers_and_leftovers_are_not_steps(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t", steps=(10, 9, 100))
    for name in (".11.safetensors.77.tmp", "x.safetensors", "007.safetensors", "8.txt"):
        (trace.path / "steps" / name).write_bytes(b"half a step")
    assert open_trace(trace.path).steps == (9, 10, 100)
    with pytest.raises(TraceError, match="no step 11: recorded are 9, 10, 100"):
        trace.step(11)


def test_a_trace_is_never_written_over(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    before = step_file(trace.path).read_bytes()
    with pytest.raises(TraceError, match="not written over; .* go on with it by append=True"):
        Recorder(trace.path, batch_size=2)
    with TraceWriter(tmp_path / "new") as writer:
        writer.write_manifest(Manifest(layers=(FC,), batch_size=2, samples=(0,)))
        step = writer.step(0)
        step.add([("fc", "fprop", "act")], (1, 5), np.array([0b1_1111], np.uint8))
        assert step.publish(2, [OWN]) == step_file(tmp_path / "new")
        with pytest.raises(TraceError, match="a step is never written over"):
            writer.step(0)
    assert list(open_trace(tmp_path / "new").step(0).check())
    assert step_file(trace.path).read_bytes() == before


def test_the_recorder_refuses_what_does_not_fit(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "t", batch_size=4, samples=[0, 2])
    recorder.declare(FC)
    recorder.declare(FC)
    with pytest.raises(RecordingError, match="masks of another shape in a step that has not end"):
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "act", np.ones((2, 5), bool))
            recorder.declare(FC.model_copy(update={"C": 6}))
    with pytest.raises(RecordingError, match="holds no masks"), recorder.step(0):
        pass
    with pytest.raises(RecordingError, match="'fx' is not declared"), recorder.step(0) as step:
        step.operand("fx", "fprop", "act", np.ones((2, 5), bool))
    with pytest.raises(WorkloadError, match=r"is \(4, 5\), expected \(2, 5\)"):
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "act", np.ones((4, 5), bool))
    with pytest.raises(RecordingError, match="comes twice in step 0"), recorder.step(0) as step:
        for _ in range(2):
            step.operand("fc", "fprop", "act", np.ones((2, 5), bool))
    with pytest.raises(RecordingError, match="'fprop' does not read 'grad_out'"):
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "grad_out", np.ones((2, 3), bool))
    with pytest.raises(RecordingError, match="step 1 can't begin: step 0 has not ended"):
        with recorder.step(0), recorder.step(1):
            pass
    with pytest.raises(RecordingError, match="must be a dict of JSON"), recorder.step(0) as step:
        step.operand("fc", "fprop", "act", np.ones((2, 5), bool))
        step.notes["loss"] = object()
    recorder.close()
    assert [path for path in (tmp_path / "t").rglob("*") if path.is_file()] == []


# ---- damage ------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    trace = open_trace(path)
    for number in trace.steps:
        list(trace.step(number).check())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, bytes, list[np.ndarray]]:
    """Make one trace for many flips: itself, its step's bytes and its masks."""
    trace = make_trace(tmp_path_factory.mktemp("flip") / "t", steps=(0,))
    masks = [trace.step(0).mask(*record.key) for record in trace.step(0).records]
    return trace, step_file(trace.path).read_bytes(), masks


@settings(max_examples=250, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True))
def test_every_flipped_bit_of_a_step_is_noticed(
    whole: tuple[Trace, bytes, list[np.ndarray]], place: float
) -> None:
    trace, original, before = whole
    content = bytearray(original)
    bit = int(place * 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    step_file(trace.path).write_bytes(content)
    try:
        read_all(trace.path)
    except TraceError as error:
        assert "\n" not in str(error)
        return
    # a bit that is not noticed (a letter's case in an unused place) must have changed nothing
    after = [trace.step(0).mask(*record.key) for record in trace.step(0).records]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_step_is_refused_and_the_others_are_whole(tmp_path: Path, part: float) -> None:
    trace = make_trace(tmp_path / "t")
    content = step_file(trace.path).read_bytes()
    step_file(trace.path).write_bytes(content[: int(part * len(content))])
    with pytest.raises(TraceError, match="step 0 .* remove this file to use the other steps"):
        read_all(trace.path)
    assert list(open_trace(trace.path).step(7).check())


def write_step(path: Path, record: MaskRecord, tensors: dict[str, np.ndarray]) -> Path:
    """Write a step by hand, as a broken or hostile writer would."""
    with TraceWriter(path) as target:
        target.write_manifest(Manifest(layers=(FC,), batch_size=2, samples=(0, 1)))
    step_file(path).write_bytes(save(tensors, metadata=header_of([record])))
    return path


def header_of(records: list[MaskRecord]) -> dict[str, str]:
    own = StepLayer(layer=FC, batch=2, samples=2)
    return dump_header(StepHeader(2, [own], records))


def frame(content: bytes, **options: bool) -> np.ndarray:
    compressed = zstandard.ZstdCompressor(level=1, **options).compress(content)
    return np.frombuffer(compressed, np.uint8)


ACT = dict(layer="fc", op="fprop", operand="act", shape=(2, 5), codec="zstd", tensor="a")  # noqa: C408


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (frame(bytes(2**20)), "its frame promises 1048576 bytes, its shape needs 2"),
        (frame(bytes(2**20), write_content_size=False), "promises -1 bytes|damaged"),
        (frame(bytes(1)), "its frame promises 1 bytes, its shape needs 2"),
        (frame(bytes([1, 0])), "its digest is .*, its header says 00"),
        (frame(bytes([3, 0])), "it holds 2 ones, its header says 1"),
        (np.zeros(9, np.uint8), "damaged"),
        (np.zeros((3, 3), np.float32), "tensor 'a' is F32"),
    ],
)
def test_no_size_in_a_mask_is_believed(tmp_path: Path, content: np.ndarray, complaint: str) -> None:
    record = MaskRecord(**ACT, ones=1, digest="00")
    path = write_step(tmp_path / "t", record, {"a": content})
    with pytest.raises(TraceError, match=complaint):
        read_all(path)


def test_a_mask_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    record = MaskRecord(**{**ACT, "shape": (2, 6)}, ones=1, digest="00")
    path = write_step(tmp_path / "t", record, {"a": frame(bytes(2))})
    with pytest.raises(TraceError, match=r"'fc': act mask is \(2, 6\), expected \(2, 5\) from C=5"):
        open_trace(path).step(0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"notes": "{}"}, "notes do not match their checksum"),
        ({"notes_crc32": "00000000"}, "notes do not match their checksum"),
        ({"notes": "[1]", "notes_crc32": f"{zlib.crc32(b'[1]'):08x}"}, "notes are a list"),
        ({"notes": "{", "notes_crc32": f"{zlib.crc32(b'{'):08x}"}, "step 0"),
        ({"notes": "[" * 10**5, "notes_crc32": f"{zlib.crc32(b'[' * 10**5):08x}"}, "step 0"),
    ],
)
def test_notes_that_are_none_are_refused(
    tmp_path: Path, changes: dict[str, str], complaint: str
) -> None:
    record = MaskRecord(**{**ACT, "codec": "ones", "tensor": None}, ones=10)
    path = write_step(tmp_path / "t", record, {})
    step_file(path).write_bytes(save({}, metadata=header_of([record]) | changes))
    with pytest.raises(TraceError, match=complaint):
        open_trace(path).step(0)


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    record = MaskRecord(**ACT, ones=1, digest="00")
    path = write_step(tmp_path / "t", record, {"b": frame(bytes(2))})
    with pytest.raises(TraceError, match="tensor 'a' is missing"):
        open_trace(path).step(0)


def test_a_header_that_promises_a_terabyte_is_refused() -> None:
    bomb = {**ACT, "shape": (2**20, 2**20), "codec": "ones", "tensor": None}
    with pytest.raises(TraceError, match="promises more than"):
        MaskRecord(**bomb, ones=2**40)


def test_a_safetensors_header_that_promises_a_terabyte_is_refused(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    content = step_file(trace.path).read_bytes()
    step_file(trace.path).write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(TraceError, match="step 0"):
        trace.step(0)


def edit(manifest: Path, **changes: object) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema_version": 3}, "schema version is 3, expected 1 or 2"),
        ({"schema_version": 1}, "does not match its digest"),
        ({"format": "zip"}, "format is 'zip', expected 'swatsim-trace'"),
        ({"digest": None}, "does not match its digest"),
        ({"layers": [{"name": "x", "C": -1, "K": 1}]}, "layer 'x': C=-1 is not allowed"),
        ({"samples": [0, 0]}, "samples must be different"),
        ({"samples": [-9]}, "samples.0=-9 is not allowed"),
        ({"policy": {"name": "rand0m"}}, "does not match its digest: it was changed or damaged"),
        ({"samples": [0, 2]}, "does not match its digest"),
        ({"digest": "00" * 8}, "does not match its digest"),
        ({"surprise": 1}, "unknown parameter 'surprise'"),
    ],
)
def test_a_wrong_manifest_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    trace = make_trace(tmp_path / "t")
    edit(trace.path / "manifest.json", **changes)
    with pytest.raises((TraceError, WorkloadError), match=complaint):
        read_all(trace.path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layers": []}, "unknown layer"),
        ({"samples": [9]}, "below batch_size=8"),
        ({"samples": None}, "below batch_size=8"),
        ({"samples": [0]}, r"expected \(1,"),
    ],
)
def test_a_wrong_manifest_of_format_1_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    trace = as_format_1(make_trace(tmp_path / "t").path)
    edit(trace.path / "manifest.json", **changes, digest=None)
    with pytest.raises((TraceError, WorkloadError), match=complaint):
        read_all(trace.path)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": ', "[" * 100_000, "\x00\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    trace = make_trace(tmp_path / "t")
    (trace.path / "manifest.json").write_bytes(text.encode("latin1"))
    with pytest.raises(TraceError, match=r"manifest\.json"):
        open_trace(trace.path)


def test_missing_foreign_and_empty_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="does not exist: name the directory"):
        open_trace(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(TraceError, match=r"it has no manifest\.json \(it holds notes\.txt\)"):
        open_trace(tmp_path)
    with pytest.raises(TraceError, match="is a file: a trace is a directory"):
        open_trace(tmp_path / "notes.txt")
    trace = make_trace(tmp_path / "t", steps=(0,))
    step_file(trace.path).unlink()
    with pytest.raises(TraceError, match="has no steps: the run that recorded it ended before"):
        open_trace(trace.path)


def test_reading_a_layer_reads_its_bytes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "t")
    step = trace.step(0)
    asked: list[str] = []
    real = step._file

    class Spy:
        def get_tensor(self, name: str) -> np.ndarray:
            asked.append(name)
            return real.get_tensor(name)

    monkeypatch.setattr(step, "_file", Spy())
    step.op(LAYERS[3], "fprop")
    assert asked == ["fc/fprop/weight", "fc/fprop/act"]
    assert isinstance(step, Step)


def test_a_manifest_that_is_too_large_or_too_deep_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "t")
    deep: object = 1
    for _ in range(100):
        deep = {"x": deep}
    edit(trace.path / "manifest.json", policy=deep)
    with pytest.raises(TraceError, match="nested more than 50 deep"):
        open_trace(trace.path)
    monkeypatch.setattr("swatsim.tracefile.reader.MAX_MANIFEST_BYTES", 100)
    with pytest.raises(TraceError, match="is larger than 100 bytes"):
        open_trace(trace.path)


def test_what_is_no_readable_file_is_said_and_not_called_damaged(tmp_path: Path) -> None:
    import os

    trace = make_trace(tmp_path / "t")
    step_file(trace.path).unlink()
    os.mkfifo(step_file(trace.path))
    with pytest.raises(TraceError, match="step 0 .*it is not a file"):
        trace.step(0)
    assert list(trace.step(7).check())
    assert open_trace(trace.path).id


def test_a_mask_that_comes_twice_and_a_step_without_masks_are_refused(tmp_path: Path) -> None:
    record = MaskRecord(**{**ACT, "codec": "ones", "tensor": None}, ones=10)
    for records in ([], [record, record]):
        path = write_step(tmp_path / "t", record, {})
        content = save({}, metadata=header_of(records))
        step_file(path).write_bytes(content)
        with pytest.raises(TraceError, match="holds no masks, or one of them twice"):
            open_trace(path).step(0)
        step_file(path).unlink()


@pytest.mark.parametrize("number", [-1, 3.5, True, "3"])
def test_steps_that_no_reader_would_find_are_refused(tmp_path: Path, number: object) -> None:
    recorder = Recorder(tmp_path / "t", batch_size=2)
    recorder.declare(FC)
    with pytest.raises(RecordingError, match="steps are counted from 0"), recorder.step(number):  # type: ignore[arg-type]
        pass


def test_masks_that_are_none_are_refused_when_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "t", batch_size=2)
    recorder.declare(FC)
    with pytest.raises(RecordingError, match="act mask is float64, expected a numpy array of bool"):
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "act", np.ones((2, 5)))
    with pytest.raises(RecordingError, match="'fwd' does not read 'act'"), recorder.step(0) as step:
        step.operand("fc", "fwd", "act", np.ones((2, 5), bool))  # type: ignore[arg-type]


def test_a_trace_without_steps_can_be_written_over(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        writer.write_manifest(Manifest(layers=(FC,), batch_size=2, samples=(0,)))
    masks = {"weight": np.ones((3, 5), bool), "act": np.ones((2, 5), bool)}
    assert open_trace(one_mask(tmp_path / "t", **masks)).steps == (0,)
