"""Today's networks in plain torch, as published but small: what their modules keep is tested.

Written for the tests after timm's vit_base_patch16, transformers' BertModel and GPT2LMHeadModel
(attention written out and fused) and torchvision's mobilenet_v2.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float, fused: bool, causal: bool) -> Tensor:
    """Return attention of (N, heads, T, features), by torch's function or written out."""
    if fused:
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        T = q.shape[-2]
        ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(ahead, torch.finfo(scores.dtype).min)
    return functional.dropout(torch.softmax(scores, -1), dropout) @ v


class VitAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.fused = heads, dropout, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        N, T, C = x.shape
        q, k, v = self.qkv(x).reshape(N, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(q, k, v, self.dropout, self.fused, False)
        return self.proj_drop(self.proj(y.transpose(1, 2).reshape(N, T, C)))


class VitBlock(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = VitAttention(width, heads, dropout, fused)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(width, 4 * width),
                act=nn.GELU(),
                drop1=nn.Dropout(dropout),
                fc2=nn.Linear(4 * width, width),
                drop2=nn.Dropout(dropout),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, fused: bool = True, dropout: float = 0.1, width: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, width))
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(VitBlock(width, 3, dropout, fused) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(self.pos_drop(x)))[:, 0])


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense, self.dropout = nn.Linear(width, width), nn.Dropout(0.1)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.intermediate, self.output = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        N, T, C = x.shape
        parts = (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.view(N, T, self.heads, -1).transpose(1, 2) for part in parts)
        y = attend(q, k, v, 0.1, self.fused, False).transpose(1, 2).reshape(N, T, C)
        x = self.norm1(self.dropout(self.dense(y)) + x)
        y = functional.gelu(self.intermediate(x))
        return self.norm2(self.dropout(self.output(y)) + x)


class Bert(nn.Module):
    def __init__(self, fused: bool = True, width: int = 24) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(50, width), nn.Embedding(32, width)
        self.kind = nn.Embedding(2, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.1)
        self.layer = nn.Sequential(*(BertLayer(width, 4, fused) for _ in range(2)))
        self.pooler = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        T = tokens.shape[1]
        embedded = self.word(tokens) + self.kind(torch.zeros_like(tokens))
        x = self.norm(embedded + self.position(torch.arange(T)[None]))
        x = self.layer(self.dropout(x))
        return x, torch.tanh(self.pooler(x[:, 0]))


class Conv1D(nn.Module):
    """transformers' linear layer: a function, with the weight the other way round."""

    def __init__(self, K: int, C: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(C, K) / C), nn.Parameter(torch.zeros(K))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], -1)


class Gpt2Block(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Conv1D(3 * width, width), Conv1D(width, width)
        self.c_fc, self.c_out = Conv1D(4 * width, width), Conv1D(width, 4 * width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        N, T, C = x.shape
        parts = self.c_attn(self.ln_1(x)).split(C, 2)
        q, k, v = (part.view(N, T, self.heads, -1).transpose(1, 2) for part in parts)
        y = attend(q, k, v, 0.1, self.fused, True).transpose(1, 2).reshape(N, T, C)
        x = self.dropout(self.c_proj(y)) + x
        y = self.c_fc(self.ln_2(x))
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y.pow(3))))
        return x + self.dropout(self.c_out(y))


class Gpt2(nn.Module):
    """The head is tied to the embedding."""

    def __init__(self, fused: bool = True, width: int = 24) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, width), nn.Embedding(32, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.Sequential(*(Gpt2Block(width, 4, fused) for _ in range(2)))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, 50, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        return {"logits": self.lm_head(self.ln_f(self.h(self.drop(x))))}


def normed(C: int, K: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(C, K, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(K), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    def __init__(self, C: int, K: int, stride: int, expand: int) -> None:
        super().__init__()
        inner, self.adds = C * expand, stride == 1 and C == K
        first = [normed(C, inner, 1)] if expand > 1 else []
        last = (nn.Conv2d(inner, K, 1, bias=False), nn.BatchNorm2d(K))
        self.conv = nn.Sequential(*first, normed(inner, inner, 3, stride, inner), *last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """torchvision's. A stage: expansion, filters, depth, stride; ends: filters, and classes."""

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...] = (
            (1, 4, 1, 1),
            (6, 8, 2, 2),
            (6, 8, 1, 1),
            (6, 12, 1, 2),
        ),
        ends: tuple[int, int, int] = (8, 40, 10),
    ) -> None:
        super().__init__()
        C, last, classes = ends
        blocks = [normed(3, C, 3, 2)]
        for expand, K, depth, stride in stages:
            for i in range(depth):
                blocks.append(InvertedResidual(C, K, 1 if i else stride, expand))
                C = K
        self.features = nn.Sequential(*blocks, normed(C, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


def images(samples: int) -> Tensor:
    return torch.rand(samples, 3, 32, 32)


def tokens(samples: int) -> Tensor:
    return torch.randint(0, 50, (samples, 12))


#: Name -> model and input, of a number of samples.
TODAY = {
    "vit": (Vit, images),
    "vit, attention written out": (lambda: Vit(fused=False), images),
    "vit without dropout": (lambda: Vit(dropout=0.0), images),
    "bert": (Bert, tokens),
    "bert, attention written out": (lambda: Bert(fused=False), tokens),
    "gpt2": (Gpt2, tokens),
    "gpt2, attention written out": (lambda: Gpt2(fused=False), tokens),
    "mobilenetv2": (MobileNetV2, images),
}
