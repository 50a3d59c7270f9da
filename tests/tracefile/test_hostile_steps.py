"""What a step of format 2 says of itself is checked before it is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from swatsim.errors import RecordingError, SwatsimError, TraceError, WorkloadError
from swatsim.tracefile import Coverage, Macs, Step, Trace, Unheld, open_trace
from swatsim.tracefile.header import text_of
from swatsim.tracefile.plain import digest
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import Layer

FC = Layer(name="fc", kind="linear", C=5, K=3)
ROWS = Layer(name="rows", C=5, K=3, H=4)
ACT = np.eye(2, 5, dtype=bool)
COVERAGE = Coverage(
    seen=Macs(forward=30, backward=60),
    held=Macs(forward=20, backward=40),
    not_held=(Unheld(module="attn", what="bmm", forward=10, backward=20),),
    left_alone=("head",),
    unseen=("scale",),
)


def written(path: Path) -> Trace:
    """Record one step of two layers, with all that a step may hold."""
    with Recorder(path, batch_size=8, samples=range(2)) as recorder:
        with recorder.step(0) as step:
            step.declare(FC, 8, 2)
            step.declare(ROWS, 1, 1)
            step.operand("fc", ("fprop", "wgrad"), "act", ACT, "bfloat16")
            step.operand("rows", "fprop", "weight", np.ones((3, 5, 1, 1), bool), "float32")
            step.coverage = COVERAGE
            step.notes["loss"] = 0.5
    return open_trace(path)


def crafted(path: Path, change: Callable[[dict[str, Any]], None], sealed: bool = True) -> Step:
    """Change a step's texts, as JSON, and if `sealed` its digest with them."""
    file = path / "steps/0.safetensors"
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        texts = opened.metadata()
    parts = {key: json.loads(texts[key]) for key in ("layers", "masks", "coverage")}
    parts["texts"] = texts
    change(parts)
    texts |= {key: json.dumps(parts[key]) for key in ("layers", "masks", "coverage")}
    texts |= parts["texts"].pop("raw", {})
    if sealed:
        texts["digest"] = digest(text_of(texts))
    file.write_bytes(save(tensors, metadata=texts))
    return open_trace(path).step(0)


def put(value: Any, *place: Any) -> Callable[[dict[str, Any]], None]:
    """Put a value at a place of a step's texts."""

    def change(parts: dict[str, Any]) -> None:
        *way, last = place
        for key in way:
            parts = parts[key]
        parts[last] = value

    return change


def without(*place: Any) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        *way, last = place
        for key in way:
            parts = parts[key]
        del parts[last]

    return change


def raw(key: str, text: str) -> Callable[[dict[str, Any]], None]:
    return put({key: text}, "texts", "raw")


def other(**changed: Any) -> str:
    """Write one other work down, with something changed in it."""
    operation = {"function": "relu", "elements": 1, "read": 4, "written": 4}
    work = {"module": "act", "phase": "forward", "operations": [operation], "read": 4, "written": 4}
    return json.dumps([work | changed])


