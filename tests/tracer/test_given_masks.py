"""Masks that somebody else made: found, fitted to layers, refused in a line."""

from __future__ import annotations

import io
import json
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from swatsim.errors import RecordingError
from swatsim.policies import Dense, TopKast
from swatsim.tracefile import Step
from swatsim.tracer import mask_files
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from swatsim.workload.networks import network
from swatsim.workload.tables import Network
from tests.command import refusal, swatsim

CONV = Layer(name="body.conv", C=8, K=6, H=5, W=5, R=3, S=3, padding=1, groups=2)
FC = Layer(name="fc", kind="linear", C=6, K=4)
LAYERS = [CONV, FC]
BATCH = 3
OPS_OF = {"weight": ("fprop", "dgrad"), "act": ("fprop", "wgrad"), "grad_out": ("dgrad", "wgrad")}


def mask_of(layer: Layer, operand: Any = "weight", seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(layer.shape_of(operand, BATCH)) < 0.3


def made(tmp_path: Path, masks: Any, layers: Any = LAYERS, policy: Any = None) -> Step:
    path = tmp_path / f"trace{len(list(tmp_path.glob('trace*')))}"
    given = {"policy": policy or Dense(), "batch": BATCH, "seed": 1}
    return synthesize(layers, path, masks=masks, **given).step(0)


def refused(tmp_path: Path, masks: Any, layers: Any = LAYERS) -> str:
    with pytest.raises(RecordingError) as caught:
        made(tmp_path, masks, layers)
    assert not list(tmp_path.glob("trace*")), "something was written"
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what is found -------------------------------------------------------------------------------


def test_arrays_by_name_stand_in_the_trace_and_the_rest_is_drawn(tmp_path: Path) -> None:
    act, one = mask_of(CONV, "act"), mask_of(FC, "act", 2)
    masks = {"body.conv": mask_of(CONV) * -2.5, "body.conv.act": act, "fc.wgrad.act": one}
    step, drawn = made(tmp_path, masks), made(tmp_path, None)
    assert np.array_equal(step.mask("body.conv", "fprop", "weight"), mask_of(CONV))
    for op in OPS_OF["act"]:
        assert np.array_equal(step.mask("body.conv", op, "act"), act)
    assert np.array_equal(step.mask("fc", "wgrad", "act"), one)
    same = [("fc", "fprop", "act"), ("fc", "fprop", "weight"), ("body.conv", "wgrad", "grad_out")]
    for key in same:
        assert np.array_equal(step.mask(*key), drawn.mask(*key))
    said = step.manifest.provenance["parameters"]["masks"]
    assert said == {"files": [], "layers_with": {"weight": 1, "act": 2, "grad_out": 0}}
    assert "masks" not in drawn.manifest.provenance["parameters"]
    assert step.manifest.policy == {"name": "given", "masks": ["arrays"]}
    weights = {layer.name: own for layer, operand, _, own in step.kept() if operand == "weight"}
    assert weights == {"body.conv": True, "fc": False}, "what a footprint may store without zeros"
    assert drawn.manifest.policy == {"name": "dense"}, "it says whose zeros these are"


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float16, np.float64, np.complex64, ">f4"])
def test_a_folder_of_npy_files(tmp_path: Path, dtype: Any) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    np.save(folder / "body.conv.npy", mask_of(CONV).astype(dtype))
    np.save(folder / "fc.grad_out.npy", np.asfortranarray(mask_of(FC, "grad_out").astype(dtype)))
    (folder / "README.md").write_text("not read")
    step = made(tmp_path, folder)
    assert np.array_equal(step.mask("body.conv", "fprop", "weight"), mask_of(CONV))
    for op in OPS_OF["grad_out"]:
        assert np.array_equal(step.mask("fc", op, "grad_out"), mask_of(FC, "grad_out"))
    assert step.manifest.provenance["parameters"]["masks"]["files"] == ["masks"]


