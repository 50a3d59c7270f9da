"""The multiply-accumulates of torch's operations, counted three ways and compared.

By hand from shapes; as what comes out of ones, for each value is then the number of its products;
and as `macs_dense` and torch's own counter have them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, flop_registry  # noqa: E402

from swatsim.tracer.pytorch.modules import Depth, Geometry, linear  # noqa: E402
from swatsim.tracer.pytorch.products import _FORMULAS, macs  # noqa: E402
from swatsim.workload.flops import macs_dense  # noqa: E402
from swatsim.workload.layer import FLOPS_PER_MAC  # noqa: E402

aten = torch.ops.aten


class Counter(TorchDispatchMode):
    """Adds up what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.names = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        size = macs(func, args, kwargs, out)
        self.total += size
        if size:
            self.names.add(func._overloadpacket.__name__)
        return out


def counted(run: Callable[..., Tensor], *given: Tensor) -> tuple[int, int]:
    """MACs forward, and backward if anything needs gradients."""
    with Counter() as forward:
        y = run(*given)
    with Counter() as backward:
        if y.requires_grad:
            y.backward(torch.ones_like(y))
    return forward.total, backward.total


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


def sparse_matrix(rows: int, columns: int) -> Tensor:
    return torch.ones(rows, columns).to_sparse()


#: Run on ones; which of its arguments get their gradient by a product with matrices.
OF_ONES: list[tuple[str, Callable[..., Tensor], list[tuple[int, ...]], Sequence[int]]] = [
    ("mm", torch.mm, [(2, 3), (3, 5)], (0, 1)),
    ("mv", torch.mv, [(2, 3), (3,)], (1,)),
    ("addmv", lambda a, b: torch.addmv(torch.zeros(2), a, b), [(2, 3), (3,)], (1,)),
    ("dot", torch.dot, [(3,), (3,)], ()),
    ("vdot", torch.vdot, [(3,), (3,)], ()),
    ("inner", torch.inner, [(2, 3), (4, 3)], (0, 1)),
    ("matmul", torch.matmul, [(4, 2, 3), (3, 5)], (0, 1)),
    ("bmm", torch.bmm, [(4, 2, 3), (4, 3, 5)], (0, 1)),
    ("addmm", lambda a, b: torch.addmm(torch.zeros(5), a, b), [(2, 3), (3, 5)], (0, 1)),
    ("addmm_", lambda a, b: torch.zeros(2, 5).addmm_(a, b), [(2, 3), (3, 5)], (0, 1)),
    (
        "baddbmm",
        lambda a, b: torch.baddbmm(torch.zeros(5), a, b),
        [(4, 2, 3), (4, 3, 5)],
        (0, 1),
    ),
    (
        "addbmm",
        lambda a, b: torch.addbmm(torch.zeros(2, 5), a, b),
        [(4, 2, 3), (4, 3, 5)],
        (0, 1),
    ),
    ("einsum", lambda a, b: torch.einsum("btc,chd->bthd", a, b), [(2, 3, 4), (4, 2, 5)], (0, 1)),
    ("tensordot", lambda a, b: torch.tensordot(a, b, 2), [(2, 3, 4), (3, 4, 5)], (0, 1)),
    ("linear", functional.linear, [(7, 2, 3), (5, 3)], (0, 1)),
    ("sparse", lambda b: torch.sparse.mm(sparse_matrix(2, 3), b), [(3, 5)], (0,)),
    ("csr", lambda b: sparse_matrix(2, 3).to_sparse_csr() @ b, [(3, 5)], (0,)),
    ("foreach", lambda a, b: torch._foreach_mm([a], [b])[0], [(2, 3), (3, 5)], (0, 1)),
    ("conv_tbc", lambda x, w: torch.conv_tbc(x, w, torch.zeros(5)), [(7, 2, 3), (3, 3, 5)], (0, 1)),
    ("conv1d", functional.conv1d, [(2, 4, 7), (6, 4, 3)], (0, 1)),
    (
        "strides",
        lambda x, w: functional.conv2d(x, w, stride=2),
        [(2, 4, 7, 6), (6, 4, 3, 2)],
        (0, 1),
    ),
    (
        "groups",
        lambda x, w: functional.conv2d(x, w, groups=4),
        [(2, 4, 5, 5), (8, 1, 3, 3)],
        (0, 1),
    ),
    (
        "dilation",
        lambda x, w: functional.conv3d(x, w, dilation=2),
        [(2, 2, 5, 6, 7), (3, 2, 2, 2, 3)],
        (0, 1),
    ),
    ("conv_transpose1d", functional.conv_transpose1d, [(2, 4, 5), (4, 3, 3)], (0, 1)),
    (
        "conv_transpose2d",
        lambda x, w: functional.conv_transpose2d(x, w, stride=2, groups=2),
        [(2, 4, 5, 4), (4, 3, 3, 2)],
        (0, 1),
    ),
    ("conv_transpose3d", functional.conv_transpose3d, [(1, 2, 3, 4, 3), (2, 3, 2, 2, 2)], (0, 1)),
]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(
    ("run", "shapes", "learn"), [case[1:] for case in OF_ONES], ids=[case[0] for case in OF_ONES]
)
def test_each_value_that_comes_out_of_ones_counts_its_products(
    run: Callable[..., Tensor], shapes: list[tuple[int, ...]], learn: Sequence[int]
) -> None:
    given = [ones(*shape) for shape in shapes]
    forward, backward = counted(run, *given)
    assert forward == run(*given).sum()
    assert backward == sum(int(given[i].grad.sum()) for i in learn)


