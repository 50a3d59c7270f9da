"""What a step does beside multiplying matrices: small models, every entry by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils.parametrizations import weight_norm  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.policies import RigL, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracefile.others import OtherWork  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.command import swatsim  # noqa: E402

#: (phase, module, functions, bytes read, bytes written, times)
Short = tuple[str, str, str, int, int, int]


def short(works: list[OtherWork], *phases: str) -> list[Short]:
    found = [(it.phase, it.module, it.name, it.read, it.written, it.times) for it in works]
    return sorted(each for each in found if not phases or each[0] in phases)


def observed(path: Path, model: Any, train: Callable[[], Any], policy: Any = None) -> Any:
    """Train a step that is recorded; give what else it did."""
    kind = Tracer(model, policy, path, steps=(0,)) if policy else Observer(model, path, steps=(0,))
    with kind as run:
        train()
        run.step()
    assert run.error is None
    works = open_trace(path).step(0).others
    assert works is not None
    return list(works)


def test_a_norm_a_gelu_and_a_dropout(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.5))
    x = torch.randn(4, 6)
    works = observed(tmp_path / "t", model, lambda: model(x).sum().backward())
    V, row, weight = 4 * 8 * 4, 4 * 4, 8 * 4  # bytes of values, of one a row, of a weight
    assert short(works) == sorted(
        [
            ("forward", "1", "native_layer_norm", V + 2 * weight, V + 2 * row, 1),
            ("forward", "2", "gelu", V, V, 1),
            # the mask is saved for the backward pass, and so written beside the output
            ("forward", "3", "bernoulli_+div_+mul", V, 2 * V, 1),
            ("forward", "", "sum", V, 4, 1),
            ("forward", "", "ones_like", 0, 4, 1),
            # the sum's gradient is one value, expanded
            ("backward", "3", "mul", 4 + V, V, 1),
            ("backward", "2", "gelu_backward", 2 * V, V, 1),
            # gradient, input, mean, rstd, weight, bias; gradients of input, weight and bias
            (
                *("backward", "1", "native_layer_norm_backward"),
                *(2 * V + 2 * row + 2 * weight, V + 2 * weight, 1),
            ),
            ("backward", "0", "sum", V, weight, 1),  # of the bias; addmm adds the bias itself
        ]
    )
    dropout = next(it for it in works if it.module == "3" and it.phase == "forward")
    assert [it.elements for it in dropout.operations] == [32, 32, 32]
    assert [(it.read, it.written) for it in dropout.operations] == [(0, V), (V, V), (2 * V, V)]
    norm = next(it for it in works if it.name == "native_layer_norm_backward")
    assert norm.operations[0].elements == 32


class Three(nn.Module):
    """Three element-wise operations behind a layer."""

    def __init__(self, middle: Callable[[Any], Any]) -> None:
        super().__init__()
        self.fc, self.middle = nn.Linear(6, 8), middle

    def forward(self, x: Any) -> Any:
        return self.middle(self.fc(x) + 1).relu()


@pytest.mark.parametrize(
    ("middle", "name", "saved"),
    [
        (lambda y: y * 2, "add+mul+relu", 0),
        (torch.exp, "add+exp+relu", 1),  # exp saves what it makes
        (torch.sin, "add+sin+relu", 1),  # sin what it reads
        (lambda y: y.mul_(2), "add+mul_+relu", 0),
        (lambda y: y.view(2, 2, 8) * 2, "add+mul+relu", 0),
        (lambda y: y * y.detach(), "add+mul+relu", 1),
    ],
    ids=["nothing saved", "its output", "its input", "in place", "through a view", "itself"],
)
def test_a_chain(middle: Any, name: str, saved: int, tmp_path: Path) -> None:
    model, x = Three(middle), torch.randn(4, 6)
    works = observed(tmp_path / "t", model, lambda: model(x).sum().backward())
    (chain,) = [it for it in works if it.phase == "forward" and it.module == "Three"]
    V = 4 * 8 * 4
    assert (chain.name, chain.read, chain.written) == (name, V, V + saved * V)
    assert sum(it.elements for it in chain.operations) == 96


def test_what_is_done_with_weights_does_not_grow_with_the_batch(tmp_path: Path) -> None:
    model = nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.LayerNorm(5), Spread())

    def train(samples: int) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad()
            for _ in range(2):  # gradients are added up
                with torch.autocast("cpu", torch.bfloat16):
                    y = model(torch.randn(samples, 4))
                decay = sum(it.square().sum() for it in model[:2].parameters())
                (y.float().square().mean() + decay).backward()

        return run

    some, more = (observed(tmp_path / f"{n}", model, train(n)) for n in (6, 12))
    kept, others = ([it for it in some if it.grows_with_batch is grows] for grows in (False, True))
    assert kept == [it for it in more if not it.grows_with_batch]
    found = {(it.phase, it.module, it.name) for it in kept}
    assert found >= {
        ("forward", "0.parametrizations.weight.0", "_weight_norm_interface"),
        ("backward", "0.parametrizations.weight.0", "_weight_norm_interface_backward"),
        ("forward", "0", "_to_copy"),
        ("backward", "0", "_to_copy"),
        ("backward", "0.parametrizations.weight", "add_"),
        ("forward", "", "pow"),
        ("backward", "", "pow+mul+mul"),
    }
    for one, two in zip(others, [it for it in more if it.grows_with_batch], strict=True):
        assert one.name == two.name
        alike = one.read + one.written == two.read + two.written
        # of one value each, or gradients of two uses that the graph adds up before a parameter's
        assert not alike or max(it.elements for it in one.operations) == 1 or one.name == "add"


class Spread(nn.Module):
    """A parameter that is spread over the samples grows with them, and so does what is looked up.

    So does one whose sizes would allow that it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own, self.table = nn.Parameter(torch.randn(5)), nn.Embedding(99, 5)

    def forward(self, x: Any) -> Any:
        ids = torch.zeros(len(x), dtype=torch.long)
        return x * self.own.expand_as(x).exp() + self.table(ids)


