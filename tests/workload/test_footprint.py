"""What is kept, by hand for a small network, and against SWAT's published reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from swatsim.errors import WorkloadError
from swatsim.policies import Site, SwatU
from swatsim.tracefile import open_trace
from swatsim.tracer.synthetic import synthesize
from swatsim.workload import flops, footprint
from swatsim.workload.footprint import Footprint, Row, reduction
from swatsim.workload.layer import OPS, Layer, Operand
from swatsim.workload.networks import network
from swatsim.workload.tables import VALUES, Network, Saved
from swatsim.workload.work import Extent
from tests.traces import LAYERS, make_trace

TRACE = Path(__file__).parents[2] / "traces" / "resnet8-fashion-mnist-swat-u-80"

#: conv -> batch norm -> ReLU -> max pooling 2x2 -> linear; the ReLU is read by a second conv, too.
TINY = Network(
    "tiny",
    "made up",
    (
        Layer(name="conv", C=3, K=5, H=4, W=4, R=3, S=3, padding=1),
        Layer(name="side", C=5, K=2, H=4, W=4),
        Layer(name="fc", kind="linear", C=20, K=7),
    ),
    (
        Saved("bn", "batch_norm", 5, 4, 4, "conv"),
        Saved("bn", "statistics", 0, 1, 1, "bn.statistics", fixed=10),
        Saved("relu", "relu", 5, 4, 4, "relu"),
        Saved("pool", "max_pool", 5, 4, 4, "relu"),
        Saved("pool", "max_pool_indices", 5, 2, 2, "pool.indices"),
        Saved("drop", "dropout", 5, 2, 2, "drop.mask"),
    ),
    inputs={"conv": "input", "side": "relu", "fc": "drop"},
)


SHARED_IF_DENSE = {
    **{f"{name} weight": "parameter" for name in ("conv", "side", "fc")},
    **{"relu output": "side act", "pool input": "side act"},
}


def swat_u(table: Network, sparsity: float) -> Callable[[Layer, Operand], Fraction | None]:
    policy = SwatU(sparsity)

    def density(layer: Layer, operand: Operand) -> Fraction | None:
        op = "wgrad" if operand == "act" else "dgrad"
        return policy.density(Site(layer, op, operand, first_convolution=layer == table.layers[0]))

    return density


def sizes(found: Footprint) -> dict[str, int]:
    return {f"{row.layer} {row.tensor}": row.bytes for row in found.rows}


def shares(found: Footprint) -> dict[str, str]:
    return {f"{row.layer} {row.tensor}": row.shares for row in found.rows if row.shares}


def test_a_dense_step_by_hand() -> None:
    found = footprint.of_network(TINY, batch=2)
    assert sizes(found) == {
        "conv act": 2 * 48 * 4,
        "conv weight": 5 * 27 * 4,
        "side act": 2 * 80 * 4,
        "side weight": 10 * 4,
        "fc act": 2 * 20 * 4,
        "fc weight": 140 * 4,
        "bn input": 2 * 80 * 4,
        "bn statistics": 10 * 4,  # of the batch, not of each sample
        "relu output": 2 * 80 * 4,
        "pool input": 2 * 80 * 4,
        "pool indices": 2 * 20 * 8,
        "drop mask": 2 * 20,
    }
    assert shares(found) == SHARED_IF_DENSE
    assert found.activations == 2 * 4 * (48 + 80 + 20 + 80)
    assert found.weights == 4 * (135 + 10 + 140)
    rest = 40 + 2 * 20 * 8 + 2 * 20
    assert found.everything == found.activations + rest


def test_top_k_makes_copies_so_that_a_relu_keeps_its_own() -> None:
    found = footprint.of_network(TINY, swat_u(TINY, 0.75), batch=2, format="bitmask", dtype="bf16")
    assert sizes(found)["conv act"] == 2 * 48 * 2  # the first convolution is dense
    assert sizes(found)["side act"] == 40 * 2 + 160 // 8
    assert sizes(found)["fc weight"] == 35 * 2 + 18
    assert sizes(found)["bn statistics"] == 10 * 4
    assert shares(found) == {"pool input": "relu output", "conv weight": "parameter"}
    assert shares(footprint.of_network(TINY, swat_u(TINY, 0))) == SHARED_IF_DENSE


def test_bits_do_for_a_relu_whose_output_nothing_else_keeps() -> None:
    dense = footprint.of_network(TINY, relu_bits=True)
    assert shares(dense)["relu output"] == "side act"
    without = Network("", "", TINY.layers, TINY.saved[:3], inputs=TINY.inputs)
    found = footprint.of_network(without, swat_u(TINY, 0.5), relu_bits=True)
    (relu,) = (row for row in found.rows if row.kind == "relu")
    assert (relu.dtype, relu.bytes, relu.shares) == ("bit", 10, "")


def test_what_a_network_says_of_its_tensors() -> None:
    """Parts of tensors, types, what does not grow with the batch, inputs that are not kept."""
    fc, frozen = Layer(name="fc", kind="linear", C=4, K=2), Layer(name="f", kind="linear", C=4, K=4)
    saved = (
        Saved("norm", "layer_norm", 3, 4, 1, "tokens", module="norm"),
        Saved("norm", "statistics", 6, 1, 1, "norm.statistics", module="norm"),
        Saved("wpe", "embedding", 0, 1, 1, "positions", "indices", "int64", 3, "wpe"),
        Saved("drop", "dropout", 3, 4, 1, "mask", dtype=VALUES, module="drop"),
    )
    table = Network(
        "parts",
        "made up",
        (frozen, fc),
        saved,
        inputs={"fc": "tokens"},
        extents={"tokens": Extent(12)},
        modules={"fc": "head", "f": "f"},
    )
    found = footprint.of_network(table, batch=2, dtype="bf16")
    assert sizes(found) == {
        "f weight": 4 * 4 * 2,
        "fc act": 2 * 12 * 2,
        "fc weight": 2 * 4 * 2,
        "norm input": 2 * 12 * 2,
        "norm statistics": 2 * 6 * 4,
        "wpe indices": 3 * 8,
        "drop mask": 2 * 12 * 2,
    }
    assert found.everything == 48 + 48 + 24 + 48
    assert [row.module for row in found.rows] == ["f", "head", "head", *["norm"] * 2, "wpe", "drop"]
    copied = footprint.of_network(table, lambda *_: 0.5, batch=2)
    assert sizes(copied)["fc act"] == 2 * 2 * 4


def test_one_sample_may_be_kept_otherwise() -> None:
    alone = replace(TINY, saved=TINY.saved[:1])
    table = replace(TINY, alone=alone)
    assert footprint.of_network(table) == footprint.of_network(alone)
    assert footprint.of_network(table, batch=2) == footprint.of_network(TINY, batch=2)


# ---- SWAT's published reductions ---------------------------------------------------------------

#: Sparsity -> change of the activations of ResNet-50, in percent, by SWAT's count: inputs of all 53
#: convolutions, of the linear layer and of all 53 batch norms; the first convolution's dense. With
#: it sparse the last were -44; the linear layer's 2048 values a sample make no difference.
PUBLISHED = {0.5: -24, 0.8: -39, 0.9: -43}


@pytest.mark.parametrize("sparsity", PUBLISHED)
@pytest.mark.parametrize("batch", [1, 32])
def test_published_reductions_of_resnet50(sparsity: float, batch: int) -> None:
    table = network("resnet50")
    dense = footprint.of_network(table, batch=batch)
    found = footprint.of_network(table, swat_u(table, sparsity), batch=batch)
    assert round(-100 * reduction(found.activations, dense.activations)) == PUBLISHED[sparsity]
    # "up to" the sparsity: the first convolution's weights, 1 in 2700, are dense
    assert 0 < sparsity - reduction(found.weights, dense.weights) < 0.0005
    half = footprint.of_network(table, swat_u(table, sparsity), batch=batch, dtype="bf16")
    assert half.activations * 2 == found.activations


def test_metadata_costs_what_it_must() -> None:
    table = network("resnet50")
    order = ("values", "bitmask", "csr", "dense")
    found = [footprint.of_network(table, swat_u(table, 0.8), format=name) for name in order]
    activations = [it.activations for it in found]
    assert activations == sorted(activations)
    elements = sum(row.elements for row in found[0].rows if row.kind == "act" and row.density < 1)
    assert found[1].of("act") - found[0].of("act") == pytest.approx(elements / 8, abs=100)
    assert found[3].activations == footprint.of_network(table).activations


# ---- from masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["values", "bitmask", "csr"])
def test_trace_and_table_agree(format: str) -> None:
    """Where Top-K found no natural zero to leave out, the shipped trace has SWAT-U's densities."""
    table, step = network("resnet8"), open_trace(TRACE).step(0)
    exact = footprint.of_masks(step.kept(), network=table, format=format)
    densities = {(row.layer, row.tensor): row for row in exact.rows}

    def density(layer: Layer, operand: Operand) -> Fraction | None:
        row = densities[layer.name, operand]
        return None if row.format == "dense" else Fraction(row.density).limit_denominator(10**6)

    expected = footprint.of_network(table, density, batch=8, format=format)
    assert sizes(expected) == sizes(exact)
    assert shares(expected) == shares(exact)
    of_policy = footprint.of_network(table, swat_u(table, 0.8), batch=8, format=format)
    assert of_policy.weights == exact.weights
    assert of_policy.activations == pytest.approx(exact.activations, rel=0.05)