LAYERS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (put(0, "layers", 0, "batch"), "batch=0 is not allowed"),
    (put(-8, "layers", 0, "batch"), "batch=-8 is not allowed"),
    (put(2**31 + 1, "layers", 0, "batch"), "batch=2147483649 is not allowed"),
    (put("8", "layers", 0, "batch"), "batch='8' is not allowed"),
    (put(8.0, "layers", 0, "batch"), "batch=8.0 is not allowed"),
    (put(True, "layers", 0, "batch"), "batch=True is not allowed"),
    (put(10**40, "layers", 0, "samples"), "samples=1000.* is not allowed"),
    (put(0, "layers", 0, "samples"), "samples=0 is not allowed"),
    (put(9, "layers", 0, "samples"), "samples=9 can't be in a batch of 8"),
    (put(3, "layers", 0, "samples"), r"act mask is \(2, 5\), expected \(3, 5\)"),
    (put(2**31, "layers", 1, "layer", "H"), "H=2147483648 is not allowed"),
    (put(2**24, "layers", 1, "layer", "C"), "layer 'rows'"),
    (put(6, "layers", 0, "layer", "C"), r"act mask is \(2, 5\), expected \(2, 6\)"),
    (put("pool", "layers", 0, "layer", "kind"), "kind='pool' is not allowed"),
    (put("fx", "layers", 0, "layer", "name"), "unknown layer 'fx'"),
    (put("rows", "layers", 0, "layer", "name"), "two of its layers have one name"),
    (put(1, "layers", 0, "surprise"), "unknown parameter 'surprise'"),
    (without("layers", 0, "batch"), "batch is missing"),
    (without("layers", 0, "layer"), "layer is missing"),
    (without("layers", 0), "unknown layer 'fc'"),
    (put([], "layers"), "unknown layer 'fc'"),
    (put({"fc": 1}, "layers"), "step 0"),
    (put(5, "layers"), "step 0"),
    (put(5, "layers", 0), "step 0"),
    (put(5, "layers", 0, "layer"), "step 0"),
]
MASKS = [
    (put("float31", "masks", 0, "dtype"), "dtype='float31' is not allowed: must be the name of a"),
    (put("fp32", "masks", 0, "dtype"), "dtype='fp32' is not allowed"),
    (put(32, "masks", 0, "dtype"), "dtype=32 is not allowed"),
    (put(["float32"], "masks", 0, "dtype"), "dtype=.* is not allowed"),
    (put("wgrad", "masks", 0, "op"), "holds no masks, or one of them twice"),
    (without("masks", 2), "layer 'rows' has no masks"),
    (put([], "masks"), "holds no masks"),
    (put([1, 2**40], "masks", 0, "shape"), "promises more than"),
    (put([2**40, 2**40], "masks", 2, "shape"), "promises more than"),
]
OF_COVERAGE = [
    (put(-1, "coverage", "seen", "forward"), "forward=-1 is not allowed"),
    (put(-1, "coverage", "held", "backward"), "backward=-1 is not allowed"),
    (put(2**62, "coverage", "seen", "forward"), "forward=4611686018427387904 is not allowed"),
    (put(10**4000, "coverage", "seen", "forward"), "forward=.* is not allowed"),
    (put(31, "coverage", "held", "forward"), "forward: held=31 is more than seen=30"),
    (put(61, "coverage", "held", "backward"), "backward: held=61 is more than seen=60"),
    (put(11, "coverage", "not_held", 0, "forward"), "forward: not_held adds up to 11, but seen=30"),
    (put(-1, "coverage", "not_held", 0, "forward"), "not_held of 'attn': forward=-1"),
    (put(1.0, "coverage", "held", "forward"), "forward=1.0 is not allowed"),
    (put(5, "coverage", "not_held", 0, "module"), "module=5 is not allowed"),
    (put([5], "coverage", "unseen"), "unseen.*5 is not allowed"),
    (put("head", "coverage", "left_alone"), "left_alone='head' is not allowed"),
    (put(1, "coverage", "share"), "unknown parameter 'share'"),
    (without("coverage", "held"), "held is missing"),
    (put([], "coverage"), "step 0"),
    (put(None, "coverage"), "step 0"),
    (put(["x"] * 100_001, "coverage", "unseen"), "unseen=.* is not allowed: .*at most 100000"),
]
OF_OTHERS = [
    (raw("others", "{}"), "its others are a dict, expected a list"),
    (raw("others", "null"), "its others are a NoneType, expected a list"),
    (raw("others", json.dumps([0] * 100_001)), "it notes more than 100000 other works"),
    (raw("others", other(per_sample="yes")), "per_sample='yes' is not allowed"),
    (raw("others", other(per_sample=1)), "per_sample=1 is not allowed"),
    (raw("others", other(times=0)), "times=0 is not allowed"),
    (raw("others", other(read=-1)), "read=-1 is not allowed"),
    (raw("others", other(written=2**62)), "written=4611686018427387904 is not allowed"),
    (raw("others", other(operations=[])), "operations=.* is not allowed"),
    (raw("others", other(phase="sideways")), "phase='sideways' is not allowed"),
    (raw("others", other(dtype="float7")), "dtype='float7' is not allowed"),
]
TEXTS = [
    (put("0", "texts", "batch_size"), "its batch of 0 has less"),
    (put("08", "texts", "batch_size"), "batch size is '08'"),
    (put(str(2**31 + 1), "texts", "batch_size"), "or more than 2147483648"),
    (put("9" * 5000, "texts", "batch_size"), "step 0"),
    (put("1", "texts", "schema_version"), "schema version is '1', expected '2'"),
    (put("3", "texts", "schema_version"), "schema version is '3', expected '2'"),
    (raw("layers", "[" * 10**5), "step 0"),
    (raw("layers", ""), "step 0"),
    (raw("coverage", '{"seen": {"forward": 1, "forward": 2}}'), "it says 'forward' twice"),
    (raw("masks", "{"), "step 0"),
]


