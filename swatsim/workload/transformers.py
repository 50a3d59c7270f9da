"""The forward passes of transformers, on a builder.

Attention is one kernel (Dao et al., NeurIPS 2022): it keeps q, k and v, and neither scores nor
probabilities, and drops none of these. Norms, rotary embeddings and activations are one kernel
each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from swatsim.workload.builder import Builder
from swatsim.workload.tape import Tensor, fixed, image

#: Of a transformer's MLP. gated: the SiLU of a linear layer, times another one. In a network whose
#: MLP is gated, the other two are the gate's, in the SiLU's place.
Activation = Literal["relu", "gelu", "gated"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


@dataclass(frozen=True)
class Sizes:
    """How large a transformer is, and its MLP's activation.

    Parameters
    ----------
    blocks, width, heads, inner : int
        `inner` is the features inside an MLP.
    tokens : int
        Of a sequence.
    vocabulary : int
        Rows of the embedding; of an image classifier, classes.
    activation : {"relu", "gelu", "gated"}
    patch, size : int
        Of images, in pixels.
    dropout : bool
        Whether residual branches are dropped out, as published.
    """

    blocks: int
    width: int
    heads: int
    inner: int
    tokens: int
    vocabulary: int
    activation: Activation = "gelu"
    patch: int = 16
    size: int = 224
    dropout: bool = True


VIT_B_16 = Sizes(12, 768, 12, 3072, 197, 1000)
BERT_BASE = Sizes(12, 768, 12, 3072, 128, 30522)
GPT2_SMALL = Sizes(12, 768, 12, 3072, 1024, 50257)
LLAMA_7B = Sizes(32, 4096, 32, 11008, 2048, 32000, "gated")

#: Positions that BERT and GPT-2 have embeddings of, however long a sequence is.
POSITIONS = {"bert": 512, "gpt2": 1024}


def _activated(b: Builder, name: str, x: Tensor, activation: Activation) -> Tensor:
    """Return the activation of a tensor."""
    functions: dict[Activation, Callable[[str, Tensor], Tensor]] = {
        "relu": b.relu,
        "gelu": b.gelu,
        "gated": b.silu,
    }
    return functions[activation](name, x)


def _mlp(b: Builder, sizes: Sizes, x: Tensor, first: str, activation: str, last: str) -> Tensor:
    """Run an MLP of two linear layers, called so; a gate is a third one, called after the first."""
    y = b.tokens(first, x, sizes.inner)
    if sizes.activation == "gated":
        gate = b.silu(activation, b.tokens(f"{first}_gate", x, sizes.inner))
        y = b.mul(f"{activation}.gated", gate, y)
    else:
        y = _activated(b, activation, y, sizes.activation)
    return b.tokens(last, y, sizes.width)


def _dropped(b: Builder, sizes: Sizes, name: str, x: Tensor) -> Tensor:
    return b.dropout(name, x) if sizes.dropout else x


# ---- ViT, as torchvision has it: no dropout ------------------------------------------------------


def vit(b: Builder, sizes: Sizes) -> None:
    """Run a vision transformer: the head reads the class token alone."""
    x = b.conv(
        "conv_proj", image(3, sizes.size), sizes.width, sizes.patch, sizes.patch, True, padding=0
    )
    x = _with_class_token(b, x)
    for i in range(sizes.blocks):
        x = _vit_block(b, sizes, f"encoder.layers.encoder_layer_{i}", x)
    b.loss(b.tokens("heads.head", _first(b, b.layer_norm("encoder.ln", x)), sizes.vocabulary))


def _first(b: Builder, x: Tensor) -> Tensor:
    """Return the first token, of a tensor that is kept whole."""
    b.extents[x.name] = x.extent
    return replace(x, H=1)


def _with_class_token(b: Builder, x: Tensor) -> Tensor:
    """Return the patches as tokens, one more before them, and a trained value added to each."""
    y = Tensor("encoder.add", x.C, x.H * x.W + 1)
    own, joined = fixed(y.C * y.H, "encoder.pos_embedding"), replace(y, name="cat")
    b.trained += y.C + y.C * y.H
    b.ahead("", "cat", [x.part, fixed(y.C)], [joined.part])
    b.ahead("encoder", "add", [joined.part, own], [y.part], elementwise=True)
    token = Tensor("", y.C)
    b.back("", "sum", [token.part], [fixed(y.C)])
    b.back("encoder", "sum", [y.gradient], [own])
    return y


def _vit_block(b: Builder, sizes: Sizes, name: str, x: Tensor) -> Tensor:
    own = f"{name}.self_attention"
    y = b.layer_norm(f"{name}.ln_1", x)
    y = _projected(b, own, y, sizes)
    x = b.add(f"{name}.add", b.tokens(f"{own}.out_proj", y, sizes.width), x)
    y = b.layer_norm(f"{name}.ln_2", x)
    y = _mlp(b, sizes, y, f"{name}.mlp.0", f"{name}.mlp.1", f"{name}.mlp.3")
    return b.add(f"{name}.add_1", x, y)


def _projected(b: Builder, name: str, x: Tensor, sizes: Sizes) -> Tensor:
    """Run the attention of nn.MultiheadAttention, whose q, k and v are made by one product."""
    for letter in "qkv":
        b.tokens(f"{name}.in_proj_{letter}", x, sizes.width, joint=letter != "q")
    whole = Tensor(f"{name}.in_proj", 3 * sizes.width, x.H)
    q, k, v = b.split(whole, 3)
    return b.attention(name, q, k, v, sizes.heads, causal=False)


# ---- BERT, as transformers' BertModel ------------------------------------------------------------


def bert(b: Builder, sizes: Sizes) -> None:
    """Run an encoder of tokens, with a pooler of the first."""
    C, T, own = sizes.width, sizes.tokens, "embeddings"
    word = b.embedding(f"{own}.word_embeddings", sizes.vocabulary, C, T)
    kind = b.embedding(f"{own}.token_type_embeddings", 2, C, T)
    place = b.embedding(f"{own}.position_embeddings", POSITIONS["bert"], C, T, positions=True)
    x = b.add(f"{own}.add_1", b.add(f"{own}.add", word, kind), place)
    x = _dropped(b, sizes, f"{own}.dropout", b.layer_norm(f"{own}.LayerNorm", x))
    for i in range(sizes.blocks):
        x = _bert_block(b, sizes, f"encoder.layer.{i}", x)
    b.tanh("pooler.activation", b.tokens("pooler.dense", _first(b, x), C))


def _bert_block(b: Builder, sizes: Sizes, name: str, x: Tensor) -> Tensor:
    own = f"{name}.attention"
    q, k, v = (b.tokens(f"{own}.self.{it}", x, sizes.width) for it in ("query", "key", "value"))
    y = b.attention(f"{own}.self", q, k, v, sizes.heads, causal=False)
    x = _bert_output(b, sizes, f"{own}.output", b.tokens(f"{own}.output.dense", y, sizes.width), x)
    activation = f"{name}.intermediate.intermediate_act_fn"
    y = _mlp(b, sizes, x, f"{name}.intermediate.dense", activation, f"{name}.output.dense")
    return _bert_output(b, sizes, f"{name}.output", y, x)


def _bert_output(b: Builder, sizes: Sizes, name: str, y: Tensor, x: Tensor) -> Tensor:
    y = _dropped(b, sizes, f"{name}.dropout", y)
    return b.layer_norm(f"{name}.LayerNorm", b.add(f"{name}.add", y, x))


# ---- GPT-2, as transformers' GPT2LMHeadModel -----------------------------------------------------


def gpt2(b: Builder, sizes: Sizes) -> None:
    """Run a decoder, with a head whose weight is the embedding's."""
    C, T, own = sizes.width, sizes.tokens, "transformer"
    word = b.embedding(f"{own}.wte", sizes.vocabulary, C, T)
    place = b.embedding(f"{own}.wpe", POSITIONS["gpt2"], C, T, positions=True)
    x = _dropped(b, sizes, f"{own}.drop", b.add(f"{own}.add", word, place))
    for i in range(sizes.blocks):
        x = _gpt2_block(b, sizes, f"{own}.h.{i}", x)
    y = b.tokens("lm_head", b.layer_norm(f"{own}.ln_f", x), sizes.vocabulary, bias=False)
    b.tied()
    b.loss(y)