def test_run_length_of_a_trace_is_near_its_expectation() -> None:
    rng = np.random.default_rng(5)
    layer = Layer(name="x", C=16, K=8, H=32, W=32, R=3, S=3, padding=1)
    act, weight = rng.random((4, 16, 32, 32)) < 0.1, rng.random((8, 16, 3, 3)) < 0.1
    masks = [(layer, "act", act, True), (layer, "weight", weight, True)]
    exact = footprint.of_masks(masks, format="run-length")  # type: ignore[arg-type]
    table = Network("", "", (layer,), ())
    expected = footprint.of_network(table, lambda *_: act.mean(), batch=4, format="run-length")
    assert expected.activations == pytest.approx(exact.activations, rel=0.01)


def test_a_trace_alone_has_layers_only(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    found = footprint.of_masks(trace.step(7).kept())
    kept = [(row.layer, row.tensor) for row in found.rows]
    assert kept == [(layer.name, tensor) for layer in LAYERS for tensor in ("act", "weight")]
    for row in found.rows:
        mask = trace.step(7).mask(
            row.layer, "wgrad" if row.tensor == "act" else "fprop", row.tensor
        )
        assert (row.elements, row.bytes) == (mask.size, 4 * mask.sum())


def test_an_act_that_no_policy_made_is_the_relus() -> None:
    ones = {layer.name: np.ones(layer.shape_of("act", 2), bool) for layer in TINY.layers}
    masks = [(layer, "act", ones[layer.name], False) for layer in TINY.layers]
    found = footprint.of_masks(masks, network=TINY)  # type: ignore[arg-type]
    assert shares(found) == {"relu output": "side act", "pool input": "side act"}


# ---- bad input ---------------------------------------------------------------------------------


def test_what_is_not_allowed_is_refused() -> None:
    for batch in (0, -1, 1.5, True):
        with pytest.raises(WorkloadError, match="batch="):
            footprint.of_network(TINY, batch=batch)  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match="unknown format 'cs'"):
        footprint.of_network(TINY, format="cs")
    with pytest.raises(WorkloadError, match="unknown value type"):
        footprint.of_masks([], dtype="fp48")
    with pytest.raises(WorkloadError, match=r"layer 'conv', act: .*density=1.5"):
        footprint.of_network(TINY, lambda *_: 1.5)
    with pytest.raises(WorkloadError, match=r"layer 'conv', act: a density of 0.75 can't obey 2:4"):
        footprint.of_network(TINY, lambda *_: 0.75, format="2:4")