@pytest.mark.parametrize("one", [0, 1])
@pytest.mark.parametrize("run", [functional.linear, functional.conv1d])
def test_one_gradient_of_two(run: Callable[..., Tensor], one: int) -> None:
    shapes = [(2, 4, 7), (6, 4, 3)] if run is functional.conv1d else [(7, 2, 3), (5, 3)]
    given = [torch.ones(shape, requires_grad=i == one) for i, shape in enumerate(shapes)]
    forward, backward = counted(run, *given)
    assert forward == backward


def attention(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, **options)


N, HEADS, T, S, E = 2, 3, 5, 6, 8
#: Scores, and what is put together by them.
ATTENTION = N * HEADS * T * S * (E + E)


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}])
def test_attention_is_two_products_and_four_of_its_gradients(
    backend: SDPBackend, options: dict[str, Any]
) -> None:
    q, k, v = ones(N, HEADS, T, E), ones(N, HEADS, S, E), ones(N, HEADS, S, E)
    with sdpa_kernel(backend):
        assert counted(lambda *x: attention(*x, **options), q, k, v) == (ATTENTION, 2 * ATTENTION)


def test_bilinear() -> None:
    """Two products of two tensors, and for each gradient two again."""
    n, i, j, o = 2, 3, 4, 5
    forward, backward = counted(functional.bilinear, ones(n, i), ones(n, j), ones(o, i, j))
    assert forward == n * o * i * j + n * o * j
    of_first = n * o * i * j + n * i * j
    of_second = n * o * i * j + n * o * j
    of_weight = n * o * i + n * o * i * j
    assert backward == of_first + of_second + of_weight


def test_distances() -> None:
    """Of many points by a product of matrices (axes, squares and ones: C + 2)."""
    forward, backward = counted(torch.cdist, ones(30, 3), ones(40, 3))
    assert forward == 30 * 40 * 3
    assert backward == 2 * 30 * 40 * 3


def test_values_of_few_bits() -> None:
    eight = torch.ones(32, 16, dtype=torch.int8)
    assert counted(torch._int_mm, eight, eight.T[:, :8].contiguous())[0] == 32 * 16 * 8
    scale, packed = torch.ones(8, dtype=torch.bfloat16), torch.ones(8, 32, dtype=torch.int8)
    x = torch.ones(4, 32, dtype=torch.bfloat16)
    assert counted(torch._weight_int8pack_mm, x, packed, scale)[0] == 4 * 32 * 8


def test_products_of_groups() -> None:
    ends = torch.tensor([2, 7], dtype=torch.int32)  # the eighth row is nobody's
    x = torch.ones(8, 16, dtype=torch.bfloat16, requires_grad=True)
    w = torch.ones(2, 16, 8, dtype=torch.bfloat16, requires_grad=True)
    assert counted(lambda x, w: functional.grouped_mm(x, w, offs=ends), x, w) == (
        7 * 16 * 8,
        2 * 7 * 16 * 8,
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout: Any) -> None:
    ragged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=layout)
    weight = ones(5, 3)
    forward, backward = counted(
        lambda w: functional.linear(ragged, w).to_padded_tensor(0.0), weight
    )
    assert (forward, backward) == (6 * 3 * 5, 6 * 3 * 5)