def test_an_average_of_weights_is_noted_where_the_model_runs_again(tmp_path: Path) -> None:
    """What prepares the data of an evaluation, or of the next run, is not."""
    model = nn.Linear(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    average.update_parameters(model)  # the first time it copies

    def train() -> None:
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
        average.update_parameters(model)
        model.eval()(torch.randn(9, 4).mul(2))
        model.train()

    found = short(observed(tmp_path / "t", model, train), "optimizer")
    size = 4 * (4 * 6 + 6)
    assert ("optimizer", "", "_foreach_lerp_", 2 * size, size, 1) in found
    assert not any("randn" in name or name == "mul" for _, _, name, *_ in found)


def test_what_is_no_chain(tmp_path: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 8)

        def forward(self, x: Any) -> Any:
            y = self.fc(x)
            first, second = y + 1, y * 2  # neither reads the other
            return (first, second.softmax(-1) + 1)  # a softmax is no element's own

    model, x = Other(), torch.randn(4, 6)
    works = observed(tmp_path / "t", model, lambda: sum(model(x)).sum().backward())
    found = {it[2]: it[-1] for it in short(works, "forward") if it[1] == "Other"}
    assert found == {"_softmax": 1, "add": 2, "mul": 1}  # equal ones are added up


def trained(model: Any, optimizer: Any, x: Any) -> Callable[[], None]:
    def train() -> None:
        model(x).sum().backward()
        optimizer.step()

    return train


W, B, BOTH = 48 * 4, 8 * 4, 56 * 4  # bytes of the weight, of the bias, of both


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"foreach": False}, [("add_", 2 * W, W, 1), ("add_", 2 * B, B, 1)]),
        ({"foreach": True}, [("_foreach_add_", 2 * BOTH, BOTH, 1)]),
        ({"fused": True}, [("_fused_sgd_", 2 * BOTH, BOTH, 1)]),
        (  # decay makes a gradient of its own, momentum is held
            {"foreach": False, "momentum": 0.9, "weight_decay": 0.1},
            [
                ("add", 2 * W, W, 1),
                ("add", 2 * B, B, 1),
                ("mul_+add_+add_", 3 * W, 2 * W, 1),
                ("mul_+add_+add_", 3 * B, 2 * B, 1),
            ],
        ),
        (
            {"foreach": True, "momentum": 0.9},
            [("_foreach_mul_+_foreach_add_+_foreach_add_", 3 * BOTH, 2 * BOTH, 1)],
        ),
    ],
    ids=["plain", "foreach", "fused", "momentum", "foreach momentum"],
)
def test_sgd(options: dict[str, Any], expected: list[Any], tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    trained(model, optimizer, x)()  # its state is made
    optimizer.zero_grad()
    works = observed(tmp_path / "t", model, trained(model, optimizer, x))
    assert short(works, "optimizer") == sorted(("optimizer", "", *it) for it in expected)


@pytest.mark.parametrize("foreach", [False, True])
def test_adamw(foreach: bool, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=foreach)
    trained(model, optimizer, x)()
    optimizer.zero_grad()
    works = observed(tmp_path / "t", model, trained(model, optimizer, x))
    prefix, divided = ("_foreach_", "div_") if foreach else ("", "div")
    moment = ("mul_", "addcmul_", "sqrt", divided, "add_", "addcdiv_")
    chain = "+".join(prefix + each for each in moment)
    expected = []
    for size in [BOTH] if foreach else [W, B]:
        expected += [
            (prefix + "mul_", size, size, 1),  # the decay
            (prefix + "lerp_", 2 * size, size, 1),  # the first moment, of the gradient
            # second moment, gradient, first moment, parameter; second moment, parameter
            (chain, 4 * size, 2 * size, 1),
        ]
    # the numbers of steps: with foreach a 1 is read, too
    expected += [("_foreach_add_", 12, 8, 1)] if foreach else [("add_", 4, 4, 2)]
    assert short(works, "optimizer") == sorted(("optimizer", "", *it) for it in expected)


def test_clipping_and_zeroed_gradients_are_the_optimizers(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)
    trained(model, optimizer, x)()

    def train() -> None:
        optimizer.zero_grad(set_to_none=False)
        prepared = (x - 3) / 2  # of data: by the host
        model(prepared).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    works = observed(tmp_path / "t", model, train)
    found = {name: (read, written) for _, _, name, read, written, _ in short(works, "optimizer")}
    assert found["_foreach_zero_"] == (0, BOTH)
    assert found["_foreach_norm"] == (BOTH, 8)
    assert found["_foreach_add_"] == (2 * BOTH, BOTH)
    assert found["add+reciprocal+mul+clamp+_foreach_mul_"] == (4 + BOTH, BOTH)
    assert not {"sub", "div", "sub+div"} & {name for _, _, name, *_ in short(works)}
    accumulated = {(module, name) for _, module, name, *_ in short(works, "backward")}
    assert accumulated == {("0", "sum"), ("0", "add_")}


def test_an_optimizer_of_ones_own_and_two_batches(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)

    def train() -> None:
        for _ in range(2):
            model(x * 2).sum().backward()
        with torch.no_grad():
            for each in model.parameters():
                each -= each.grad

    found = short(observed(tmp_path / "t", model, train))
    assert ("optimizer", "", "sub_", 2 * W, W, 1) in found
    assert ("forward", "", "sum", 4 * 8 * 4, 4, 2) in found
    assert not [it for it in found if it[2] == "mul"]


def test_evaluation_is_not_noted(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)), torch.randn(4, 6)

    def train() -> None:
        model(x).sum().backward()
        model.eval()
        with torch.no_grad():
            (model(x).softmax(-1) * 2).mean()
        model.train()

    found = short(observed(tmp_path / "t", model, train))
    assert next(it for it in found if it[2] == "native_layer_norm")[-1] == 1
    assert not {"_softmax", "mul", "mean"} & {it[2] for it in found}


