"""PyTorch programs: each operator against eager PyTorch, several in one program."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.errors import TcompError, UnsupportedError

torch = pytest.importorskip("torch")
F = torch.nn.functional
nn = torch.nn


class Calls(nn.Module):
    """The results of some functions of the inputs."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *args: Any) -> Any:
        return tuple(f(*args) for f in self.functions)


def flat(x: Any) -> list[Any]:
    return [y for part in x for y in flat(part)] if isinstance(x, (tuple, list)) else [x]


def check(model: Any, *inputs: Any, rtol: float = 2e-5) -> Any:
    """Compile a model, and compare all its results with PyTorch's."""
    with torch.no_grad():
        want = flat(model(*inputs))
    exe = tcomp.compile(model, list(inputs))
    got = flat(exe(*(x.numpy() for x in inputs)))
    assert len(got) == len(want)
    for g, w in zip(got, want):
        assert g.shape == tuple(w.shape)
        assert g.dtype == w.numpy().dtype
        np.testing.assert_allclose(g, w.numpy(), rtol=rtol, atol=1e-5)
    return exe


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g) for s in shapes]


def test_functions_of_one_tensor() -> None:
    (x,) = tensors((5, 33))
    u = torch.sigmoid(x)
    names = ("abs", "ceil", "cos", "erf", "exp", "expm1", "floor", "neg", "relu", "round", "sigmoid", "sign", "sin", "tan", "tanh",
             "square", "trunc", "isnan", "isfinite", "atan", "asinh", "sinh", "cosh")  # fmt: skip
    check(Calls(*(lambda x, n=n: getattr(torch, n)(x) for n in names)), x)
    positive = ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "asin", "acos", "atanh")
    check(Calls(*(lambda x, n=n: getattr(torch, n)(x) for n in positive)), u * 0.9 + 0.05)
    activations = (F.silu, F.mish, F.hardswish, F.hardsigmoid, F.gelu, F.leaky_relu, F.elu, F.selu, F.celu, F.softplus, F.softsign,
                   F.relu6, F.logsigmoid, F.hardtanh, lambda x: F.gelu(x, approximate="tanh"), lambda x: F.glu(x[:, :32]),
                   lambda x: F.threshold(x, 0.1, 7.0), lambda x: F.softplus(x, 2.0, 1.0))  # fmt: skip
    check(Calls(*activations), x)


def test_functions_of_two_tensors() -> None:
    a, b = tensors((4, 1, 9), (3, 9))
    b = b + torch.sign(b) * 0.5
    pairs = (lambda a, b: a + b, lambda a, b: torch.sub(a, b, alpha=2), lambda a, b: a * b, lambda a, b: a / b, torch.maximum, torch.minimum,
             lambda a, b: a.abs() ** b, lambda a, b: 3 - a, lambda a, b: torch.div(a, b, rounding_mode="floor"), lambda a, b: a.clamp(-0.5, 0.5),
             lambda a, b: torch.div(a, b, rounding_mode="trunc"), torch.fmod, torch.remainder, lambda a, b: a > b, lambda a, b: a <= 0,
             lambda a, b: torch.where(a > 0, a, 0.0), lambda a, b: torch.addcmul(a, a, b, value=0.5), lambda a, b: a**3, lambda a, b: 2.0**a,
             lambda a, b: (a > 0) & (b > 0), lambda a, b: (a > 0) ^ (b > 0), lambda a, b: a.masked_fill(b > 0, -1.0),
             lambda a, b: torch.lerp(a, a * 2, 0.3), lambda a, b: torch.clamp(a, min=b), lambda a, b: a.clamp_min(0.0))  # fmt: skip
    check(Calls(*pairs), a, b)
    i, j = torch.arange(-20, 20).reshape(5, 8), torch.tensor([3, -2, 7, 1, -5, 2, 4, -1])
    integers = (lambda a, b: a // b, lambda a, b: a % b, lambda a, b: torch.div(a, b, rounding_mode="trunc"), lambda a, b: a & b,
                lambda a, b: a | b, lambda a, b: ~a, lambda a, b: a + 1.5, lambda a, b: a == b, lambda a, b: a * 2, lambda a, b: a / b,
                lambda a, b: a.float().mean(), lambda a, b: a.sum(), lambda a, b: a**2, lambda a, b: a.to(torch.int32))  # fmt: skip
    check(Calls(*integers), i, j)


