"""What holds for every policy: the same bits in NumPy and torch, resumed runs, edges, refusals."""

from __future__ import annotations

import configparser
import copy
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.errors import PolicyError
from swatsim.policies import (
    POLICIES,
    SET,
    SNFS,
    Bdwp,
    ByScore,
    Dense,
    MeProp,
    Mvue,
    Periodic,
    Phased,
    Policy,
    RigL,
    Site,
    Slope,
    SRigL,
    SrSte,
    StaticRandom,
    SwatErk,
    SwatM,
    SwatStructured,
    SwatU,
    TopKast,
    Transposable,
    Uniform,
    View,
    Vnm,
    begin_run,
)
from swatsim.policies.method import PolicyValue
from swatsim.workload.layer import Layer
from tests.policies import mistyped
from tests.policies.driver import LAYERS, Array, Run, levels, normal, same
from tests.policies.mistyped import REFUSED

ROOT = Path(__file__).parents[2]


def taylor(it: View) -> Array:
    return abs(it.values * it.gradient)


def policies(sparsity: float = 0.7) -> dict[str, Policy]:
    """One of each, and of those with a state some more."""
    s = sparsity
    plenty = {"uses_gradient": True, "every": 2, "trains": "kept"}
    kast = {"backward_sparsity": s / 2, "penalty": 0.25}
    made = [
        Dense(),
        SwatU(s),
        SwatErk(s),
        SwatM(s, every=2),
        SwatStructured(s),
        SwatStructured(s, unit="filter"),
        Periodic(SwatU(s), 3, 2),
        Periodic(SwatErk(s), 2),
        Periodic(SwatM(s, every=2), 3),
        Periodic(SwatStructured(s), 3),
        Periodic(TopKast(s, **kast), 3),
        Periodic(ByScore(taylor, s, uses_gradient=True), 3),
        Phased([(0, Dense()), (2, Periodic(SwatU(s), 3)), (5, SET(s, every=2))]),
        StaticRandom(s),
        SET(s, every=2, fraction=0.4),
        RigL(s, every=2, fraction=0.4, until=7),
        SRigL(s, every=2, fraction=0.4, until=7, salient=0.6),
        SNFS(s, every=2, fraction=0.4),
        TopKast(s, **kast),
        TopKast(s, every=3, allocation="erk", **kast),
        MeProp(s),
        MeProp(s, unified=True),
        Mvue(1, 2),
        Mvue(2, 4, seed=3),
        SrSte(2, 4, decay=0.25),
        Bdwp(2, 4, decay=0.25),
        Slope(2, 4),
        Vnm(2, 5, v=4, first_conv_dense=False, decay=0.25),
        Slope(1, 3, first_conv_dense=False),
        Transposable(2, every=3, decay=0.25),
        Transposable(2, 6, first_conv_dense=False),
        ByScore(taylor, s, granularity="filter", **plenty),
        ByScore(taylor, s, granularity="2:4", **plenty),
        ByScore(taylor, s, granularity="3:1:4", **plenty),
        ByScore(taylor, s, granularity="block:2x3", **plenty),
        ByScore(taylor, s, allocation="erk", **plenty),
        ByScore(abs_of, s, of=("act", "grad_out"), every=3, holds="threshold"),
    ]
    return {f"{index}-{type(it).__name__}": it for index, it in enumerate(made)}


def abs_of(it: View) -> Array:
    return abs(it.values)


ALL = policies()