def test_looking_up_reads_what_comes_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 50))
    tokens = torch.randint(0, 1000, (4, 3))

    def train() -> None:
        logits = model(tokens).flatten(0, 1)
        nn.functional.cross_entropy(logits, tokens.flatten() % 50).backward()

    found = {it.name: it for it in observed(tmp_path / "t", model, train)}
    looked_up = found["embedding"]
    assert (looked_up.read, looked_up.written) == (12 * 8 * 4 + 12 * 8, 12 * 8 * 4)
    assert looked_up.operations[0].elements == 12 * 8
    loss = found["nll_loss_forward"]
    assert (loss.read, loss.operations[0].elements) == (12 * 4 + 12 * 8, 12)
    assert found["embedding_dense_backward"].written == 1000 * 8 * 4
    assert found["_log_softmax"].read == 12 * 50 * 4
    # of the scores it needs the shape alone
    assert found["nll_loss_backward"].read == 4 + 12 * 8 + 4


def test_casts_of_autocast_are_noted(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)

    def train() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
        y.float().sum().backward()

    works = observed(tmp_path / "t", model, train)
    casts = [it for it in works if it.name == "_to_copy" and it.phase == "forward"]
    sizes = {(it.module, it.read, it.written) for it in casts}
    assert sizes == {("0", 96, 48), ("0", W, W // 2), ("0", B, B // 2), ("", 64, 128)}


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_is_forward_work_once_more(reentrant: bool, tmp_path: Path) -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8))

        def forward(self, x: Any) -> Any:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    model, x = Kept(), torch.randn(4, 6, requires_grad=True)
    found = short(observed(tmp_path / "t", model, lambda: model(x).sum().backward()))
    (norm,) = [it for it in found if it[2] == "native_layer_norm"]
    assert (norm[0], norm[1], norm[-1]) == ("forward", "inner.1", 2)
    (back,) = [it for it in found if it[2] == "native_layer_norm_backward"]
    assert (back[0], back[1], back[-1]) == ("backward", "inner.1", 1)


