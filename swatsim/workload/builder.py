"""Writes down a layer table while a network's forward pass is told.

Each method of `Builder` takes a tensor and gives the next one, so that every size follows from the
input's; what the backward pass does beside the layers' own products comes out of the same calls.
Speaks convolution letters; C, H and W are of one sample. Tokens lie along H.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from swatsim.workload import optimizers
from swatsim.workload.layer import Layer, Operand
from swatsim.workload.tables import Network, Saved
from swatsim.workload.tape import Tape, Tensor, fixed
from swatsim.workload.work import FLAG, INDEX, Extent, Part


class Builder(Tape):
    """Writes down a network.

    Attributes
    ----------
    trained : int
        Trained values beside those of layers and batch norms.
    embedded : bool
        Whether what the first layer reads is trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.inputs: dict[str, str] = {}
        self.rights: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self.extents: dict[str, Extent] = {}
        self.causal: dict[str, Operand] = {}
        self.biased: set[str] = set()
        self.dense: set[str] = set()
        self.trained = 0
        self.embedded = False

    def build(self, name: str, citation: str, optimizer: str) -> Network:
        """Return the table."""
        layers, saved = tuple(self.layers), tuple(self.saved)
        inputs = MappingProxyType(self.inputs)
        found = Network(name, citation, layers, saved, frozenset(self.biased), inputs)
        trained = found.parameters + self.trained
        return replace(
            found,
            extents=MappingProxyType(self.extents),
            modules=MappingProxyType(self.modules),
            trained=trained,
            rights=MappingProxyType(self.rights),
            dense=frozenset(self.dense),
            causal=MappingProxyType(self.causal),
            embedded=self.embedded,
            works=(*self.works, *optimizers.works(optimizer, trained)),
        )

    # ---- what multiplies ---------------------------------------------------------------------

    def conv(
        self,
        name: str,
        x: Tensor,
        K: int,
        kernel: int = 3,
        stride: int = 1,
        bias: bool = False,
        *,
        groups: int = 1,
        padding: int | None = None,
    ) -> Tensor:
        """Add a convolution, padded by half of the kernel unless told."""
        sizes: dict[str, int] = {"C": x.C, "K": K, "H": x.H, "W": x.W, "R": kernel, "S": kernel}
        padding = kernel // 2 if padding is None else padding
        layer = Layer(name=name, stride=stride, padding=padding, groups=groups, **sizes)
        return self._run(layer, x, bias)

    def linear(self, name: str, x: Tensor, K: int) -> Tensor:
        """Add a linear layer that reads a tensor flat, with a bias."""
        layer = Layer(name=name, kind="linear", C=x.C * x.H * x.W, K=K)
        return self._biased(self._run(layer, x, bias=True))

    def tokens(
        self, name: str, x: Tensor, K: int, bias: bool = True, *, joint: bool = False
    ) -> Tensor:
        """Add a linear layer that reads each token by itself: a 1 x 1 convolution of T x 1.

        `joint`: it is run as one with the layer before it, which reads the same.
        """
        kind: dict[str, Any] = {"H": x.H} if x.H > 1 else {"kind": "linear"}
        y = self._run(Layer(name=name, C=x.C, K=K, **kind), x, bias, joint=joint)
        return self._biased(y) if bias else y

    def _run(self, layer: Layer, x: Tensor, bias: bool, *, joint: bool = False) -> Tensor:
        self.layers.append(layer)
        self.products += 1
        self.inputs[layer.name] = x.name
        if bias:
            self.biased.add(layer.name)
        if not x.zeros and x.trained:
            self.dense.add(layer.name)
        if not joint:
            self.use(x)
        return Tensor(layer.name, layer.K, layer.P, layer.Q)

    def _biased(self, y: Tensor) -> Tensor:
        """Add the sum that a bias's gradient is; of a convolution wgrad's kernel makes it."""
        self.back(y.name, "sum", [y.gradient], [fixed(y.C)])
        return y

    def attention(
        self, name: str, q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool
    ) -> Tensor:
        """Add attention's two products, run by one kernel, which keeps no probabilities."""
        scores, values = f"{name}.scores", f"{name}.values"
        keys = heads * k.H
        sizes: dict[str, Any] = {"kind": "matmul", "groups": heads, "H": q.H}
        self.layers.append(Layer(name=scores, C=q.C, K=keys, **sizes))
        self.layers.append(Layer(name=values, C=keys, K=v.C, **sizes))
        self.products += 2
        self.inputs[scores] = q.name
        self.rights |= {scores: k.name, values: v.name}
        self.modules |= {scores: name, values: name}
        self.dense.update((scores, values))
        if causal:
            self.causal |= {scores: "grad_out", values: "act"}
        y, rows = Tensor(name, v.C, q.H), Tensor(f"{name}.logsumexp", heads, q.H)
        self.keep("attention", name, y)
        self.keep("logsumexp", name, rows)
        self._softmax(name, heads * (q.H * (q.H + 1) // 2 if causal else q.H * k.H))
        return y

    def _softmax(self, name: str, scores: int) -> None:
        """Add what attention's kernel does with its scores: computed twice, they never leave it."""
        chip, own = [Part(f"{name}.scores", Extent(0))], {"extent": Extent(scores)}
        self.ahead(name, "softmax", [], [], **own)
        self.back(name, "softmax_backward", chip, [], elementwise=True, **own)
        self.back(name, "softmax", [], chip, elementwise=True, **own)

    # ---- what keeps something ----------------------------------------------------------------

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        """Add a norm of each channel over the batch, with a weight and a bias."""
        self.keep("batch_norm", name, x)
        statistics = {"tensor": f"{name}.statistics", "fixed": 2 * x.C}
        self.saved.append(Saved(name, "statistics", 0, 1, 1, **statistics))  # type: ignore[arg-type]
        y = replace(x, name=name, zeros=False)
        each = fixed(x.C)
        self.ahead(name, "native_batch_norm", [x.part, *4 * [each]], [y.part, *2 * [each]])
        counted = fixed(1, f"{name}.batches", INDEX)
        self.ahead(name, "add_", [counted], [counted], elementwise=True)
        read = [y.gradient, x.part, *5 * [each]]
        self.back(name, "native_batch_norm_backward", read, [x.gradient, *2 * [each]])
        return self.use(x, y)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        """Add a norm of each token, with a weight and a bias."""
        self.trained += 2 * x.C
        return self._norm(name, x, "layer_norm", "native_layer_norm", 2)

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        """Add a norm of each token without a mean, with a weight, as one kernel."""
        self.trained += x.C
        return self._norm(name, x, "rms_norm", "_fused_rms_norm", 1)

    def _norm(self, name: str, x: Tensor, kind: str, function: str, each: int) -> Tensor:
        """Add a norm: of each token it keeps as many numbers as it has trained ones a channel."""
        rows = Tensor(f"{name}.statistics", each, x.H)
        y, own = replace(x, name=name, zeros=False), each * [fixed(x.C)]
        self.keep(kind, name, x)
        self.keep("statistics", name, rows)
        self.ahead(name, function, [x.part, *own], [y.part, rows.part])
        read = [y.gradient, x.part, rows.part, *own]
        self.back(name, f"{function}_backward", read, [x.gradient, *own])
        return self.use(x, y)

    def relu(self, name: str, x: Tensor) -> Tensor:
        """Return the positive values, all others zero."""
        y = replace(x, name=name, zeros=True)
        return self._activation("relu", x, y, y, "threshold_backward")

    def relu6(self, name: str, x: Tensor) -> Tensor:
        """Return the same, cut at 6: in place, so that torch keeps a copy of what was there."""
        before = replace(x, name=f"{name}.input")
        self.ahead(name, "clone", [x.part], [before.part], elementwise=True)
        y = replace(x, name=name, zeros=True)
        return self._activation("hardtanh", x, y, before, "hardtanh_backward")

    def gelu(self, name: str, x: Tensor) -> Tensor:
        """Return the GELU, of which no value is zero."""
        return self._activation("gelu", x, replace(x, name=name, zeros=False), x, "gelu_backward")

    def silu(self, name: str, x: Tensor) -> Tensor:
        """Return each value times its sigmoid."""
        return self._activation("silu", x, replace(x, name=name, zeros=False), x, "silu_backward")

    def tanh(self, name: str, x: Tensor) -> Tensor:
        """Return the hyperbolic tangent."""
        y = replace(x, name=name, zeros=False)
        return self._activation("tanh", x, y, y, "tanh_backward")

    def _activation(self, kind: str, x: Tensor, y: Tensor, kept: Tensor, backward: str) -> Tensor:
        """Add a function of each value, and its gradient, which reads what is kept."""
        self.keep(kind, y.name, kept)
        module = re.sub(r"_\d+$", "", y.name)  # of a second run
        self.ahead(module, kind, [x.part], [y.part], elementwise=True)
        read = [y.gradient, kept.part]
        self.back(module, backward, read, [x.gradient], elementwise=True)
        return self.use(x, y)

    def max_pool(self, name: str, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        """Return the largest value under a kernel."""
        H, W = ((size + 2 * padding - kernel) // stride + 1 for size in (x.H, x.W))
        y = replace(x, name=name, H=H, W=W)
        places = replace(y.part, name=f"{name}.indices", width=INDEX)
        self.keep("max_pool", name, x)
        self.keep("max_pool_indices", name, replace(y, name=places.name))
        self.ahead(name, "max_pool2d_with_indices", [x.part], [y.part, places])
        read = [y.gradient, places]
        self.back(name, "max_pool2d_with_indices_backward", read, [x.gradient])
        return self.use(x, y)

    def avg_pool(self, name: str, x: Tensor, kernel: int) -> Tensor:
        """Return the mean under a kernel that does not overlap."""
        y = replace(x, name=name, H=x.H // kernel, W=x.W // kernel)
        self.keep("avg_pool", name, x)
        self.ahead(name, "avg_pool2d", [x.part], [y.part])
        self.back(name, "avg_pool2d_backward", [y.gradient], [x.gradient])
        return self.use(x, y)

    def dropout(self, name: str, x: Tensor) -> Tensor:
        """Drop values at random; their zeros are not counted as natural ones."""
        y = replace(x, name=name)
        mask = Part(f"{name}.mask", x.extent, FLAG)
        self.keep("dropout", name, replace(x, name=mask.name))
        self.ahead(name, "native_dropout", [x.part], [y.part, mask], elementwise=True)
        read = [y.gradient, mask]
        self.back(name, "native_dropout_backward", read, [x.gradient], elementwise=True)
        return self.use(x, y)

    def mul(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return two tensors multiplied, value by value."""
        z = replace(x, name=name, zeros=x.zeros or y.zeros)
        of = name.rpartition(".")[0]
        for factor, other, part in ((x, y, "factor"), (y, x, "other factor")):
            self.keep("mul", of, factor, part)
            read = [z.gradient, other.part]
            self.back(of, "mul", read, [factor.gradient], elementwise=True)
            self.use(factor)
        self.ahead(of, "mul", [x.part, y.part], [z.part], elementwise=True)
        return z

    def rotary(self, name: str, x: Tensor, depth: int) -> Tensor:
        """Return the features of each head turned by their token's position, by one kernel."""
        y, of = replace(x, name=name), name.rpartition(".")[0]
        angles = [fixed(x.H * depth, it) for it in ("cos", "sin")]
        for it in angles:
            own = {"part": it.name, "fixed": x.H * depth}
            self.saved.append(Saved(name, "rotary", 0, 1, 1, f"rotary.{it.name}", **own))  # type: ignore[arg-type]
        self.ahead(of, "rotary", [x.part, *angles], [y.part])
        self.back(of, "rotary_backward", [y.gradient, *angles], [x.gradient])
        return self.use(x, y)

    def embedding(self, name: str, rows: int, C: int, T: int, *, positions: bool = False) -> Tensor:
        """Return rows of a trained table, one for each token; `positions` are of all samples."""
        self.trained += rows * C
        self.embedded = True
        y, each = Tensor(name, C, T, shared=positions), Tensor("", 1, T, shared=positions)
        indices = Part(f"{name}.indices", each.extent, INDEX)
        sizes = (each.extent.sample, 1, 1)
        self.saved.append(Saved(name, "embedding", *sizes, indices.name, fixed=each.extent.fixed))
        self.ahead(name, "embedding", [Part("", y.extent), indices], [y.part])
        self.back(name, "embedding_dense_backward", [y.gradient, indices], [fixed(rows * C)])
        if positions:
            self.back(name, "sum", [replace(y, shared=False).gradient], [y.gradient])
        return y

    def tied(self) -> None:
        """Note that the last layer's weight is an embedding's: their gradients are added up."""
        layer = self.layers[-1]
        self.trained -= layer.weights
        weight = fixed(layer.weights)
        self.back(layer.name, "add", [weight, weight], [weight], elementwise=True)

    # ---- what keeps nothing ------------------------------------------------------------------

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return a sum."""
        z = replace(x, name=name, zeros=False)
        of = name.rpartition(".")[0]
        self.ahead(of, "add", [x.part, y.part], [z.part], elementwise=True)
        self.use(x)
        return self.use(y, z)

    def mean(self, name: str, x: Tensor) -> Tensor:
        """Return the average over H and W."""
        y = replace(x, name=name, H=1, W=1)
        self.ahead(name, "mean", [x.part], [y.part])
        self.back(name, "div", [y.gradient], [x.gradient])
        return self.use(x, y)

    def join(self, name: str, *tensors: Tensor) -> Tensor:
        """Return tensors with their channels concatenated; their gradients are parts of its own."""
        zeros = any(x.zeros for x in tensors)
        y = replace(tensors[0], name=name, C=sum(x.C for x in tensors), zeros=zeros)
        self.ahead(name.rpartition(".")[0], "cat", [x.part for x in tensors], [y.part])
        for x in tensors:
            self.use(x)
        return y

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """Return a tensor's channels in equal parts, each of which keeps all of it."""
        self.keep("attention", x.name.rpartition(".")[0], x, "projections")
        return parts * [replace(x, C=x.C // parts)]

    def loss(self, x: Tensor) -> None:
        """Add the cross-entropy of a softmax over the channels."""
        rows, y = Tensor("loss", 1, x.H), replace(x, name="loss.log_softmax")
        classes = replace(rows.part, width=INDEX)
        self.ahead("", "_log_softmax", [x.part], [y.part])
        self.ahead("", "nll_loss_forward", [rows.part, classes], [fixed(2)])
        self.back("", "_log_softmax_backward_data", [y.gradient, y.part], [x.gradient])
        self.back("", "nll_loss_backward", [fixed(2), classes], [y.gradient])

    def normed(
        self, names: str, x: Tensor, K: int, kernel: int = 3, stride: int = 1, bias: bool = False
    ) -> Tensor:
        """Add a convolution and its batch norm, whose names are one string."""
        conv, norm = names.split()
        return self.batch_norm(norm, self.conv(conv, x, K, kernel, stride, bias))