def now_and_then(layer: str, step: int) -> int:
    """Some layers run twice, one is not used at first, one not all the time."""
    return {"deep": 2, "wide": step % 3, "grouped": step > 2}.get(layer, 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("draw", [levels, normal])
def test_numpy_and_torch_give_the_same_bits(name: str, draw: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    options = {"draw": draw, "runs": now_and_then, "seed": 3}
    mine, its = Run(ALL[name], **options), Run(ALL[name], torch=torch, **options)
    same(mine.go(8), its.go(8))
    assert mine.sparsifier.report() == its.sparsifier.report()


def rebuilt(state: Any) -> Any:
    """Copy a state leaf by leaf, as a file would; it has dicts, numbers, words and arrays only."""
    if isinstance(state, dict):
        return {key: rebuilt(value) for key, value in state.items()}
    if state is None or isinstance(state, int | float | str):
        return state
    assert hasattr(state, "shape"), type(state)
    return copy.deepcopy(state)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("runs", [None, now_and_then])
def test_an_interrupted_run_goes_on(name: str, runs: Any) -> None:
    options = {"seed": 5, "frozen": ("fc",)} | ({"runs": runs} if runs else {})
    whole = Run(ALL[name], **options)
    expected = whole.go(9)
    run = Run(ALL[name], **options)
    for steps in (1, 3, 1):
        same(run.go(steps), expected[run.step - steps : run.step])
        later = run.interrupted()
        later.sparsifier = begin_run(later.policy)
        later.sparsifier.load(rebuilt(run.sparsifier.state()))
        same(later.go(9 - run.step), expected[run.step :])
        assert later.sparsifier.report() == whole.sparsifier.report()


@pytest.mark.parametrize("name", ALL)
def test_an_interrupted_run_of_torch_goes_on(name: str) -> None:
    torch = pytest.importorskip("torch")
    run = Run(ALL[name], torch=torch)
    run.go(3)
    later = run.interrupted()
    same(run.go(5), later.go(5))


@pytest.mark.parametrize("name", ALL)
def test_runs_are_repeatable_and_share_nothing(name: str) -> None:
    first, second = Run(ALL[name]), Run(ALL[name])
    together = [(first.go(1)[0], second.go(1)[0]) for _ in range(4)]
    same([one for one, _ in together], [other for _, other in together])


@pytest.mark.parametrize("name", ALL)
def test_describe_is_json(name: str) -> None:
    found = ALL[name].describe()
    assert json.loads(json.dumps(found)) == found
    run = Run(ALL[name])
    run.go(5)
    report = run.sparsifier.report()
    assert json.loads(json.dumps(report)) == report


def test_every_policy_by_name_is_tried() -> None:
    names = {policy.describe()["name"] for policy in ALL.values()}
    assert set(POLICIES) | {"periodic", "phased"} <= names


# ---- edges -------------------------------------------------------------------------------------

TINY = (
    Layer(name="a", C=1, K=1),
    Layer(name="b", C=4, K=8, H=2, W=2, R=2, S=2, groups=4),
    Layer(name="c", kind="linear", C=2, K=1),
)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sparsity", [0, 0.999])
def test_extreme_sparsities(name: str, sparsity: float) -> None:
    for seen in Run(policies(sparsity)[name], TINY).go(6):
        for key, mask in seen.masks.items():
            if (
                mask is not None
                and sparsity == 0
                and not isinstance(ALL[name], SrSte | Slope | Mvue)
                and ":" not in str(ALL[name].describe())
            ):
                values = seen.read[key[0], key[1], key[3]]
                assert mask[values != 0].all()
        assert all(np.isfinite(weight).all() for weight in seen.weights.values())


@pytest.mark.parametrize("name", ALL)
def test_layers_of_one_weight(name: str) -> None:
    layers = (Layer(name="a", C=1, K=1), Layer(name="b", kind="linear", C=1, K=1))
    for seen in Run(ALL[name], layers, draw=lambda rng, shape: np.ones(shape, "f")).go(6):
        for mask in seen.masks.values():
            assert mask is None or mask.any() or "Transposable" in name


@pytest.mark.parametrize("name", ALL)
def test_nothing_but_zeros(name: str) -> None:
    torch = pytest.importorskip("torch")
    zeros = lambda rng, shape: np.zeros(shape, np.float32)  # noqa: E731
    mine = Run(ALL[name], draw=zeros).go(6)
    same(mine, Run(ALL[name], draw=zeros, torch=torch).go(6))
    for seen in mine:
        assert not any(weight.any() for weight in seen.weights.values())


@pytest.mark.parametrize("name", ALL)
def test_frozen_layers(name: str) -> None:
    seen = Run(ALL[name], frozen=[layer.name for layer in LAYERS]).go(5)
    assert all(not it.dense for it in seen)


@pytest.mark.parametrize("name", ALL)
def test_evaluations_change_nothing(name: str) -> None:
    plain, disturbed = Run(ALL[name]), Run(ALL[name])
    expected = plain.go(6)
    for step in range(6):
        for layer in LAYERS if step else ():
            site = Site(layer, "fprop", "weight", layer.name == "first", step)
            (mask,) = disturbed.sparsifier.masks(
                [site], disturbed.weights[layer.name], training=False
            )
            wanted = expected[step].masks[layer.name, 1, "fprop", "weight"]
            assert (mask is None) == (wanted is None)
            assert mask is None or np.array_equal(mask, wanted)
        same(disturbed.go(1), expected[step : step + 1])
    assert plain.sparsifier.report() == disturbed.sparsifier.report()


def of_any_size(layer: str, step: int) -> int:
    """An expert's tokens differ from step to step, and may be none."""
    return {"fc": (0, 5, 1, 0, 2), "wide": (3, 1, 7, 2, 0), "one": (1, 0, 1, 1, 0)}.get(
        layer, (3,) * 5
    )[step % 5]


@pytest.mark.parametrize("name", ALL)
def test_layers_seen_late_run_now_and_then_on_batches_of_any_size(name: str) -> None:
    """Nothing is raised, and a layer's state is its own: alone it goes the same way."""
    torch = pytest.importorskip("torch")
    options = {"runs": now_and_then, "batch": of_any_size, "late": ("grouped", "fc"), "seed": 8}
    mine = Run(ALL[name], draw=normal, **options)
    start = {layer: weight.copy() for layer, weight in mine.weights.items()}
    seen = mine.go(11)
    same(seen, Run(ALL[name], draw=normal, torch=torch, **options).go(11))
    for it in seen:
        for key, mask in it.masks.items():
            assert mask is None or mask.shape == it.read[key[0], key[1], key[3]].shape
    if isinstance(ALL[name], SNFS | SwatM) or "SwatM" in str(ALL[name]):
        return  # they share out among layers
    for layer in ("fc", "deep"):
        only = [each for each in LAYERS if each.name == layer]
        own = Run(mine.policy, only, draw=normal, weights={layer: start[layer]}, **options)
        own.first = "first"
        for whole, alone in zip(seen, own.go(11), strict=True):
            for key, mask in alone.masks.items():
                assert (mask is None) == (whole.masks[key] is None)
                assert mask is None or np.array_equal(mask, whole.masks[key])


@pytest.mark.parametrize("name", ALL)
def test_a_layer_that_is_pruned_in_mid_training(name: str) -> None:
    """Channels are taken out of it, between two steps: it goes on as a layer of its new shape."""
    before = Layer(name="a", C=8, K=8, R=3, S=3, H=4, W=4)
    after = Layer(name="a", C=6, K=4, R=3, S=3, H=4, W=4)
    run = Run(ALL[name], (Layer(name="first", C=3, K=4), before), draw=normal)
    run.go(4)
    run.layers = (run.layers[0], after)
    run.weights["a"] = run.weights["a"][:4, :6].copy()
    for seen in run.go(5):
        mask = seen.masks["a", 1, "fprop", "weight"]
        assert mask is None or mask.shape == (4, 6, 3, 3)


# ---- refusals ----------------------------------------------------------------------------------

KINDS = [kind for kind in POLICIES.values() if "sparsity" in kind.model_fields]
WRONG_SPARSITIES = (1, -0.1, 80, float("nan"), float("inf"), "0.5", None, True, [0.5], 1j)


@pytest.mark.parametrize("kind", KINDS)
def test_sparsities_that_are_refused(kind: Any) -> None:
    for sparsity in WRONG_SPARSITIES:
        with pytest.raises(PolicyError) as caught:
            kind(sparsity)
        assert f"{kind.__name__}: sparsity={sparsity!r}" in str(caught.value)
        assert "must be a number in [0, 1)" in str(caught.value)
        assert "\n" not in str(caught.value)


COUNTS: tuple[Any, ...] = (0, -1, 1.5, "often", "7", float("nan"), [2], False)
NOT_NONE: tuple[Any, ...] = (*COUNTS, None)
SHARES: tuple[Any, ...] = (0, 1, -0.1, "some", "0.5", float("nan"), None, float("inf"))
AT_LEAST_0: tuple[Any, ...] = (-0.1, "some", float("nan"), None, float("inf"))
FLAGS: tuple[Any, ...] = ("perhaps", None, 3, float("nan"))
#: What no policy takes, by parameter. A policy with a parameter of another name needs a line.
WRONG: dict[str, tuple[Any, ...]] = {
    "allocation": ("even", None, 3, True, ["erk"], Uniform),
    "backward_sparsity": (1, -0.1, "0.5", None, True),
    "decay": AT_LEAST_0,
    "every": NOT_NONE,
    "first_conv_dense": FLAGS,
    "fraction": SHARES,
    "m": (*NOT_NONE, 65),
    "n": (*NOT_NONE, 65),
    "penalty": AT_LEAST_0,
    "salient": (1.1, -0.1, "some", float("nan"), None, float("inf")),
    "seed": (-1, 1.5, "x", None, float("nan")),
    "smoothing": (1, -0.1, "some", float("nan"), None),
    "unified": FLAGS,
    "unit": ("channels", None, 3),
    "until": COUNTS,
    "v": (*NOT_NONE, 4097),
}


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [(it, name) for it in POLICIES.values() for name in it.model_fields if name != "sparsity"],
)
def test_parameters_that_are_refused(kind: Any, parameter: str) -> None:
    given = {"sparsity": 0.8} if kind in KINDS else {}
    for wrong in WRONG[parameter]:
        with pytest.raises(PolicyError) as caught:
            kind(**given, **{parameter: wrong})
        words = str(caught.value)
        assert words.startswith(f"{kind.__name__}: {parameter}={wrong!r} is not allowed: ")
        assert len(words.partition("not allowed: ")[2]) > 5
        assert "\n" not in words


# ---- parameters that there are not -------------------------------------------------------------

NEEDED: dict[type[PolicyValue], dict[str, Any]] = {
    **{kind: {"sparsity": 0.8} for kind in KINDS},
    ByScore: {"score": abs_of, "sparsity": 0.8},
    Periodic: {"policy": SwatU(0.8), "every": 7},
}
EVERY: list[Any] = [*POLICIES.values(), ByScore, Periodic]


def misspelt(name: str) -> str:
    """Leave a letter out, or put one in."""
    middle = len(name) // 2
    return name[:middle] + name[middle + 1 :] if len(name) > 3 else name + name[-1]


@pytest.mark.parametrize("kind", EVERY)
def test_a_misspelt_parameter_is_refused_with_the_nearest_name(kind: Any) -> None:
    for name in kind.model_fields:
        with pytest.raises(PolicyError) as caught:
            kind(**NEEDED.get(kind, {}), **{misspelt(name): 3})
        start = f"{kind.__name__}: unknown parameter {misspelt(name)!r}: did you mean {name!r}? "
        assert str(caught.value).startswith(start)


@pytest.mark.parametrize("kind", EVERY)
def test_parameters_are_declared_once(kind: Any) -> None:
    shown = inspect.signature(kind).parameters
    assert shown.keys() == kind.model_fields.keys()
    own = kind.mro()[: kind.mro().index(PolicyValue)]
    assert not any("__init__" in vars(each) for each in own)
    in_order = [it.name for it in shown.values() if it.kind is it.POSITIONAL_OR_KEYWORD]
    assert in_order == list(shown)[: len(in_order)]
    needed = NEEDED.get(kind, {})
    assert list(needed) == in_order[: len(needed)]
    assert kind(*needed.values()) == kind(**needed)
    with pytest.raises(PolicyError, match=f"^{kind.__name__}: 9 parameters are given without"):
        kind(*range(9))


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    with pytest.raises(PolicyError, match="RigL: .*and sparsity once more: only sparsity can be"):
        RigL(0.9, sparsity=0.8)


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_type_checker_refuses_is_refused(what: str) -> None:
    with pytest.raises(PolicyError):
        REFUSED[what]()


def test_mypy_reads_what_it_has_to_refuse() -> None:
    """An ignored error that is none is an error of its own: so mypy has to see each."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert "tests/policies/mistyped.py" in settings["mypy"]["files"]
    assert settings["mypy"].getboolean("strict")  # it warns of ignores that are none
    lines = Path(mistyped.__file__).read_text().splitlines()
    tried = [line for line in lines if "lambda" in line and "# type: ignore[" in line]
    assert len(tried) == len(REFUSED)