@pytest.mark.parametrize("causal", [False, True])
def test_the_softmax_inside_an_attention(causal: bool, tmp_path: Path) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 24)

        def forward(self, x: Any) -> Any:
            heads = [it.unflatten(-1, (2, 4)).transpose(1, 2) for it in self.fc(x).chunk(3, -1)]
            return nn.functional.scaled_dot_product_attention(*heads, is_causal=causal)

    model, x = Attends(), torch.randn(3, 5, 8)
    works = observed(tmp_path / "t", model, lambda: model(x).sum().backward())
    inside = [it for it in works if it.name.startswith("softmax")]
    scores = 3 * 2 * (15 if causal else 25)
    assert [(it.phase, it.module, it.name, it.read, it.written) for it in inside] == [
        ("forward", "Attends", "softmax", 0, 0),
        ("backward", "Attends", "softmax+softmax_backward", 0, 0),
    ]
    assert {each.elements for it in inside for each in it.operations} == {scores}


class _Counted(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", [None, SwatU(0.5), RigL(0.5)], ids=["observed", "swat", "rigl"])
def test_nothing_of_ours_is_noted_and_nothing_is_missed(policy: Any, tmp_path: Path) -> None:
    """All that a plain run dispatches, and moves something, is noted as often."""

    def build() -> Any:
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        model = nn.Sequential(*parts, nn.Linear(16, 5), nn.Softmax(-1))
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        return model, trained(model, optimizer, torch.ones(2, 3, 6, 6))

    model, train = build()
    with _Counted() as plain:
        train()
    moves_nothing = {"t", "view", "detach", "empty", "lift_fresh", "_local_scalar_dense"}
    moves_nothing |= {"_record_function_enter_new", "_record_function_exit", "expand"}
    multiplies = {"addmm", "mm", "convolution", "convolution_backward"}
    expected = {k: n for k, n in plain.seen.items() if k not in moves_nothing | multiplies}
    model, train = build()
    works = observed(tmp_path / "t", model, train, policy)
    found: Counter[str] = Counter()
    for work in works:
        if work.phase != "policy":
            found.update({each.function: work.times for each in work.operations[:1]})
            for each in work.operations[1:]:
                found[each.function] += work.times
    if policy is not None:  # a tracer adds up the gradient of a convolution's bias by itself
        found.pop("sum", None)
        expected.pop("sum", None)
    assert found == expected


def test_a_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    def run(path: Path | None) -> list[Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Dropout(0.5), nn.GELU())
        optimizer = torch.optim.AdamW(model.parameters())
        observer = Observer(model, path, steps=range(3)) if path else None
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            if observer:
                observer.step()
        if observer:
            observer.close()
        states = [value for it in optimizer.state.values() for value in it.values()]
        return [*model.state_dict().values(), *states, torch.randn(2)]

    pairs = zip(run(None), run(tmp_path / "t"), strict=True)
    assert all(torch.equal(plain, seen) for plain, seen in pairs)


def test_hooks_are_gone_behind_a_step(tmp_path: Path) -> None:
    from torch.optim import optimizer

    before = len(optimizer._global_optimizer_pre_hooks)
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    observed(tmp_path / "t", model, lambda: model(x).sum().backward())
    assert len(optimizer._global_optimizer_pre_hooks) == before


def test_what_a_policy_does_itself(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    works = observed(tmp_path / "t", model, lambda: model(x).sum().backward(), SwatU(0.5))
    assert short(works, "policy") == [
        ("policy", "0", "topk", 4 * 6 * 4, 3, 1),
        ("policy", "0", "topk", W, 6, 1),
    ]


def test_info_shows_it_in_a_line(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)), torch.randn(4, 6)
    observed(tmp_path / "t", model, lambda: model(x).sum().backward(), RigL(0.5))
    _, out, _ = swatsim("info", tmp_path / "t")
    said = " ".join(out.split())
    # a sum of 4 x 8 values and its gradient, that of the bias, a mask of 48 bits
    forward = f"forward 2 operations of 33 elements and {4 * 32 + 4 + 4} B"
    assert f"others in 1 of 1 steps: {forward}; backward 1 operations of 32 elements" in said
    assert "policy 1 operations of 48 elements and 6 B" in said
    assert "wanted 0.500 of what wgrad makes, in layers where not all is" in said