@pytest.mark.parametrize(
    ("change", "complaint"), [*LAYERS, *MASKS, *OF_COVERAGE, *OF_OTHERS, *TEXTS]
)
def test_a_crafted_step_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    trace = written(tmp_path / "t")
    with pytest.raises(TraceError, match=complaint) as refused:
        crafted(trace.path, change)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("step 0 (")


@pytest.mark.parametrize(
    "change",
    [
        put(7, "layers", 0, "batch"),
        put("float32", "masks", 0, "dtype"),
        put(19, "coverage", "held", "forward"),
        put("7", "texts", "batch_size"),
        put([], "coverage", "left_alone"),
    ],
)
def test_what_was_changed_without_its_digest_is_noticed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    trace = written(tmp_path / "t")
    with pytest.raises(TraceError, match="its header does not match its digest"):
        crafted(trace.path, change, sealed=False)
    before = trace.id
    crafted(trace.path, change)
    assert open_trace(trace.path).id != before


def test_a_step_of_another_format_than_its_manifest_is_refused(tmp_path: Path) -> None:
    trace = written(tmp_path / "t")
    manifest = trace.path / "manifest.json"
    found = {**json.loads(manifest.read_text()), "schema_version": 1, "samples": [0, 1]}
    del found["digest"]
    manifest.write_text(json.dumps(found))
    with pytest.raises(TraceError, match="schema version is '2', expected '1'"):
        open_trace(trace.path).step(0)


def told(step: Step) -> list[Any]:
    """List all that a step says."""
    names = [layer.name for layer in step.layers]
    counts = [(step.batch_of(name), step.samples_of(name)) for name in names]
    masks = [(record, step.mask(*record.key).tolist()) for record in step.records]
    return [step.batch_size, step.layers, counts, step.coverage, step.notes, masks]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, bytes, list[Any]]:
    trace = written(tmp_path_factory.mktemp("flip") / "t")
    content = (trace.path / "steps/0.safetensors").read_bytes()
    return trace, content, told(trace.step(0))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True))
