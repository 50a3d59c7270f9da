"""Torch modules of the transformers whose layer tables ship, of any size.

Written for the tests after torchvision's vit_b_16 and transformers' BertModel, GPT2LMHeadModel and
LlamaForCausalLM, with their names; without dropout, whose masks a CPU keeps otherwise than a GPU.
Norms without a mean and rotary embeddings are functions that keep what a GPU's kernels keep.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.workload.transformers import Sizes


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool) -> Tensor:
    """Return attention of (N, T, features)."""
    N, T, C = q.shape
    split = (it.view(N, T, heads, -1).transpose(1, 2) for it in (q, k, v))
    y = functional.scaled_dot_product_attention(*split, is_causal=causal)
    return y.transpose(1, 2).reshape(N, T, C)


def activation(sizes: Sizes) -> nn.Module:
    return {"relu": nn.ReLU(), "gelu": nn.GELU(), "gated": nn.SiLU()}[sizes.activation]


class EncoderBlock(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.width
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.self_attention = nn.MultiheadAttention(C, sizes.heads, batch_first=True)
        self.mlp = nn.Sequential(
            *(nn.Linear(C, sizes.inner), activation(sizes), nn.Identity()),
            nn.Linear(sizes.inner, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = self.self_attention(y, y, y, need_weights=False)[0] + x
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, sizes.tokens, sizes.width))
        blocks = {f"encoder_layer_{i}": EncoderBlock(sizes) for i in range(sizes.blocks)}
        self.layers, self.ln = nn.Sequential(OrderedDict(blocks)), nn.LayerNorm(sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(self.layers(x + self.pos_embedding))


class Vit(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.encoder = Encoder(sizes)
        head = nn.Linear(sizes.width, sizes.vocabulary)
        self.heads = nn.Sequential(OrderedDict(head=head))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).flatten(2).mT
        x = self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), x], 1))
        return self.heads(x[:, 0])


class Named(nn.Module):
    """A module whose parts are given by name."""

    def __init__(self, /, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class BertOutput(nn.Module):
    def __init__(self, C: int, K: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(C, K), nn.LayerNorm(K)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(y) + x)


class BertLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, self.heads = sizes.width, sizes.heads
        own = Named(**{name: nn.Linear(C, C) for name in ("query", "key", "value")})
        self.attention = Named(self=own, output=BertOutput(C, C))
        self.intermediate = Named(
            dense=nn.Linear(C, sizes.inner), intermediate_act_fn=activation(sizes)
        )
        self.output = BertOutput(sizes.inner, C)

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self.attention.get_submodule("self")
        y = attend(own.query(x), own.key(x), own.value(x), self.heads, False)
        x = self.attention.output(y, x)
        y = self.intermediate.intermediate_act_fn(self.intermediate.dense(x))
        return self.output(y, x)


class Bert(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.width
        self.embeddings = Named(
            word_embeddings=nn.Embedding(sizes.vocabulary, C),
            token_type_embeddings=nn.Embedding(2, C),
            position_embeddings=nn.Embedding(512, C),
            LayerNorm=nn.LayerNorm(C),
        )
        self.encoder = Named(layer=nn.Sequential(*(BertLayer(sizes) for _ in range(sizes.blocks))))
        self.pooler = Named(dense=nn.Linear(C, C), activation=nn.Tanh())

    def forward(self, tokens: Tensor) -> Tensor:
        own, places = self.embeddings, torch.arange(tokens.shape[1], device=tokens.device)
        x = own.word_embeddings(tokens) + own.token_type_embeddings(torch.zeros_like(tokens))
        x = self.encoder.layer(own.LayerNorm(x + own.position_embeddings(places[None])))
        return self.pooler.activation(self.pooler.dense(x[:, 0]))


class Gpt2Attention(nn.Module):
    def __init__(self, C: int, heads: int) -> None:
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, -1)
        return self.c_proj(attend(q, k, v, self.heads, True))


class Gpt2Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.width
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = Gpt2Attention(C, sizes.heads)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(C, sizes.inner),
                act=activation(sizes),
                c_proj=nn.Linear(sizes.inner, C),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln_1(x)) + x
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.width
        self.transformer = Named(
            wte=nn.Embedding(sizes.vocabulary, C),
            wpe=nn.Embedding(1024, C),
            h=nn.Sequential(*(Gpt2Block(sizes) for _ in range(sizes.blocks))),
            ln_f=nn.LayerNorm(C),
        )
        self.lm_head = nn.Linear(C, sizes.vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        own, places = self.transformer, torch.arange(tokens.shape[1], device=tokens.device)
        return self.lm_head(own.ln_f(own.h(own.wte(tokens) + own.wpe(places[None]))))


class Scaled(torch.autograd.Function):
    """A norm without a mean, in one piece: keeps its input, and the deviation of each token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        ctx.save_for_backward(x, rows, weight)
        return x * rows * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, rows, weight = ctx.saved_tensors
        inner, normed = gradient * weight, x * rows
        dx = rows * (inner - normed * (inner * normed).mean(-1, keepdim=True))
        return dx, (gradient * normed).flatten(0, -2).sum(0)


class Turned(torch.autograd.Function):
    """Features of each head in pairs, turned: keeps the cosines and sines."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return (
            x * cos + torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1) * sin
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        turned, half = gradient * sin, gradient.shape[-1] // 2
        return gradient * cos + torch.cat([turned[..., half:], -turned[..., :half]], -1), None, None


class RmsNorm(nn.Module):
    def __init__(self, C: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(x, self.weight)


class LlamaLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, self.heads = sizes.width, sizes.heads
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(C), RmsNorm(C)
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        self.self_attn = Named(**{name: nn.Linear(C, C, bias=False) for name in names})
        self.mlp = Named(
            gate_proj=nn.Linear(C, sizes.inner, bias=False),
            up_proj=nn.Linear(C, sizes.inner, bias=False),
            act_fn=activation(sizes),
            down_proj=nn.Linear(sizes.inner, C, bias=False),
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        own, y = self.self_attn, self.input_layernorm(x)
        N, T, C = x.shape
        turned = (
            Turned.apply(it.view(N, T, self.heads, -1), cos, sin).view(N, T, C)
            for it in (own.q_proj(y), own.k_proj(y))
        )
        x = x + own.o_proj(attend(*turned, own.v_proj(y), self.heads, True))
        own, y = self.mlp, self.post_attention_layernorm(x)
        return x + own.down_proj(own.act_fn(own.gate_proj(y)) * own.up_proj(y))


class Llama(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, self.depth = sizes.width, sizes.width // sizes.heads
        self.model = Named(
            embed_tokens=nn.Embedding(sizes.vocabulary, C),
            layers=nn.ModuleList(LlamaLayer(sizes) for _ in range(sizes.blocks)),
            norm=RmsNorm(C),
        )
        self.lm_head = nn.Linear(C, sizes.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        own, T = self.model, tokens.shape[1]
        speeds = 10000 ** (-torch.arange(0, self.depth, 2, device=tokens.device) / self.depth)
        angles = torch.arange(T, device=tokens.device)[:, None, None] * speeds.repeat(2)
        x, cos, sin = own.embed_tokens(tokens), angles.cos(), angles.sin()
        for layer in own.layers:
            x = layer(x, cos, sin)
        return self.lm_head(own.norm(x))