def test_movement() -> None:
    x, y = tensors((3, 4, 6), (3, 4, 6))
    index = torch.tensor([2, 0, 1, 1])
    moves = (lambda x, y: x.reshape(4, -1), lambda x, y: x.permute(2, 0, 1), lambda x, y: x.transpose(0, 2), lambda x, y: x[:, None].squeeze(1),
             lambda x, y: x[:, :1].expand(3, 5, 6), lambda x, y: torch.cat([x, y], 1), lambda x, y: torch.stack([x, y], -1), lambda x, y: x.split(2, 2),
             lambda x, y: x.split([1, 3], 1), lambda x, y: x.chunk(2, 2), lambda x, y: x.unbind(1), lambda x, y: x[1], lambda x, y: x[:, -1],
             lambda x, y: x[:, 1:3, ::2], lambda x, y: x.flip(1, 2), lambda x, y: x.roll(2, 1), lambda x, y: x.repeat(2, 1, 3), lambda x, y: x.tril(1),
             lambda x, y: x.triu(), lambda x, y: F.pad(x, (1, 2, 0, 3), value=2.0), lambda x, y: F.pad(x, (2, 1), mode="reflect"), lambda x, y: x.flatten(1),
             lambda x, y: F.pad(x, (2, 1), mode="replicate"), lambda x, y: x.repeat_interleave(2, 1), lambda x, y: x + torch.arange(6),
             lambda x, y: torch.full_like(x, 2.0), lambda x, y: torch.eye(3, 4), lambda x, y: x.movedim(0, 2), lambda x, y: x.narrow(1, 1, 2))  # fmt: skip
    check(Calls(*moves), x, y)
    places = (lambda x, i: x[:, i], lambda x, i: x[i[:3], i[1:]], lambda x, i: x[:, i[:, None] % 4, i % 6], lambda x, i: x.index_select(1, i),
              lambda x, i: x[:, :, :4].gather(1, i.expand(3, 2, 4)), lambda x, i: F.embedding(i, x[0]), lambda x, i: torch.zeros(3, 4, 6).scatter(1, i.expand(3, 1, 4), x),
              lambda x, i: torch.zeros(3, 4, 6).scatter_add(1, i.expand(3, 2, 4), x))  # fmt: skip
    check(Calls(*places), x, index)


def test_reductions_and_order() -> None:
    (x,) = tensors((4, 9, 5))
    check(Calls(torch.mean, torch.sum, lambda x: x.mean((0, 2)), lambda x: x.sum(1, keepdim=True), lambda x: x.prod(1), lambda x: x.amax((1, 2)),
                lambda x: x.max(1), lambda x: x.min(2), lambda x: x.argmax(1), lambda x: x.argmin(), lambda x: x.var(1), lambda x: x.std((0, 1)),
                lambda x: torch.var_mean(x, 1), lambda x: x.norm(dim=1), lambda x: torch.linalg.vector_norm(x, 3, 1), lambda x: x.logsumexp(1),
                lambda x: x.softmax(1), lambda x: x.log_softmax(2), lambda x: x.cumsum(1), lambda x: x.diff(dim=1), lambda x: x.topk(3, 1),
                lambda x: x.sort(1), lambda x: x.argsort(1, descending=True), lambda x: (x > 0).any(1), lambda x: (x > -9).all(), torch.max), x)  # fmt: skip


def test_products() -> None:
    a, b, c, d = tensors((5, 7), (7, 3), (5, 3), (2, 5, 7))
    check(Calls(lambda a, b, c, d: a @ b, lambda a, b, c, d: torch.addmm(c, a, b, alpha=0.5), lambda a, b, c, d: d @ b, lambda a, b, c, d: a[0] @ b,
                lambda a, b, c, d: torch.einsum("bij,jk->bik", d, b), lambda a, b, c, d: F.linear(d, b.T), lambda a, b, c, d: torch.bmm(d, d.mT)),
          a, b, c, d)  # fmt: skip