def test_an_npz_file_and_a_file_more(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "a.npz", **{"fc.weight": mask_of(FC), "fc.act": mask_of(FC, "act")}
    )
    np.save(tmp_path / "body.conv.npy", mask_of(CONV))
    step = made(tmp_path, [tmp_path / "a.npz", str(tmp_path / "body.conv.npy")])
    for layer in LAYERS:
        assert np.array_equal(step.mask(layer.name, "fprop", "weight"), mask_of(layer))
    assert np.array_equal(step.mask("fc", "wgrad", "act"), mask_of(FC, "act"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, bool])
def test_a_safetensors_file(tmp_path: Path, dtype: Any) -> None:
    values = mask_of(CONV).astype(dtype)
    if values.dtype.kind == "f":
        values[values == 0] = -0.0
        values.flat[np.flatnonzero(values)[0]] = np.nan
    save_file({"body.conv.weight": values, "bn.weight": np.ones(6)}, tmp_path / "m.safetensors")
    step = made(tmp_path, tmp_path / "m.safetensors")
    for op in OPS_OF["weight"]:
        assert op == "dgrad" or np.array_equal(step.mask("body.conv", op, "weight"), mask_of(CONV))


def test_bfloat16_needs_no_torch(tmp_path: Path) -> None:
    bits = np.where(mask_of(FC), 0x3F80, 0x8000).astype("<u2")  # 1 and -0
    said = {"fc.weight": {"dtype": "BF16", "shape": [4, 6], "data_offsets": [0, bits.nbytes]}}
    header = json.dumps(said).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    assert np.array_equal(made(tmp_path, path).mask("fc", "dgrad", "weight"), mask_of(FC))


def test_a_layers_second_run_has_its_weights(tmp_path: Path) -> None:
    again = FC.model_copy(update={"name": "fc@2"})
    step = made(tmp_path, {"fc": mask_of(FC)}, [CONV, FC, again])
    for name in ("fc", "fc@2"):
        assert np.array_equal(step.mask(name, "fprop", "weight"), mask_of(FC))


def test_products_of_activations_too_and_a_causal_mask_hides_what_it_hides(tmp_path: Path) -> None:
    scores = Layer(name="scores", kind="matmul", C=8, K=10, H=5, groups=2)
    table = Network("n", "", (FC, scores), (), causal={"scores": "grad_out"}, embedded=True)
    ones = np.ones(scores.shape_of("grad_out", BATCH), bool)
    right = mask_of(scores)
    step = made(tmp_path, {"scores.grad_out": ones, "scores": right}, table)
    seen = step.mask("scores", "dgrad", "grad_out")
    assert seen.any()
    assert not seen.all()
    assert np.array_equal(step.mask("scores", "fprop", "weight"), right)


def test_a_policy_leaves_given_weights_alone_and_drops_the_others(tmp_path: Path) -> None:
    layers = [
        FC,
        CONV.model_copy(update={"name": "body.conv", "groups": 1}),
        CONV.model_copy(update={"name": "c"}),
    ]
    weight = mask_of(layers[1])
    policy = TopKast(0.5, backward_sparsity=0.2)
    step = made(tmp_path, {"body.conv": weight}, layers, policy)
    assert np.array_equal(step.mask("body.conv", "dgrad", "weight"), weight)
    assert step.record("c", "fprop", "weight").density == pytest.approx(0.5, abs=0.01)
    wanted = [record.layer for record in step.records if record.is_output]
    assert "c" in wanted
    assert "body.conv" not in wanted, "which gradients are wanted follows from a policy's own mask"
    notes = [work.module for work in step.others or [] if work.phase == "policy"]
    assert "body.conv" not in notes


# ---- PyTorch -------------------------------------------------------------------------------------