def test_every_flipped_bit_of_a_whole_header_is_noticed(
    whole: tuple[Trace, bytes, list[Any]], place: float
) -> None:
    trace, original, before = whole
    content = bytearray(original)
    bit = int(place * 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    (trace.path / "steps/0.safetensors").write_bytes(content)
    try:
        step = open_trace(trace.path).step(0)
        list(step.check())
    except SwatsimError as error:
        assert "\n" not in str(error)
        return
    assert told(step) == before


# ---- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float31", "fp32", "torch.float32", 32, np.float32, ""])
def test_a_value_type_that_no_reader_would_take_is_refused(tmp_path: Path, dtype: Any) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(FC)
        with pytest.raises(RecordingError, match="act of dtype=.* is not allowed: .* 'bfloat16'"):
            with recorder.step(0) as step:
                step.operand("fc", "fprop", "act", ACT, dtype)
    assert not (tmp_path / "t/manifest.json").exists()


@pytest.mark.parametrize(
    ("batch", "samples"), [(0, 0), (2, 3), (2, 0), (2**31 + 1, 2), ("2", 2), (2, 1.5), (True, 1)]
)
def test_a_layer_s_batch_that_can_not_be_is_refused(
    tmp_path: Path, batch: Any, samples: Any
) -> None:
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        with pytest.raises(SwatsimError, match="layer 'fc': (batch|samples)="):
            with recorder.step(0) as step:
                step.declare(FC, batch, samples)


def test_a_coverage_that_can_not_be_is_refused(tmp_path: Path) -> None:
    one, two = Macs(forward=1, backward=1), Macs(forward=2, backward=0)
    with pytest.raises(TraceError, match="forward: held=2 is more than seen=1"):
        Coverage(seen=one, held=two)
    with pytest.raises(TraceError, match="forward=-1 is not allowed"):
        Macs(forward=-1, backward=0)
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(FC)
        with pytest.raises(RecordingError, match="coverage=0.9 is not allowed"):
            with recorder.step(0) as step:
                step.operand("fc", "fprop", "act", ACT)
                step.coverage = 0.9  # type: ignore[assignment]


def test_the_share_that_is_held() -> None:
    none = Macs(forward=0, backward=0)
    assert COVERAGE.share == 60 / 90
    assert Coverage(seen=none, held=none).share == 1.0


def test_a_layer_may_have_another_shape_in_each_step_but_one_in_a_step(tmp_path: Path) -> None:
    longer = FC.model_copy(update={"C": 6})
    with Recorder(tmp_path / "t", batch_size=2) as recorder:
        recorder.declare(FC)
        with recorder.step(0) as step:
            step.operand("fc", "fprop", "act", ACT)
        recorder.declare(longer)
        with recorder.step(1, batch_size=3) as step:
            step.operand("fc", "fprop", "act", np.eye(3, 6, dtype=bool))
            with pytest.raises(RecordingError, match="call its second run 'fc@2'"):
                step.declare(FC, 2, 2)
            with pytest.raises(WorkloadError, match=r"is \(2, 5\), expected \(3, 6\)"):
                step.operand("fc", "wgrad", "act", ACT)
    trace = open_trace(tmp_path / "t")
    assert [trace.step(number).layers for number in trace.steps] == [(FC,), (longer,)]
    assert [trace.step(number).batch_of("fc") for number in trace.steps] == [2, 3]
    assert trace.layers == (FC,)
    with pytest.raises(TraceError, match="step 0 .*unknown layer 'fx'.*known are fc"):
        trace.step(0).batch_of("fx")


@pytest.mark.parametrize(("batch", "kept"), [(1, 1), (5, 1), (6, 2), (9, 2)])
def test_a_batch_keeps_those_of_the_samples_that_are_in_it(
    tmp_path: Path, batch: int, kept: int
) -> None:
    with Recorder(tmp_path / "t", batch_size=8, samples=[0, 5]) as recorder:
        recorder.declare(FC)
        with recorder.step(0, batch) as step:
            step.operand("fc", "fprop", "act", np.eye(kept, 5, dtype=bool))
    step = open_trace(tmp_path / "t").step(0)
    assert (step.batch_size, step.batch_of("fc"), step.samples_of("fc")) == (batch, batch, kept)


def test_the_size_of_a_batch_may_be_known_at_its_end(tmp_path: Path) -> None:
    with Recorder(tmp_path / "t", batch_size=8, samples=range(2)) as recorder:
        recorder.declare(FC)
        for number, batch, complaint in ((0, 3, None), (1, 1, "has masks of 2 samples")):
            record = recorder.begin(number)
            record.operand("fc", "fprop", "act", ACT)
            if complaint is None:
                recorder.end(record, batch)
                continue
            with pytest.raises(RecordingError, match=complaint):
                recorder.end(record, batch)
    trace = open_trace(tmp_path / "t")
    assert trace.steps == (0,)
    assert trace.step(0).batch_of("fc") == 3