def test_recurrent_layers() -> None:
    """The fused kernel, and the gates one by one."""
    steps, C, H = 5, 3, 4
    for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        module = kind(C, H)
        forward, backward = counted(lambda x, m=module: m(x)[0], ones(steps, N, C))
        one = N * gates * H
        assert forward == steps * one * (C + H)
        unused = 0 if kind is nn.LSTM else one * H  # of the first state, which needs no gradient
        assert backward == 2 * forward - unused


def test_attention_and_encoder_layers_in_one_call() -> None:
    x, e, wide = torch.ones(N, T, E), E, 16
    module = nn.MultiheadAttention(e, 2, batch_first=True).eval()
    layer = nn.TransformerEncoderLayer(e, 2, wide, batch_first=True).eval()
    whole = 4 * N * T * e * e + 2 * N * T * T * e
    with torch.no_grad():
        assert counted(lambda x: module(x, x, x)[0], x)[0] == whole
        assert counted(layer, x)[0] == whole + 2 * N * T * e * wide


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_are_counted_as_layers_are(dims: int, transposed: bool) -> None:
    draw = random.Random(10 * dims + transposed)

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randint(low, high) for _ in range(dims))

    for _ in range(8):
        groups, kernel, dilation = draw.choice((1, 2, 3)), each(1, 3), each(1, 2)
        stride, padding, size = each(1, 3), each(0, 1), each(6, 8)
        C, K = groups * draw.randint(1, 3), groups * draw.randint(1, 3)
        more = [min(p, max(s, d) - 1) for p, s, d in zip(padding, stride, dilation, strict=True)]
        x = ones(N, C, *size)
        w = ones(*((C, K // groups) if transposed else (K, C // groups)), *kernel)
        if transposed:
            run = getattr(functional, f"conv_transpose{dims}d")
            given = (None, stride, padding, more, groups, dilation)
        else:
            run, given = (
                getattr(functional, f"conv{dims}d"),
                (None, stride, padding, dilation, groups),
            )
        called = (w, stride, padding, dilation, groups, more if transposed else None)
        geometry = Geometry.called(*called)
        planes = Depth.of(geometry).planes(size[0]) if dims == 3 else 1
        layer = geometry.layer("layer", size)
        forward, backward = counted(lambda x, w, run=run, given=given: run(x, w, *given), x, w)
        assert forward == macs_dense(layer, N * planes, "fprop")
        assert backward == sum(macs_dense(layer, N * planes, op) for op in ("dgrad", "wgrad"))


def test_linear_layers_are_counted_as_layers_are() -> None:
    draw = random.Random(0)
    for _ in range(10):
        K, C, positions = (draw.randint(1, 9) for _ in range(3))
        layer = linear("layer", K, C, positions)
        forward, backward = counted(functional.linear, ones(N, positions, C), ones(K, C))
        assert forward == macs_dense(layer, N, "fprop")
        assert backward == sum(macs_dense(layer, N, op) for op in ("dgrad", "wgrad"))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 7, 2, 3), nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.short, self.head = nn.Conv2d(4, 8, 1, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head((self.body(x) + self.short(x)).mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return self.layer(x)


@pytest.mark.parametrize(("kind", "shape"), [(Residual, (2, 3, 16, 16)), (Transformer, (2, 5, 8))])
def test_it_is_half_of_what_torch_counts(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(shape)
    with FlopCounterMode(display=False) as flops:
        model(x).sum().backward()
    assert FLOPS_PER_MAC * sum(counted(model, x)) == flops.get_total_flops() > 0


def torchs(op: Any, *arguments: Any, out: Any = None) -> int:
    """Half of what torch's counter says: an error, or the right figure once it is corrected."""
    return int(flop_registry[op](*arguments, out_val=out)) // FLOPS_PER_MAC


def test_torch_counts_a_grouped_convolutions_weight_gradient_for_each_group() -> None:
    x, w = torch.ones(2, 6, 5, 5), ones(9, 2, 3, 3)
    with FlopCounterMode(display=False) as flops:
        functional.conv2d(x, w, groups=3).sum().backward()
    one = 2 * 9 * 3 * 3 * 2 * 3 * 3
    assert counted(lambda w: functional.conv2d(x, w, groups=3), w) == (one, one)
    assert flops.get_total_flops() // FLOPS_PER_MAC in (one + 3 * one, one + one)


def test_torch_counts_scores_twice_in_attentions_backward_pass() -> None:
    q, k = torch.empty(N, HEADS, T, E, device="meta"), torch.empty(N, HEADS, S, E, device="meta")
    op = aten._scaled_dot_product_efficient_attention_backward
    assert macs(op.default, (q, q, k, k), {}, ()) == 2 * ATTENTION
    wrong = 2 * ATTENTION + ATTENTION // 2
    assert torchs(op, q, q, k, k, out=(q, k, k)) in (wrong, 2 * ATTENTION)


def test_torch_takes_tokens_for_heads() -> None:
    q, k = torch.empty(N, T, HEADS, E, device="meta"), torch.empty(N, S, HEADS, E, device="meta")
    for name in ("_flash_attention_forward", "_efficient_attention_forward"):
        op = getattr(aten, name)
        given = (q, k, k, *[None] * (2 if "flash" in name else 3), T, S)
        assert macs(op.default, given, {}, q) == ATTENTION
    q = k = torch.empty(N, T, HEADS, E, device="meta")
    given = (q, k, k, None, None, T, T)
    right = macs(aten._flash_attention_forward.default, given, {}, q)
    assert right == 2 * N * HEADS * T * T * E
    wrong = 2 * N * T * HEADS * HEADS * E
    assert torchs(aten._flash_attention_forward, *given, out=q) in (wrong, right)


@pytest.mark.parametrize("name", ["_flash_attention_forward", "_efficient_attention_forward"])
def test_sequences_of_differing_lengths_that_are_packed(name: str) -> None:
    shape = (5, HEADS, E) if "flash" in name else (1, 5, HEADS, E)
    packed, ends = torch.empty(shape), torch.tensor([0, 2, 5], dtype=torch.int32)
    bias = () if "flash" in name else (None,)
    given = (packed, packed, packed, *bias, ends, ends, 3, 3)
    found = macs(getattr(aten, name).default, given, {}, packed)
    assert found == (2 * 2 + 3 * 3) * HEADS * 2 * E


def test_torch_takes_benchmark_for_transposed() -> None:
    x, w = torch.empty(2, 4, 8, 8, device="meta"), torch.empty(6, 4, 3, 3, device="meta")
    y, op = torch.empty(2, 6, 3, 3, device="meta"), aten.cudnn_convolution
    given = (x, w, [0, 0], [2, 2], [1, 1], 1, True, False, False)
    right = macs(op.default, given, {}, y)
    assert right == y.numel() * prod(w.shape[1:])
    assert torchs(op, *given, out=y) in (x[:, 0].numel() * w.numel(), right)


NOT_IN_TORCHS = (
    "mv dot addbmm _int_mm _grouped_mm _trilinear _euclidean_dist mkldnn_rnn_layer _cudnn_rnn "
    "_scaled_dot_product_flash_attention_for_cpu _transformer_encoder_layer_fwd linear"
)


def test_torch_knows_none_of_these() -> None:
    known = [name for name in NOT_IN_TORCHS.split() if getattr(aten, name) in flop_registry]
    assert not known, "the docstring of products.py names them"


#: What names of operations have that multiply by matrices.
_WORDS = "conv|mm|matmul|linear|attention|rnn|lstm|gru|bilinear|dot"
#: Words of those that do something else: functions, values that are resized, weights that are
#: packed, the part of a cell that is behind its products, quantized weights.
_OTHERS = (
    "gamma|cummax|cummin|hamming|jagged_dummy|upsample|combination|convert_indices|"
    "convert_weight|reorder|flatten_weight|search|prepack|fbgemm|quantized|_cell_backward|"
    "_thnn_fused"
)
#: What is made of operations that are counted, or of single values.
_DECOMPOSES = (
    "bilinear chain_matmul conv_tbc_backward gru lstm rnn_relu rnn_tanh linalg_multi_dot "
    "linalg_vecdot tensordot _convolution_double_backward"
)


def test_every_operation_that_multiplies_is_counted() -> None:
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    aten_names = {name for name in names if name.startswith("aten::")}
    multiply = {
        name.removeprefix("aten::")
        for name in aten_names - _FORMULAS.keys()
        if re.search(_WORDS, name) and not re.search(_OTHERS, name)
    }
    assert multiply - set(_DECOMPOSES.split()) == set()