def model() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    body = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(8, 6, 3, padding=1, groups=2)})
    parts = {"body": body, "fc": torch.nn.Linear(6, 4), "norm": torch.nn.BatchNorm2d(6)}
    found = torch.nn.ModuleDict(parts)
    with torch.no_grad():
        found["fc"].weight[:2] = 0
    return found


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("new", [True, False])
def test_a_checkpoint_of_pruned_weights(
    tmp_path: Path, nested: str | None, prefix: str, new: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    pruned = model()
    prune.l1_unstructured(pruned["body"]["conv"], "weight", 0.6)
    state = {f"{prefix}{name}": it for name, it in pruned.state_dict().items()}
    path = tmp_path / "best.pth"
    content = {nested: state, "epoch": 3, "optimizer": {"lr": 0.1}} if nested else state
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with caplog.at_level(logging.WARNING):
        step = made(tmp_path, path)
    assert not caplog.records
    for layer, module in (("body.conv", pruned["body"]["conv"]), ("fc", pruned["fc"])):
        expected = (module.weight != 0).numpy()
        assert not expected.all()
        assert np.array_equal(step.mask(layer, "fprop", "weight"), expected)


def test_a_sparsifiers_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mask = mask_of(FC)
    names = ("fc.parametrizations.weight.original", "fc.parametrizations.weight.0.mask")
    values = (torch.ones(4, 6, dtype=torch.bfloat16), torch.from_numpy(mask))
    torch.save(dict(zip(names, values, strict=True)), tmp_path / "m.pt")
    assert np.array_equal(made(tmp_path, tmp_path / "m.pt").mask("fc", "fprop", "weight"), mask)


def test_what_of_a_checkpoint_is_of_no_layer_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch = pytest.importorskip("torch")
    state = {**model().state_dict(), "fc2.weight": torch.ones(4, 6), "x": torch.ones(3)}
    torch.save(state, tmp_path / "m.pt")
    with caplog.at_level(logging.WARNING):
        made(tmp_path, tmp_path / "m.pt")
    (record,) = caplog.records
    assert "1 of its tensors are of no layer in the table" in record.getMessage()
    assert "'fc2.weight' (near: 'fc.weight')" in record.getMessage()


class Hostile:
    """Something that runs code as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("hostile-code-ran"),)


@pytest.mark.parametrize("name", ["m.pt", "m.npy", "m.npz"])
def test_nothing_is_executed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if name == "m.pt":
        pytest.importorskip("torch").save({"fc.weight": Hostile()}, path)
    else:
        array = np.array([Hostile()], object)
        np.save(path, array) if name == "m.npy" else np.savez(path, fc=array)
    layers = [FC.model_copy(update={"name": "m"}), FC]
    message = refused(tmp_path, path, layers)
    assert "without executing what is in it" in message or "object, not numbers" in message
    assert not (tmp_path / "hostile-code-ran").exists()


def test_a_whole_model_or_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(model(), tmp_path / "m.pt")
    assert "save model.state_dict()" in refused(tmp_path, tmp_path / "m.pt")
    torch.save({"epoch": 3}, tmp_path / "m.pt")
    assert "has no state dict" in refused(tmp_path, tmp_path / "m.pt")


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"fc": np.ones((6, 4))}, "fc': weight mask is (6, 4), expected (4, 6) from C=6, K=4"),
        ({"fc.act": np.ones((2, 6))}, "act mask is (2, 6), expected (3, 6) from C=6, K=4, batch 3"),
        ({"fc": np.ones(4)}, "weight mask is (4,), expected (4, 6)"),
        ({"fc": np.float64(1)}, "weight mask is (), expected (4, 6)"),
        ({"fcc": np.ones((4, 6))}, "is called so: 'fcc' (near: 'fc'); names are LAYER, "),
        ({"fc.dgrad.act": np.ones((3, 6))}, "dgrad does not read act, but weight and grad_out"),
        ({"body.conv.dgrad.weight": mask_of(CONV)}, "has no dgrad: what it reads is the network's"),
        ({"fc": "ones"}, "can't be read: it is 'ones', not an array of numbers"),
        ({"fc": [[1], [1, 2]]}, "not an array of numbers"),
        ({"fc": mask_of(FC), "fc.weight": mask_of(FC)}, "masks of the same operand: give one"),
        ({}, "it is empty"),
    ],
)
def test_masks_that_do_not_fit(tmp_path: Path, masks: Any, said: str) -> None:
    assert said in refused(tmp_path, masks)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


GOOD = npy(np.ones((4, 6)))
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("fc.npy", b"", "damaged or no such file"),
    "no npy": ("fc.npy", b"GIF89a" * 20, "damaged or no such file"),
    "cut off": ("fc.npy", GOOD[:-8], "it is cut off: (4, 6) of float64"),
    "another version": ("fc.npy", b"\x93NUMPY\x03\x00" + GOOD[8:], "its version is none"),
    "huge header": (
        "fc.npy",
        b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * 100,
        "damaged",
    ),
    "long header": ("fc.npy", header(" " * 60_000), "damaged"),
    "huge shape": (
        "fc.npy",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999)}\n"),
        "it is cut off",
    ),
    "negative shape": (
        "fc.npy",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-4, -6)}\n"),
        "fc.npy can't be read: it is cut off",
    ),
    "code in a header": ("fc.npy", header("__import__('os').system('true')\n"), "damaged"),
    "text": ("fc.npy", npy(np.array([["a"] * 6] * 4)), "it holds <U1, not numbers"),
    "no zip": ("fc.npz", GOOD, "damaged"),
    "short": ("fc.safetensors", b"\x01", "its header would have 1 bytes"),
    "endless": ("fc.safetensors", b"\xff" * 64, "its header would have 18446744073709551615"),
    "no JSON": ("fc.safetensors", (4).to_bytes(8, "little") + b"{{{{", "damaged"),
    "a list": ("fc.safetensors", (2).to_bytes(8, "little") + b"[]", "damaged"),
    "no checkpoint": ("fc.pt", b"GIF89a" * 20, "damaged"),
    "empty checkpoint": ("fc.pt", b"", "damaged"),
    "no such kind": ("fc.csv", b"1,0", "masks are files of .npy, .npz, .safetensors, .pt"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_files_are_refused_in_a_line(tmp_path: Path, what: str) -> None:
    name, content, said = DAMAGED[what]
    if name.endswith(".pt"):
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path, tmp_path / name)
    assert said in message
    assert name in message


@pytest.mark.parametrize(
    "said",
    [
        {"data_offsets": [0, 10**12]},
        {"data_offsets": [-96, 0]},
        {"data_offsets": [0, 8]},
        {"shape": [4, -6]},
        {"shape": [10**30, 10**30]},
        {"dtype": "F7"},
        {"shape": None},
    ],
)
def test_no_place_in_a_safetensors_header_is_believed(tmp_path: Path, said: dict[str, Any]) -> None:
    own = {"dtype": "F32", "shape": [4, 6], "data_offsets": [0, 96], **said}
    text = json.dumps({"fc.weight": own}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(96))
    assert str(path) in refused(tmp_path, path)


def test_a_bomb_is_refused_by_its_shape(tmp_path: Path) -> None:
    text = "{'descr': '|b1', 'fortran_order': False, 'shape': (65536, 65536)}\n"
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fc.npy", header(text) + bytes(2**20))
    assert "weight mask is (65536, 65536), expected (4, 6)" in refused(tmp_path, path)


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, fc=mask_of(FC).astype(float))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x93NUMPY") + 130
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"m\.npz .*can't be read: it is damaged"):
        made(tmp_path, path)


def test_folders_and_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no masks: no file of .npy" in refused(tmp_path, tmp_path / "empty")
    assert "No such file" in refused(tmp_path, tmp_path / "nope.npy")
    twice = tmp_path / "twice"
    twice.mkdir()
    np.save(twice / "fc.npy", mask_of(FC))
    np.savez(twice / "b.npz", fc=mask_of(FC))
    assert "has a tensor of that name too" in refused(tmp_path, twice)


def test_a_file_that_changes_under_it_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "fc.npy", mask_of(FC))
    stored = mask_files.stored_in(tmp_path / "fc.npy")["fc"]
    assert np.array_equal(stored.kept(), mask_of(FC))
    assert pickle.loads(pickle.dumps(stored)).shape == (4, 6)


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_line_takes_masks(tmp_path: Path) -> None:
    layers = network("resnet8").layers
    masks = {
        it.name: np.arange(it.weights).reshape(it.shape_of("weight", 1)) % 3 for it in layers[1:]
    }
    np.savez(tmp_path / "m.npz", **masks)
    chosen = ("synth", "resnet8", "--batch", 1, "--masks", tmp_path / "m.npz")
    code, out, errors = swatsim(*chosen, "-o", tmp_path / "t")
    assert code == 0, errors
    assert f"not drawn: weight of {len(masks)} of {len(layers)} layers" in " ".join(out.split())
    code, out, _ = swatsim(*chosen, "-o", tmp_path / "t2", "--json")
    assert json.loads(out)["layers_with_given"] == {"weight": len(masks), "act": 0, "grad_out": 0}
    code, out, errors = swatsim("info", tmp_path / "t")
    assert code == 0, errors
    assert "m.npz" in out


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("resnet8",), "Missing option '--sparsity'"),
        (("resnet8", "--masks", "m.npz", "--policy", "rigl"), "Missing option '--sparsity'"),
        (("m.npz", "--sparsity", 0.5), "weights don't say how large activations are; name a"),
    ],
)
def test_the_command_line_refuses(
    tmp_path: Path, chosen: tuple[Any, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "m.npz", fc=mask_of(FC))
    code, out, errors = swatsim("synth", *chosen, "-o", tmp_path / "t")
    assert said in refusal(code, out, errors)
    assert not (tmp_path / "t").exists()


# ---- Timeloop ------------------------------------------------------------------------------------

PROBLEM = """problem:
  version: 0.4
  shape: cnn-layer
  instance: {{C: 8, M: 6, R: 3, S: 3, N: 1, P: 5, Q: 5{densities}}}
"""


def problem(tmp_path: Path, densities: str, name: str = "body.conv.yaml") -> Path:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    path = tmp_path / name
    path.write_text(PROBLEM.format(densities=densities))
    return path


def test_a_problems_densities_are_drawn(tmp_path: Path) -> None:
    both = (
        "Weights: {distribution: fixed-structured, density: 0.5}, "
        "Inputs: {distribution: hypergeometric, density: 0.33}, Outputs: 0.1"
    )
    path = problem(tmp_path, f", densities: {{{both}}}")
    step = made(tmp_path, path)
    weight, act = (step.mask("body.conv", "fprop", operand) for operand in ("weight", "act"))
    assert (weight.reshape(6, 2, 2, 3, 3).sum(axis=2) == 1).all(), "1 of 2 along the channels"
    assert act.sum() == int(np.ceil(0.33 * act.size))
    assert np.array_equal(step.mask("body.conv", "wgrad", "act"), act)
    again = made(tmp_path, path)
    assert np.array_equal(again.mask("body.conv", "fprop", "act"), act)


@pytest.mark.parametrize("said", ["0.25", "{distribution: fixed_structured, density: 0.25}"])
def test_a_density_of_all_data_spaces(tmp_path: Path, said: str) -> None:
    step = made(tmp_path, problem(tmp_path, f", commonDensity: {said}"))
    for operand in ("weight", "act"):
        assert step.mask("body.conv", "fprop", operand).mean() == 0.25


@pytest.mark.parametrize(
    ("densities", "said"),
    [
        ("", "has no densities of Weights, Inputs"),
        (", densities: {Weights: {distribution: banded, band_width: 3}}", "'banded' is not read: "),
        (", densities: {Weights: {density: 0.5}}", "distribution=None is not read: allowed are"),
        (", densities: {Weights: 0}", "density=0 is not allowed: must be a number in (0, 1]"),
        (", densities: {Weights: yes}", "density=True is not allowed"),
        (", densities: {Weights: 0.446133}", "is of no pattern: fixed is drawn as n of every m"),
        (", densities: [1]", "density=[1] is not allowed"),
        (", M: 7, densities: {Weights: 0.5}", "is of another layer: it has M=7, layer 'body.conv'"),
        (", densities: {Weights: !!python/object:os.system 1}", "no YAML of plain values"),
        ("}\n{", "no YAML of plain values"),
    ],
)
def test_problems_that_are_refused(tmp_path: Path, densities: str, said: str) -> None:
    assert said in refused(tmp_path, problem(tmp_path, densities))


def test_a_yaml_file_that_is_no_problem(tmp_path: Path) -> None:
    problem(tmp_path, "").write_text("[1, 2]")
    assert "has no problem of Timeloop in it" in refused(tmp_path, tmp_path / "body.conv.yaml")
