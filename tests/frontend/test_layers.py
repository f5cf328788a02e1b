"""Layers and losses beside torch's, values and gradients, in float64; layers that torch lays out otherwise, beside formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import nn, ops

torch = pytest.importorskip("torch")
F = torch.nn.functional
R = np.random.default_rng(8)
DTYPE = "float64"


def check(layer: nn.Module, theirs: Callable[..., Any], *arrays: np.ndarray, pairs: list[tuple[Any, Any]]) -> None:
    """Results, and gradients of inputs and parameters.

    Args:
        pairs: (our parameter, the torch parameter that has its value).
    """
    ours = [ndl.Tensor(a) for a in arrays]
    others = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    mine, other = layer(*ours), theirs(*others)
    mine = list(mine) if isinstance(mine, (tuple, list)) else [mine]
    other = list(other) if isinstance(other, (tuple, list)) else [other]
    total, wanted = ndl.Tensor(0.0, dtype=DTYPE), 0.0
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-9)
        weight = R.standard_normal(a.shape)
        total = total + (a * ndl.Tensor(weight)).sum()
        wanted = wanted + (b * torch.tensor(weight)).sum()
    total.backward()
    wanted.backward()
    sides = [(x, t) for x, t in zip(ours, others) if t.requires_grad] + pairs
    for x, t in sides:
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-8, atol=1e-9)
    owned = {id(x) for x, _ in pairs}
    assert {id(p) for p in layer.parameters()} == owned


def parameter(p: ndl.Tensor, change: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> Any:
    return torch.nn.Parameter(torch.tensor(change(p.numpy()).copy()))


@pytest.mark.parametrize("kind", ["RNN", "RNN relu", "LSTM", "GRU"])
@pytest.mark.parametrize(("layers", "both_ways", "batch_first", "bias"), [(1, False, False, True), (2, True, False, True), (3, False, True, False)])  # fmt: skip
def test_recurrent_layers(kind: str, layers: int, both_ways: bool, batch_first: bool, bias: bool) -> None:
    steps, n, width, hidden = 5, 3, 4, 6
    name, _, nonlinearity = kind.partition(" ")
    extra = {"nonlinearity": nonlinearity} if nonlinearity else {}
    layer = getattr(nn, name)(width, hidden, layers, bias, bidirectional=both_ways, batch_first=batch_first, dtype=DTYPE, **extra)  # fmt: skip
    theirs = getattr(torch.nn, name)(width, hidden, layers, bias=bias, batch_first=batch_first, bidirectional=both_ways, dtype=torch.float64, **extra)  # fmt: skip
    directions = 2 if both_ways else 1
    pairs = []
    for number, cell in enumerate(layer.cells):
        suffix = f"l{number // directions}" + ("_reverse" if number % directions else "")
        for own, other in (
            ("W_ih", "weight_ih"),
            ("W_hh", "weight_hh"),
            ("bias_ih", "bias_ih"),
            ("bias_hh", "bias_hh"),
        ):
            p = getattr(cell, own)
            if p is not None:
                target = getattr(theirs, f"{other}_{suffix}")
                target.data = torch.tensor(p.numpy().T.copy())
                p.grad = None
                pairs.append((p, target))
    x = R.standard_normal((n, steps, width) if batch_first else (steps, n, width))
    states = [R.standard_normal((layers * directions, n, hidden)) for _ in range(2 if name == "LSTM" else 1)]

    def flat(f: Callable[..., Any]) -> Callable[..., list[Any]]:
        def call(x: Any, *h: Any) -> list[Any]:
            out, last = f(x, h if len(h) > 1 else h[0])
            return [out, *(last if isinstance(last, tuple) else (last,))]

        return call

    class Turned:
        """A gradient as our weights have it: transposed."""

        def __init__(self, p: Any) -> None:
            self.p = p

        @property
        def grad(self) -> Any:
            return self.p.grad.T

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any, *h: Any) -> list[Any]:
            return flat(layer)(x, *h)

    check(Flat(), flat(theirs), x, *states, pairs=[(p, Turned(t) if t.ndim == 2 else t) for p, t in pairs])
    zeros = layer(ndl.Tensor(x))[0].numpy()
    np.testing.assert_allclose(zeros, theirs(torch.tensor(x))[0].detach().numpy(), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="features"):
        layer(ndl.Tensor(x[..., :2]))
    with pytest.raises(ValueError, match="first state"):
        layer(ndl.Tensor(x), ndl.Tensor(np.zeros((1, 1, 1))))


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_one_step_of_their_layer(name: str) -> None:
    cell, layer = getattr(nn, name)(3, 4, dtype=DTYPE), getattr(nn, name[:-4])(3, 4, dtype=DTYPE)
    layer.cells[0].load_state_dict(cell.state_dict())
    x = ndl.Tensor(R.standard_normal((1, 2, 3)))
    after = cell(x[0])
    first = after[0] if isinstance(after, tuple) else after
    np.testing.assert_allclose(first.numpy(), layer(x)[0].numpy()[0])
    assert cell(x[0], after) is not None


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2, "bias": False}, {"dilation": 2, "padding": 1}])
def test_convolutions(layout: str, settings: dict) -> None:
    layer = nn.Conv(4, 6, 3, layout=layout, dtype=DTYPE, **settings)
    w = parameter(layer.weight, lambda a: a.transpose(3, 2, 0, 1))
    b = None if layer.bias is None else parameter(layer.bias)

    def theirs(x: Any) -> Any:
        image = x if layout == "NCHW" else x.movedim(-1, 1)
        y = F.conv2d(image, w, b, layer.stride, layer.padding, layer.dilation, layer.groups)
        return y if layout == "NCHW" else y.movedim(1, -1)

    class Last:
        @property
        def grad(self) -> Any:
            return w.grad.permute(2, 3, 1, 0)

    x = R.standard_normal((2, 4, 7, 8) if layout == "NCHW" else (2, 7, 8, 4))
    check(layer, theirs, x, pairs=[(layer.weight, Last())] + ([] if b is None else [(layer.bias, b)]))


@pytest.mark.parametrize(
    "settings", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "bias": False}]
)
def test_transposed_convolutions(settings: dict) -> None:
    layer = nn.ConvTranspose(4, 6, 3, dtype=DTYPE, **settings)
    w = parameter(layer.weight, lambda a: a.transpose(3, 2, 0, 1))
    b = None if layer.bias is None else parameter(layer.bias)
    stride, padding, dilation, groups, extra = layer.settings

    class Last:
        @property
        def grad(self) -> Any:
            return w.grad.permute(2, 3, 1, 0)

    check(
        layer, lambda x: F.conv_transpose2d(x, w, b, stride, padding, extra, groups, dilation), R.standard_normal((2, 4, 3, 5)),
        pairs=[(layer.weight, Last())] + ([] if b is None else [(layer.bias, b)]),
    )  # fmt: skip


def with_affine(layer: nn.Module, call: Callable[..., Any], *arrays: np.ndarray) -> None:
    for p in layer.parameters():
        p.cached_data = R.standard_normal(p.shape)
    pairs = [(p, parameter(p)) for p in layer.parameters()]
    check(layer, lambda x: call(x, *(t for _, t in pairs)), *arrays, pairs=pairs)


def test_normalisations() -> None:
    x = R.standard_normal((3, 6, 4, 5)) * 2 + 1
    with_affine(nn.GroupNorm(3, 6, dtype=DTYPE), lambda x, w, b: F.group_norm(x, 3, w, b), x)
    with_affine(nn.LayerNorm(5, dtype=DTYPE), lambda x, w, b: F.layer_norm(x, (5,), w, b), x)
    with_affine(nn.RMSNorm(5, dtype=DTYPE), lambda x, w: F.rms_norm(x, (5,), w, 1e-6), x)
    for mode in (True, False):
        for layer, data in ((nn.BatchNorm2d(6, dtype=DTYPE), x), (nn.BatchNorm1d(4, dtype=DTYPE), x[0, :, :, 0])):
            layer.train() if mode else layer.eval()
            mean, var = torch.zeros(layer.dim, dtype=torch.float64), torch.ones(layer.dim, dtype=torch.float64)
            with_affine(layer, lambda x, w, b, m=mean, v=var, t=mode: F.batch_norm(x, m, v, w, b, t), data)
    last = nn.BatchNorm2d(5, layout="NHWC", dtype=DTYPE)
    first = nn.BatchNorm2d(5, dtype=DTYPE)
    np.testing.assert_allclose(last(ndl.Tensor(x)).numpy().transpose(0, 3, 1, 2), first(ndl.Tensor(x.transpose(0, 3, 1, 2))).numpy())  # fmt: skip
    with pytest.raises(ValueError, match="groups"):
        nn.GroupNorm(4, 6)


def test_losses() -> None:
    logits, labels = R.standard_normal((4, 3, 5)) * 3, R.integers(0, 5, (4, 3))
    check(nn.SoftmaxLoss(), lambda x, y: F.cross_entropy(x.movedim(-1, 1), y), logits, labels, pairs=[])
    a, b = R.standard_normal((3, 4)), R.standard_normal((3, 4))
    check(nn.MSELoss(), F.mse_loss, a, b, pairs=[])
    far = np.array([[-200.0, 0.3, 200.0], [1.5, -2.0, 40.0]])
    target = R.random((2, 3))
    check(nn.BCELoss(), F.binary_cross_entropy_with_logits, far, target, pairs=[])
    for is_real in (True, False):
        x = ndl.Tensor(far)
        wanted = F.binary_cross_entropy_with_logits(torch.tensor(far), torch.full((2, 3), float(is_real), dtype=torch.float64))  # fmt: skip
        assert np.isclose(nn.GANLoss()(x, is_real).item(), wanted.item())
    for layer, bad in ((nn.SoftmaxLoss(), labels[:2]), (nn.MSELoss(), a[0]), (nn.BCELoss(), a[0])):
        with pytest.raises(ValueError, match="shape"):
            layer(ndl.Tensor(logits), ndl.Tensor(bad))


def test_embedding_and_activations() -> None:
    layer = nn.Embedding(7, 3, dtype=DTYPE)
    w = parameter(layer.weight)
    check(layer, lambda i: F.embedding(i, w), R.integers(0, 7, (4, 5)), pairs=[(layer.weight, w)])
    x = R.standard_normal((4, 5))
    for own, other in (
        (nn.GELU(), F.gelu), (nn.GELU(True), lambda x: F.gelu(x, approximate="tanh")), (nn.SiLU(), F.silu), (nn.Softmax(0), lambda x: F.softmax(x, 0)),
        (nn.LeakyReLU(0.3), lambda x: F.leaky_relu(x, 0.3)), (nn.Sigmoid(), torch.sigmoid), (nn.Tanh(), torch.tanh), (nn.ReLU(), F.relu),
    ):  # fmt: skip
        check(own, other, x, pairs=[])
    images = R.standard_normal((2, 3, 8, 8))
    check(nn.AvgPool2d(3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1), images, pairs=[])
    check(nn.MaxPool2d(3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1), images, pairs=[])
    check(nn.GlobalAvgPool2d(), lambda x: x.mean((2, 3)), images, pairs=[])


def heads_theirs(layer: nn.AttentionLayer, weights: list[Any], q: Any, allowed: Any) -> Any:
    """Attention as torch computes it, from our weights."""
    nq, bq, nk, bk, nv, bv, wq, wk, wv, wo = weights
    split = lambda t: t.reshape(*t.shape[:2], layer.num_head, layer.dim_head).swapaxes(1, 2)
    norm = lambda w, b: F.layer_norm(q, w.shape, w, b)
    heads = [split(norm(w, b) @ p) for w, b, p in ((nq, bq, wq), (nk, bk, wk), (nv, bv, wv))]
    mixed = F.scaled_dot_product_attention(*heads, attn_mask=allowed)
    return mixed.swapaxes(1, 2).reshape(*q.shape[:2], -1) @ wo


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_attention_layers(causal: bool, padded: bool) -> None:
    n, steps, width = 2, 5, 8
    layer = nn.AttentionLayer(width, 2, 3, causal=causal, dtype=DTYPE)
    names = ["prenorm_q.weight", "prenorm_q.bias", "prenorm_k.weight", "prenorm_k.bias", "prenorm_v.weight", "prenorm_v.bias",
             "q_projection.weight", "k_projection.weight", "v_projection.weight", "out_projection.weight"]  # fmt: skip
    own = dict(layer.named_parameters())
    assert list(own) and set(own) == set(names)
    for name in names[:6]:
        own[name].cached_data = R.standard_normal(own[name].shape)
    theirs = [parameter(own[name]) for name in names]
    present = np.arange(steps) < np.array([[steps], [3]])
    allowed = torch.ones(n, 1, steps, steps, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    if padded:
        allowed = allowed & torch.tensor(present)[:, None, None, :]

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: ndl.Tensor) -> ndl.Tensor:
            return self.layer(x, mask=ndl.Tensor(present) if padded else None)

    x = R.standard_normal((n, steps, width))
    check(
        Masked(), lambda q: heads_theirs(layer, theirs, q, allowed), x, pairs=list(zip((own[k] for k in names), theirs))
    )


def test_multi_head_attention_returns_its_weights() -> None:
    q, k, v = (ndl.Tensor(R.standard_normal((2, 3, t, 4))) for t in (4, 6, 6))
    attention = nn.MultiHeadAttention(causal=True)
    result, weights = attention(q, k, v)
    np.testing.assert_allclose(weights.numpy().sum(-1), 1)
    assert not weights.numpy()[..., 0, 3:].any() and weights.numpy()[..., 0, :3].all()
    np.testing.assert_allclose(result.numpy(), weights.numpy() @ v.numpy())
    np.testing.assert_allclose(attention.mix(q, k, v).numpy(), result.numpy())
    np.random.seed(0)
    dropped = nn.MultiHeadAttention(dropout=0.5)
    assert not np.allclose(dropped.mix(q, k, v).numpy(), dropped.eval().mix(q, k, v).numpy())


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_transformers_look_back_only(positions: str) -> None:
    model = nn.Transformer(8, 16, 2, num_head=2, dim_head=4, causal=True, batch_first=True, sequence_len=10, positions=positions, dtype=DTYPE)  # fmt: skip
    x = R.standard_normal((2, 6, 8))
    y, state = model(ndl.Tensor(x))
    later = x.copy()
    later[:, 4:] += 1
    changed = np.abs(model(ndl.Tensor(later))[0].numpy() - y.numpy()).max((0, 2))
    assert y.shape == x.shape and not state.numpy().any()
    assert changed[:4].max() < 1e-12 and changed[4:].min() > 1e-6
    steps_first = nn.Transformer(8, 16, 2, num_head=2, dim_head=4, sequence_len=10, positions=positions, dtype=DTYPE)
    steps_first.load_state_dict(model.state_dict())
    np.testing.assert_allclose(steps_first(ndl.Tensor(x.swapaxes(0, 1)))[0].numpy().swapaxes(0, 1), y.numpy())
    if positions == "learned":
        with pytest.raises(ValueError, match="10 steps"):
            model(ndl.Tensor(np.zeros((1, 11, 8))))


def test_padding_changes_nothing_that_is_there() -> None:
    model = nn.Transformer(8, 16, 2, num_head=2, dim_head=4, causal=False, batch_first=True, dtype=DTYPE)
    x = R.standard_normal((1, 6, 8))
    short = model(ndl.Tensor(x[:, :4]))[0].numpy()
    mask = ndl.Tensor(np.arange(6)[None] < 4)
    np.testing.assert_allclose(model(ndl.Tensor(x), mask=mask)[0].numpy()[:, :4], short, atol=1e-12)


@pytest.mark.parametrize("causal", [False, "upper_left"])
def test_a_query_that_a_mask_blinds_gets_zeros_and_no_gradient(causal: object) -> None:
    rng = np.random.default_rng(5)
    q, k, v = (ndl.Tensor(rng.standard_normal((2, 3, 4)).astype("float32")) for _ in range(3))
    hidden = np.zeros((2, 3, 3), "float32")
    hidden[0, 1] = hidden[1, :, 2] = -np.inf
    mask = ndl.Tensor(hidden)
    result = ops.attention(q, k, v, mask, causal)
    weights = ops.attention_weights(q, k, mask, causal)
    np.testing.assert_allclose((weights @ v).numpy(), result.numpy(), rtol=1e-5, atol=1e-6)
    assert (result.numpy()[0, 1] == 0).all() and (weights.numpy()[0, 1] == 0).all()
    (result * result).sum().backward()
    for t in (q, k, v, mask):
        assert np.isfinite(t.grad.numpy()).all()
    assert (q.grad.numpy()[0, 1] == 0).all() and q.grad.numpy()[0, 0].any() == (causal is False)
    exe = tcomp.compile(ndl.trace(lambda q, k, v, m: ops.attention_weights(q, k, m, causal), [q, k, v, mask]))
    np.testing.assert_allclose(exe(q.numpy(), k.numpy(), v.numpy(), hidden), weights.numpy(), rtol=1e-5, atol=1e-6)