def _gpt2_block(b: Builder, sizes: Sizes, name: str, x: Tensor) -> Tensor:
    own = f"{name}.attn"
    y = b.tokens(f"{own}.c_attn", b.layer_norm(f"{name}.ln_1", x), 3 * sizes.width)
    q, k, v = b.split(y, 3)
    y = b.attention(own, q, k, v, sizes.heads, causal=True)
    y = b.tokens(f"{own}.c_proj", y, sizes.width)
    x = b.add(f"{name}.add", _dropped(b, sizes, f"{own}.resid_dropout", y), x)
    own = f"{name}.mlp"
    y = b.layer_norm(f"{name}.ln_2", x)
    y = _mlp(b, sizes, y, f"{own}.c_fc", f"{own}.act", f"{own}.c_proj")
    return b.add(f"{name}.add_1", x, _dropped(b, sizes, f"{own}.dropout", y))


# ---- LLaMA, as transformers' LlamaForCausalLM ----------------------------------------------------


def llama(b: Builder, sizes: Sizes) -> None:
    """Run a decoder with rotary embeddings, without biases; its head has a weight of its own."""
    x = b.embedding("model.embed_tokens", sizes.vocabulary, sizes.width, sizes.tokens)
    for i in range(sizes.blocks):
        x = _llama_block(b, sizes, f"model.layers.{i}", x)
    b.loss(b.tokens("lm_head", b.rms_norm("model.norm", x), sizes.vocabulary, bias=False))


def llama_block(b: Builder, sizes: Sizes) -> None:
    """Run one block, on what another one made."""
    b.embedded = True
    _llama_block(b, sizes, "model.layers.0", Tensor("input", sizes.width, sizes.tokens))


def _llama_block(b: Builder, sizes: Sizes, name: str, x: Tensor) -> Tensor:
    own, C = f"{name}.self_attn", sizes.width
    y = b.rms_norm(f"{name}.input_layernorm", x)
    q, k, v = (b.tokens(f"{own}.{it}_proj", y, C, bias=False) for it in "qkv")
    q, k = (b.rotary(f"{own}.rotary_{it}", y, C // sizes.heads) for it, y in (("q", q), ("k", k)))
    y = b.attention(own, q, k, v, sizes.heads, causal=True)
    x = b.add(f"{name}.add", x, b.tokens(f"{own}.o_proj", y, C, bias=False))
    own = f"{name}.mlp"
    y = b.rms_norm(f"{name}.post_attention_layernorm", x)
    gate, up = (b.tokens(f"{own}.{it}_proj", y, sizes.inner, bias=False) for it in ("gate", "up"))
    y = b.mul(f"{own}.mul", _activated(b, f"{own}.act_fn", gate, sizes.activation), up)
    return b.add(f"{name}.add_1", x, b.tokens(f"{own}.down_proj", y, C, bias=False))