def test_masks_that_do_not_fit_are_refused() -> None:
    layer = TINY.layers[0]
    act = np.zeros(layer.shape_of("act", 1), bool)
    with pytest.raises(WorkloadError, match="act mask is"):
        footprint.of_masks([(layer, "act", act[:, :2], True)])
    with pytest.raises(WorkloadError, match="layer 'side' of the masks is .missing."):
        footprint.of_masks([(layer, "act", act, True)], network=TINY)
    with pytest.raises(WorkloadError, match="layer 'conv' of the masks is"):
        footprint.of_masks([(layer, "act", act, True)], network=network("resnet8"))
    act[0, :3] = True
    with pytest.raises(WorkloadError, match="layer 'conv', act: its mask does not obey 2:4"):
        footprint.of_masks([(layer, "act", act & (np.arange(4) < 3), True)], format="2:4")


def test_reduction_of_nothing_is_none() -> None:
    assert reduction(0, 0) == 0
    assert Footprint(()).everything == 0
    assert Footprint((Row("a", "act", "act", 1, 1.0, "dense", "fp32", 4),)).activations == 4


#: One head pair of attention: q and k of their own, v a part of a tensor; 2 heads, 4 rows, depth 3.
ATTENTION = Network(
    "attention",
    "made up",
    (
        Layer(name="q", C=6, K=6, H=4),
        Layer(name="a.scores", kind="matmul", C=6, K=8, H=4, groups=2),
        Layer(name="a.values", kind="matmul", C=8, K=6, H=4, groups=2),
    ),
    (Saved("a", "attention", 6, 4, 1, "a"), Saved("a", "logsumexp", 2, 4, 1, "a.logsumexp")),
    inputs={"q": "x", "a.scores": "q"},
    rights={"a.scores": "k", "a.values": "kv"},
    extents={"kv": Extent(2 * 24)},
    modules={"a.scores": "a", "a.values": "a"},
)