def test_convolutions_and_pooling() -> None:
    x, row = tensors((2, 6, 11, 9), (2, 4, 15))
    torch.manual_seed(0)
    layers = [nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.Conv2d(6, 6, 3, groups=6, padding="same"), nn.Conv2d(6, 4, (3, 1), dilation=2, bias=False),
              nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True),
              nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((4, 3)),
              nn.MaxPool2d(3, 2, dilation=2), nn.Upsample(scale_factor=2), nn.Upsample(size=(15, 20), mode="bilinear"), nn.PixelShuffle(1),
              nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.MaxPool2d(3, 2, 1, return_indices=True)]  # fmt: skip
    for layer in layers:
        check(layer, x)
    for layer in (
        nn.Conv1d(4, 6, 3, padding=1, stride=2),
        nn.ConvTranspose1d(4, 3, 4, stride=2),
        nn.MaxPool1d(2),
        nn.AvgPool1d(3, 2, 1),
    ):
        check(layer, row)
    check(nn.Conv3d(2, 4, 3, padding=1), *tensors((1, 2, 4, 6, 5)))


def test_normalisation_and_attention() -> None:
    x, q = tensors((3, 6, 5, 4), (2, 4, 7, 8))
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    for layer in (norm, nn.GroupNorm(3, 6), nn.LayerNorm((5, 4)), nn.InstanceNorm2d(6, affine=True), nn.RMSNorm(4)):
        check(layer, x)
    mask = torch.ones(7, 7).tril().bool()
    sdpa = F.scaled_dot_product_attention
    check(Calls(lambda q, m: sdpa(q, q, q), lambda q, m: sdpa(q, q, q, is_causal=True), lambda q, m: sdpa(q, q, q, attn_mask=m),
                lambda q, m: sdpa(q, q[:, :2], q[:, :2], scale=0.3, enable_gqa=True)), q, mask)  # fmt: skip
    check(nn.MultiheadAttention(8, 2, batch_first=True).eval(), q[0], q[0], q[0])
    check(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), q[0])


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_scans(layer: Any) -> None:
    torch.manual_seed(0)
    exe = check(layer(5, 6, num_layers=2, bidirectional=True, batch_first=True), *tensors((3, 9, 5)))
    assert "scan" in exe.ir("graph")


def test_16_bit_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    model = nn.Linear(8, 5).bfloat16()
    exe = tcomp.compile(Calls(lambda x: model(x.bfloat16()).float()), [x])
    np.testing.assert_allclose(exe(x.numpy()), model(x.bfloat16()).float().detach().numpy(), rtol=1e-2, atol=1e-2)


def test_exported_programs_and_names() -> None:
    class Model(nn.Module):
        def forward(self, left: Any, right: Any) -> Any:
            return left + right, left * right

    a, b = tensors((3, 4), (3, 4))
    exe = tcomp.compile(torch.export.export(Model(), (a, b)))
    total, product = exe(left=a.numpy(), right=b.numpy())
    assert np.allclose(total, a + b) and np.allclose(product, a * b)
    assert [s.name for s in exe.outputs] == ["output0", "output1"]


def test_refusals_say_what_and_why() -> None:
    x = torch.randn(4, 6, 5, 5)
    with pytest.raises(UnsupportedError, match=r"(?s)2 problems.*bucketize.*linalg_qr") as error:
        tcomp.compile(Calls(lambda x: torch.bucketize(x, x[0, 0, 0]), lambda x: torch.linalg.qr(x)[0]), [x])
    assert "Calls" in str(error.value)
    with pytest.raises(UnsupportedError, match="changes"):
        tcomp.compile(nn.BatchNorm2d(6), [x])
    with pytest.raises(TcompError, match="example inputs"):
        tcomp.compile(nn.ReLU())

    class Loops(nn.Module):
        def forward(self, x: Any) -> Any:
            while x.sum() > 0:
                x = x - 1
            return x

    with pytest.raises(TcompError, match="torch.export cannot export this Loops"):
        tcomp.compile(Loops(), [x])
