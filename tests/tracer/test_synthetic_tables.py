"""Synthetic traces of layer tables: which inputs have zeros, what causal masks hide, what else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.policies import Dense, RigL, SwatU
from swatsim.tracefile import Step, open_trace
from swatsim.tracer.synthetic import synthesize
from swatsim.tracer.synthetic_work import other_works
from swatsim.workload import flops, tape, transformers
from swatsim.workload.builder import Builder
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.networks import network
from swatsim.workload.tables import Network
from swatsim.workload.transformers import Sizes

SMALL = Sizes(2, 24, 3, 40, 10, 50)
RELU = replace(SMALL, activation="relu")


def built(forward: Any, *sizes: Sizes, optimizer: str = "adamw") -> Network:
    builder = Builder()
    forward(builder, *sizes)
    return builder.build("small", "", optimizer)


def drawn(table: Network, path: Path, **options: Any) -> Step:
    given: dict[str, Any] = {"policy": Dense(), "batch": 2, "seed": 1} | options
    return synthesize(table, path / "t", **given).step(0)


def densities(step: Step, op: str, operand: str) -> dict[str, float]:
    return {
        it.layer: it.ones / it.elements
        for it in step.records
        if (it.op, it.operand) == (op, operand)
    }


def test_masks_and_ids_of_tables_without_transformers_are_those_of_ever(tmp_path: Path) -> None:
    options: dict[str, Any] = {"policy": SwatU(0.8), "batch": 1, "seed": 3, "uneven": True}
    table = network("resnet8")
    layers = synthesize(table.layers, tmp_path / "layers", **options)
    assert layers.id == "9e0dec3706a39baa"  # as before tables knew what is dense
    whole = synthesize(table, tmp_path / "table", **options)
    pairs = zip(layers.step(0).records, whole.step(0).records, strict=True)
    assert all(one == other for one, other in pairs)
    assert layers.step(0).others is None


def test_zeros_are_behind_a_relu_alone(tmp_path: Path) -> None:
    found = densities(drawn(built(transformers.gpt2, RELU), tmp_path), "fprop", "act")
    for name, density in found.items():
        if name.endswith("mlp.c_proj"):
            assert density == pytest.approx(0.5, abs=0.05)
        elif name.endswith(".values"):
            assert density == pytest.approx(11 / 20)
        else:
            assert density == 1, name


@pytest.mark.parametrize("activation", ["gelu", "gated"])
def test_other_activations_make_none(tmp_path: Path, activation: Any) -> None:
    table = built(transformers.vit, replace(SMALL, activation=activation, patch=4, size=16))
    step = drawn(table, tmp_path)
    assert all(record.ones == record.elements for record in step.records)


def test_a_linear_bottleneck_is_dense(tmp_path: Path) -> None:
    names = ("features.1.conv.1", "features.2.conv.0.0", "features.2.conv.1.0")
    table = network("mobilenet-v2")
    some = replace(
        table, layers=(table.layers[0], *(it for it in table.layers if it.name in names))
    )
    found = densities(drawn(some, tmp_path, batch=1), "fprop", "act")
    assert [round(found[name], 1) for name in names] == [0.5, 1, 0.5]


def triangle(layer: Layer, first: bool) -> np.ndarray:
    """By hand: query i sees keys 0 to i, in each head of each of two samples; maybe but for 0."""
    seen = [[key <= query and (first or query > 0) for query in range(10)] for key in range(10)]
    return np.tile(np.array(seen), (2, layer.groups, 1))[..., None]


def test_a_causal_mask_hides_what_is_above_the_diagonal_in_all_six_ops(tmp_path: Path) -> None:
    table = built(transformers.llama, replace(SMALL, activation="gated"))
    step = drawn(table, tmp_path, policy=SwatU(0.5))
    products = [it for it in table.layers if it.multiplies_activations]
    assert [(it, op) for it, op in step.ops() if it in products] == [
        (it, op) for it in products for op in OPERANDS_OF
    ]
    for scores, values in zip(products[::2], products[1::2], strict=True):
        for layer, operand in ((scores, "grad_out"), (values, "act")):
            for record in (it for it in step.records if it.layer == layer.name):
                mask = step.mask(*record.key)
                # a softmax of one value has no gradient: as it is read, not as it is wanted
                first = layer is values or record.op == "fprop"
                wanted = triangle(layer, first) if record.operand == operand else True
                assert (mask == wanted).all(), record.key
        assert [step.output(scores.name, op) is None for op in OPERANDS_OF] == [False, True, True]
        assert [step.output(values.name, op) is None for op in OPERANDS_OF] == [True, False, True]
        for op in OPERANDS_OF:  # 10 x 11 / 2 of 10 x 10, 2 samples, 3 heads, depth 8
            for layer in (scores, values):
                pairs = 54 if layer is scores and op != "fprop" else 55
                assert flops.macs_effectual(step.op(layer, op)) == 2 * 3 * pairs * 8


def test_gradients_of_products_have_zeros_too(tmp_path: Path) -> None:
    step = drawn(built(transformers.gpt2, SMALL), tmp_path, grad_density=0.5)
    found = densities(step, "dgrad", "grad_out")
    assert found["transformer.h.0.attn.values"] == pytest.approx(0.5, abs=0.1)
    assert found["transformer.h.0.attn.scores"] == pytest.approx(0.55 / 2, abs=0.05)


def test_the_first_layer_has_a_dgrad_if_it_reads_an_embedding(tmp_path: Path) -> None:
    for name, forward, sizes in (
        ("transformer.h.0.attn.c_attn", transformers.gpt2, SMALL),
        ("conv_proj", transformers.vit, replace(SMALL, patch=4, size=16)),
    ):
        step = drawn(built(forward, sizes), tmp_path / name)
        ops = [op for layer, op in step.ops() if layer.name == name]
        assert ops == ["fprop", *["dgrad"] * (name != "conv_proj"), "wgrad"]


# ---- what else -----------------------------------------------------------------------------------


def works(table: Network, phase: str, batch: int = 2) -> list[tuple[Any, ...]]:
    noted = other_works(table, batch)
    assert noted is not None
    return [
        (it.module, it.name, it.operations[0].elements, it.read, it.written, it.times)
        for it in noted
        if it.phase == phase
    ]


def test_what_a_small_convolutional_network_does_by_hand() -> None:
    def forward(b: Builder) -> None:
        x = b.relu("relu", b.normed("conv norm", tape.image(3, 4), 5))
        y = b.relu("relu_1", b.normed("block.conv block.norm", x, 5))
        y = b.max_pool("pool", b.add("block.add", y, x), 2, 2, 0)
        b.loss(b.linear("fc", b.mean("mean", y), 7))

    table = built(forward, optimizer="sgd")
    whole, pooled = 2 * 80 * 4, 2 * 20 * 4
    assert works(table, "forward") == [
        ("norm", "native_batch_norm", 160, whole + 80, whole + 40, 1),
        ("norm", "add_", 1, 8, 8, 1),
        ("relu", "relu", 160, whole, whole, 2),
        ("block.norm", "native_batch_norm", 160, whole + 80, whole + 40, 1),
        ("block.norm", "add_", 1, 8, 8, 1),
        ("block", "add", 160, 2 * whole, whole, 1),
        ("pool", "max_pool2d_with_indices", 160, whole, 3 * pooled, 1),
        ("mean", "mean", 40, pooled, 2 * 5 * 4, 1),
        ("", "_log_softmax", 14, 2 * 7 * 4, 2 * 7 * 4, 1),
        ("", "nll_loss_forward", 2, 2 * 4 + 2 * 8, 2 * 4, 1),
    ]
    assert works(table, "backward") == [
        ("", "nll_loss_backward", 14, 2 * 4 + 2 * 8, 2 * 7 * 4, 1),
        ("", "_log_softmax_backward_data", 14, 2 * 2 * 7 * 4, 2 * 7 * 4, 1),
        ("fc", "sum", 14, 2 * 7 * 4, 7 * 4, 1),
        ("mean", "div", 40, 2 * 5 * 4, pooled, 1),
        ("pool", "max_pool2d_with_indices_backward", 160, 3 * pooled, whole, 1),
        ("", "add", 160, 2 * whole, whole, 1),  # of the ReLU's output, which two read
        ("relu", "threshold_backward", 160, 2 * whole, whole, 2),
        ("block.norm", "native_batch_norm_backward", 160, 2 * whole + 100, whole + 40, 1),
        ("norm", "native_batch_norm_backward", 160, 2 * whole + 100, whole + 40, 1),
    ]
    values = 4 * (135 + 10 + 225 + 10 + 35 + 7)
    assert table.parameters == values // 4
    assert works(table, "optimizer") == [
        ("", "add", values // 4, 2 * values, values, 1),
        ("", "mul_+add_+add_", values // 4, 3 * values, 2 * values, 1),
    ]


def test_what_a_block_of_a_transformer_does_by_hand() -> None:
    table = built(transformers.llama_block, replace(SMALL, activation="gated"))
    tokens, inner, row, angles = (4 * n for n in (2 * 10 * 24, 2 * 10 * 40, 2 * 10, 10 * 8))
    own, mlp, norm = "model.layers.0.self_attn", "model.layers.0.mlp", 24 * 4
    assert works(table, "forward") == [
        ("model.layers.0.input_layernorm", "_fused_rms_norm", 480, tokens + norm, tokens + row, 1),
        (own, "rotary", 480, tokens + 2 * angles, tokens, 2),
        (own, "softmax", 2 * 3 * 55, 0, 0, 1),
        ("model.layers.0", "add", 480, 2 * tokens, tokens, 2),
        (
            "model.layers.0.post_attention_layernorm",
            *("_fused_rms_norm", 480, tokens + norm, tokens + row, 1),
        ),
        (f"{mlp}.act_fn", "silu", 800, inner, inner, 1),
        (mlp, "mul", 800, 2 * inner, inner, 1),
    ]
    backward = works(table, "backward")
    assert (own, "softmax+softmax_backward", 2 * 3 * 55, 0, 0, 1) in backward
    assert (mlp, "mul", 800, 2 * inner, inner, 2) in backward
    # q, k and v read one norm, gate and up another, a branch and a sum what comes before each
    assert sum(it[-1] for it in backward if it[1] == "add") == 2 + 1 + 2 * 1
    n = 4 * table.parameters
    assert works(table, "optimizer") == [
        ("", "mul_", n // 4, n, n, 1),
        ("", "lerp_", n // 4, 2 * n, n, 1),
        ("", "mul_+addcmul_+sqrt+div+add_+addcdiv_", n // 4, 4 * n, 2 * n, 1),
    ]


def test_a_trace_of_a_table_has_all_that_and_the_policys_own(tmp_path: Path) -> None:
    table = built(transformers.gpt2, SMALL)
    step = drawn(table, tmp_path, policy=RigL(0.5, every=4))
    assert step.others is not None
    noted = other_works(table, 2)
    assert noted is not None
    assert [*step.others[: len(noted)]] == noted
    policy = step.others[len(noted) :]
    assert {it.phase for it in policy} == {"policy"}
    products = {it.name for it in table.layers if it.multiplies_activations}
    assert {it.module for it in policy}.isdisjoint(products)
    assert open_trace(tmp_path / "t").step(0).others == step.others
    whole = [it for it in noted if it.phase == "optimizer"]
    assert not any(it.grows_with_batch for it in whole)