def test_a_fused_kernel_of_attention_keeps_its_factors_and_no_probabilities() -> None:
    found = footprint.of_network(ATTENTION, swat_u(ATTENTION, 0.75), batch=5)
    assert sizes(found) == {
        "q act": 5 * 24 * 4,  # the first convolution is dense
        "q weight": 36 * 4,
        "a.scores left": 5 * 24 * 4,
        "a.scores right": 5 * 24 * 4,
        "a.values right": 5 * 48 * 4,  # no policy drops anything of them
        "a output": 5 * 24 * 4,
        "a logsumexp": 5 * 8 * 4,
    }
    assert found.weights == 36 * 4
    assert found.activations == 4 * 5 * (24 + 24 + 24 + 48)
    assert found.everything == found.activations + 4 * 5 * (24 + 8)
    whole = replace(ATTENTION, extents={}, saved=(Saved("a", "attention", 12, 4, 1, "kv"),))
    rows = {f"{it.layer} {it.tensor}": it for it in footprint.of_network(whole).rows}
    assert (rows["a.values right"].bytes, rows["a.values right"].shares) == (24 * 4, "a output")
    assert (rows["a output"].bytes, rows["a output"].shares) == (48 * 4, "")
    assert ATTENTION.parameters == 36
    assert ATTENTION.macs == 36 * 4 + 2 * 2 * 4 * 4 * 3


def test_a_trace_of_attention_has_both_factors_of_both_products(tmp_path: Path) -> None:
    trace = synthesize(
        replace(ATTENTION, causal={"a.scores": "grad_out", "a.values": "act"}),
        tmp_path / "t",
        policy=SwatU(0.5),
        batch=2,
        seed=0,
    )
    found = footprint.of_masks(trace.step(0).kept(), format="values")
    causal = 2 * 2 * (4 + 3 + 2 + 1) * 4
    assert sizes(found) | {"q act": 0} == {
        **{"q act": 0, "q weight": 36 * 4},
        **{"a.scores left": 2 * 24 * 4, "a.scores right": 2 * 24 * 4},
        **{"a.values left": causal, "a.values right": 2 * 24 * 4},
    }
    assert found.weights == 36 * 4


@pytest.mark.parametrize("convention", flops.CONVENTIONS)
def test_products_of_activations_count_alike_under_both_conventions(
    convention: flops.Convention,
) -> None:
    """By hand: 2 heads x 4 queries x 4 keys x depth 3, of each sample; and nothing is padding."""
    for layer in ATTENTION.layers[1:]:
        assert flops.macs_unpadded(layer, 5) == 5 * 96
        for op in OPS:
            assert flops.macs_dense(layer, 5, op, convention) == 5 * 96
    first = 2 if convention == "exact" else 3
    assert flops.training_macs(ATTENTION, 5, convention=convention) == 5 * (
        first * 36 * 4 + 2 * 3 * 96
    )
    embedded = replace(ATTENTION, embedded=True)
    whole = flops.training_macs(embedded, 5, convention=convention)
    assert whole == 3 * flops.macs_dense(ATTENTION.layers[0], 5) + 5 * 2 * 3 * 96
