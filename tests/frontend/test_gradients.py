"""Every operator beside torch, in float64: values, gradients, gradients of gradients; over random, empty and single extents.

A case is written for shapes of letters, which are drawn anew each time: "ab" and "b" are tensors of two axes and of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import ops
from frontend.autograd import find_topo_sort
from frontend.modes import keep_graph
from frontend.trace import infer


class _Absent:
    """Stands for torch where it is missing: the table of cases can be made, and is checked by central differences alone."""

    def __getattr__(self, name: str) -> Any:
        return _Absent()

    def __call__(self, *args: Any, **named: Any) -> Any:
        return _Absent()


try:
    import torch
except ImportError:
    torch = _Absent()
F = torch.nn.functional
needs_torch = pytest.mark.skipif(isinstance(torch, _Absent), reason="compares with torch")


@dataclass(frozen=True)
class Case:
    """An operator, ours and torch's.

    Attributes:
        shapes: one a tensor, in letters, or as tuples where the operator fixes them.
        domain: n(ormal) or p(ositive).
        may_be_empty: also with extents of 0.
        tolerance: what values may differ by, relatively and absolutely.
    """

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    shapes: tuple[Any, ...]
    domain: str = "n"
    may_be_empty: bool = True
    tolerance: float = 1e-9


def both(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(ops, name), getattr(torch, name)


CASES: list[Case] = []


def case(name: str, ours: Any, theirs: Any, *shapes: Any, **more: Any) -> None:
    CASES.append(Case(name, ours, theirs, shapes, **more))


for _name, _theirs in (("add", torch.add), ("subtract", torch.sub), ("multiply", torch.mul), ("maximum", torch.maximum), ("minimum", torch.minimum)):  # fmt: skip
    for _shapes in (("abc", "abc"), ("abc", "c"), ("a1c", "1b1"), ("", "ab"), ("b1", "abc")):
        case(f"{_name} {_shapes}", getattr(ops, _name), _theirs, *_shapes)
for _shapes in (("abc", "abc"), ("ab", "b"), ("a1", "1b"), ("", "ab")):
    case(f"divide {_shapes}", ops.divide, torch.div, *_shapes, domain="p")
    case(f"power {_shapes}", ops.power, torch.pow, *_shapes, domain="p")
for _name in ("exp", "sin", "cos", "tanh", "sigmoid", "erf", "abs", "relu", "negative"):
    case(_name, getattr(ops, "negate" if _name == "negative" else _name), getattr(torch, _name), "abc")
    case(f"{_name} scalar", getattr(ops, "negate" if _name == "negative" else _name), getattr(torch, _name), "")
for _name in ("log", "sqrt", "log1p"):
    case(_name, *both(_name), "abc", domain="p")
case("silu", ops.silu, F.silu, "abc")
case("gelu", ops.gelu, F.gelu, "abc")
case("gelu tanh", lambda a: ops.gelu(a, approximate=True), lambda a: F.gelu(a, approximate="tanh"), "abc")
case("leaky_relu", lambda a: ops.leaky_relu(a, 0.2), lambda a: F.leaky_relu(a, 0.2), "abc")
case("sign", lambda a: ops.sign(a) * a, lambda a: torch.sign(a) * a, "ab")
for _name in ("floor", "ceil", "round"):
    case(_name, lambda a, n=_name: getattr(ops, n)(a * 3) * a, lambda a, n=_name: getattr(torch, n)(a * 3) * a, "ab")
case("clip", lambda a: ops.clip(a, -0.5, 0.7), lambda a: torch.clamp(a, -0.5, 0.7), "abc")
case("clip low", lambda a: ops.clip(a, low=0.1), lambda a: torch.clamp(a, min=0.1), "abc")
case("where", lambda a, b: ops.where(a > b, a * b, a + b), lambda a, b: torch.where(a > b, a * b, a + b), "abc", "c")
for _name, _theirs in (("equal", torch.eq), ("not_equal", torch.ne), ("less", torch.lt), ("less_equal", torch.le), ("greater", torch.gt), ("greater_equal", torch.ge)):  # fmt: skip
    case(_name, lambda a, b, n=_name: ops.where(getattr(ops, n)(ops.sign(a), ops.sign(b)), a * b, a), lambda a, b, f=_theirs: torch.where(f(a.sign(), b.sign()), a * b, a), "abc", "c")  # fmt: skip
for _name in ("logical_and", "logical_or"):
    case(_name, lambda a, b, n=_name: ops.where(ops.logical_not(getattr(ops, n)(a > 0, b > 0)), a * b, b), lambda a, b, n=_name: torch.where(~getattr(torch, n)(a > 0, b > 0), a * b, b), "ab", "b")  # fmt: skip
case("where number", lambda a: ops.where(a <= 0.0, 2.0, a * a), lambda a: torch.where(a <= 0.0, 2.0, a * a), "ab")
case(
    "cast",
    lambda a: ops.cast(ops.cast(a, "float32"), "float64") * a,
    lambda a: a.float().double() * a,
    "ab",
    tolerance=1e-6,
)
for _n in (0, 1, 2, 3, 0.5, -1, -2.5):
    case(f"power_scalar {_n}", lambda a, n=_n: a**n, lambda a, n=_n: a**n, "ab", domain="p")
case("scalar forms", lambda a: (2 - a * 3 + 1) / 4 - 5 / a, lambda a: (2 - a * 3 + 1) / 4 - 5 / a, "ab", domain="p")
case("rpow", lambda a: 2**a, lambda a: 2**a, "ab")
case("sums of tensors", lambda a, b: -a + b - a * b / 3, lambda a, b: -a + b - a * b / 3, "ab", "ab")

for _axes in (None, 0, -1, (0, 2), (-1, 1), ()):
    _dim = tuple(range(3)) if _axes is None else _axes
    for _keep in (False, True):
        _id = f"{_axes} {_keep}"
        if _axes != ():  # torch takes () for all
            case(f"sum {_id}", lambda a, x=_axes, k=_keep: ops.summation(a, x, k), lambda a, x=_dim, k=_keep: a.sum(x, k), "abc")  # fmt: skip
            case(f"mean {_id}", lambda a, x=_axes, k=_keep: a.mean(x, k), lambda a, x=_dim, k=_keep: a.mean(x, k), "abc", may_be_empty=False)  # fmt: skip
            for _name in ("max", "min"):
                case(f"{_name} {_id}", lambda a, x=_axes, k=_keep, n=_name: getattr(ops, n)(a, x, k), lambda a, x=_dim, k=_keep, n=_name: getattr(torch, f"a{n}")(a, x, k), "abc", may_be_empty=False)  # fmt: skip
            case(f"var {_id}", lambda a, x=_axes, k=_keep: a.var(x, k), lambda a, x=_dim, k=_keep: torch.var(a, x, correction=0, keepdim=k), "abc", may_be_empty=False)  # fmt: skip
    if _axes != ():
        case(f"logsumexp {_axes}", lambda a, x=_axes: ops.logsumexp(a, x), lambda a, x=_dim: torch.logsumexp(a, x), "abc", may_be_empty=False)  # fmt: skip
for _axis in (0, -1, 1):
    case(f"prod {_axis}", lambda a, x=_axis: ops.prod(a, x), lambda a, x=_axis: torch.prod(a, x), "abc")
case("prod with a zero", lambda a: ops.prod(ops.clip(a, low=0.0)), lambda a: torch.prod(torch.clamp(a, min=0.0)), (4,))
case("prod kept", lambda a: ops.prod(a, None, True), lambda a: a.prod().reshape(1, 1), "ab")
case("var unbiased", lambda a: a.var(1, ddof=1), lambda a: torch.var(a, 1, correction=1), (4, 3))
case("max of ties", lambda a: ops.max(a * 0 + 1, -1), lambda a: torch.amax(a * 0 + 1, -1), "ab", may_be_empty=False)
for _axis in (0, -1, 1):
    case(f"softmax {_axis}", lambda a, x=_axis: ops.softmax(a, x), lambda a, x=_axis: torch.softmax(a, x), "abc", may_be_empty=False)  # fmt: skip
    case(f"logsoftmax {_axis}", lambda a, x=_axis: ops.logsoftmax(a, x), lambda a, x=_axis: torch.log_softmax(a, x), "abc", may_be_empty=False)  # fmt: skip
    case(f"argmin {_axis}", lambda a, x=_axis: ops.cast(ops.argmin(a, x), "float64") * a.sum(), lambda a, x=_axis: a.argmin(x) * a.sum(), "abc", may_be_empty=False)  # fmt: skip
    case(f"argmax {_axis}", lambda a, x=_axis: ops.cast(ops.argmax(a, x), "float64") * a.sum(), lambda a, x=_axis: a.argmax(x) * a.sum(), "abc", may_be_empty=False)  # fmt: skip

for _shapes in (("ab", "bc"), ("dab", "dbc"), ("edab", "bc"), ("ab", "dbc"), ("d1ab", "ebc"), ("b", "bc"), ("ab", "b"), ("b", "b"), ("dab", "b"), ("b", "dbc")):  # fmt: skip
    case(f"matmul {_shapes}", ops.matmul, torch.matmul, *_shapes)
for _spec in ("ab,bc->ac", "ab,bc", "abc,cd->dab", "aab->b", "aa", "ab->ba", "ab->", "a,b->ab", "ab,ab->", "abc,abd->acd", "ab,bc,cd->ad", "aab,bcb->ac", "ab,cd->b"):  # fmt: skip
    case(f"einsum {_spec}", lambda *t, s=_spec: ops.einsum(s, *t), lambda *t, s=_spec: torch.einsum(s, *t), *_spec.partition("->")[0].split(","))  # fmt: skip

case("transpose", ops.transpose, lambda a: a.swapaxes(-1, -2), "abc")
case("transpose pair", lambda a: ops.transpose(a, (0, -1)), lambda a: a.swapaxes(0, -1), "abcd")
case("transpose all", lambda a: ops.transpose(a, (2, 0, 1)), lambda a: a.permute(2, 0, 1), "abc")
case("T", lambda a: a.T * a.T, lambda a: a.permute(2, 1, 0) ** 2, "abc")
case("permute", lambda a: ops.permute(a, (-1, 0, 1)), lambda a: a.permute(2, 0, 1), "abc")
case("reshape", lambda a: a.reshape(-1) * 2, lambda a: a.reshape(-1) * 2, "abc", may_be_empty=False)
case("reshape two", lambda a: ops.reshape(a, (6, 4)), lambda a: a.reshape(6, 4), (2, 3, 4))
case("broadcast_to", lambda a: ops.broadcast_to(a, (2, 3, *a.shape)), lambda a: a.expand(2, 3, *a.shape), "ab")
case("broadcast_to ones", lambda a: ops.broadcast_to(a, (2, 3, 4)), lambda a: a.expand(2, 3, 4), (3, 1))
case("squeeze", lambda a: ops.squeeze(a, (0, -1)), lambda a: a.squeeze((0, -1)), "1ab1")
case("expand_dims", lambda a: ops.expand_dims(a, -1) * a.sum(), lambda a: a.unsqueeze(-1) * a.sum(), "ab")
for _axis in (0, 1, -1):
    case(f"stack {_axis}", lambda a, b, x=_axis: ops.stack([a, b, a], x), lambda a, b, x=_axis: torch.stack([a, b, a], x), "ab", "ab")  # fmt: skip
    case(f"split {_axis}", lambda a, x=_axis: ops.split(a, x)[0] * ops.split(a, x)[-1], lambda a, x=_axis: a.unbind(x)[0] * a.unbind(x)[-1], "abc", may_be_empty=False)  # fmt: skip
    case(f"concat {_axis}", lambda a, b, x=_axis: ops.concat([a, b * 2, a], x), lambda a, b, x=_axis: torch.cat([a, b * 2, a], x), "ab", "ab")  # fmt: skip
    case(f"flip {_axis}", lambda a, x=_axis: ops.flip(a, (x,)), lambda a, x=_axis: a.flip(x), "abc")


def _one_split(a: Any) -> Any:
    parts = ops.split(a, 0)
    return parts[0] * parts[-1] + parts[0]


case("make_tuple", lambda a, b: ops.tuple_get_item(ops.make_tuple(a, b * a), 1) * ops.make_tuple(a, b)[0], lambda a, b: a * b * a, "ab", "b")  # fmt: skip
case("members of one tuple", _one_split, lambda a: a[0] * a[-1] + a[0], "ab", may_be_empty=False)
case("dilate", lambda a: ops.undilate(ops.dilate(a, (0, -1), 2) * 3, (0,), 2), lambda a: F.pad(a[..., None], (0, 2)).reshape(a.shape[0], -1) * 3, "ab", may_be_empty=False)  # fmt: skip
case("pad", lambda a: ops.pad(a, ((1, 0), (0, 2))), lambda a: F.pad(a, (0, 2, 1, 0)), "ab")
case("pad value", lambda a: ops.pad(a, ((1, 2), (0, 0)), 3.0), lambda a: F.pad(a, (0, 0, 1, 2), value=3.0), "ab")
case("slice_axes", lambda a: ops.slice_axes(a, (1, 0), (5, 4), (2, 3)), lambda a: a[1:5:2, 0:4:3], (6, 5))
for _index in ((1, slice(None)), (slice(None, None, 2), -1), (..., 0), (None, slice(1, 3), ..., None), (slice(None, None, -1),), (slice(4, 0, -2), slice(1, 1)), 2, -3):  # fmt: skip
    # torch has no negative steps: NumPy says which elements they are
    _where = np.arange(30).reshape(5, 6)[_index]
    case(f"getitem {_index}", lambda a, i=_index: a[i], lambda a, w=_where: a.reshape(-1)[torch.tensor(w.copy())], (5, 6))  # fmt: skip
_rows = np.array([[0, 2, -1], [2, 2, 1]])
case("take", lambda a: ops.take(a, _rows), lambda a: a[torch.tensor(_rows)], (4, 3))
case("take axis", lambda a: ops.take(a, _rows, -1), lambda a: a[..., torch.tensor(_rows)], (2, 4))
case("getitem tensor", lambda a: a[ndl.Tensor(_rows)], lambda a: a[torch.tensor(_rows)], (4, 3))
case("one_hot", lambda a: ops.matmul(ops.one_hot(4, ndl.Tensor(np.array([3, 0])), "float64"), a), lambda a: a[[3, 0]], (4, "b"))  # fmt: skip
case("stop_gradient", lambda a: a.detach() * a * a.data, lambda a: a.detach() * a * a.detach(), "ab")

for _k, _s, _p in ((2, None, 0), (3, 2, 1), (2, 1, 0), ((3, 2), (1, 2), (1, 0)), (3, 1, 1), (2, 3, 0)):
    for _name in ("max_pool2d", "avg_pool2d"):
        case(f"{_name} {_k} {_s} {_p}", lambda a, k=_k, s=_s, p=_p, n=_name: getattr(ops, n)(a, k, s, p), lambda a, k=_k, s=_s, p=_p, n=_name: getattr(F, n)(a, k, s, p), ("b", 3, 6, 8))  # fmt: skip


def _first(t: Any) -> Any:
    """Channels last, as torch has them: first."""
    return t.movedim(-1, 1)


def _conv_theirs(dims: int, **settings: Any) -> Callable[..., Any]:
    f = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return lambda a, b: f(_first(a), b.movedim(-1, 0).movedim(-1, 1), **settings).movedim(1, -1)


def _transpose_theirs(dims: int, **settings: Any) -> Callable[..., Any]:
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    return lambda a, b: f(_first(a), b.movedim(-1, 0).movedim(-1, 1), **settings).movedim(1, -1)


for _dims, _image, _kernel, _more in (
    (2, (2, 6, 7, 4), (3, 3, 4, 5), {}), (2, (2, 6, 7, 4), (3, 3, 4, 5), {"padding": 1}),
    (2, (1, 7, 8, 4), (3, 2, 4, 2), {"stride": 2, "padding": 1}), (2, (1, 7, 8, 4), (2, 3, 4, 2), {"stride": (3, 1), "padding": (0, 2)}),
    (2, (1, 9, 8, 4), (3, 3, 2, 6), {"dilation": 2, "groups": 2, "padding": 2}), (2, (2, 5, 5, 3), (3, 3, 1, 6), {"groups": 3, "stride": 2}),
    (2, (1, 6, 5, 4), (3, 3, 1, 4), {"groups": 4, "padding": 1}),
    (2, (1, 5, 6, 2), (1, 1, 2, 3), {"stride": 2}), (2, (1, 4, 4, 1), (2, 2, 1, 3), {"padding": 2}),
    (1, (2, 9, 4), (3, 4, 5), {"padding": 1, "stride": 2}), (1, (2, 9, 4), (3, 2, 6), {"dilation": 2, "groups": 2}),
    (3, (1, 4, 5, 4, 2), (2, 3, 2, 2, 3), {"padding": 1, "stride": (1, 2, 1)}),
):  # fmt: skip
    case(f"conv {_image} {_kernel} {_more}", lambda a, b, m=_more: ops.conv(a, b, **m), _conv_theirs(_dims, **_more), _image, _kernel)  # fmt: skip
for _dims, _image, _kernel, _more in (
    (2, (2, 3, 4, 4), (3, 3, 5, 4), {}), (2, (1, 3, 4, 4), (3, 2, 5, 4), {"stride": 2, "padding": 1}),
    (2, (1, 3, 4, 4), (3, 3, 1, 4), {"stride": 3, "output_padding": 1, "groups": 2}),
    (3, (1, 3, 2, 4, 4), (2, 3, 2, 3, 4), {"stride": 2, "padding": (0, 2, 1), "output_padding": 1, "groups": 2}),
    (3, (2, 3, 3, 2, 3), (2, 2, 2, 2, 3), {"stride": (1, 2, 3), "dilation": (2, 1, 1), "padding": (1, 1, 0)}),
    (2, (1, 4, 4, 2), (3, 3, 3, 2), {"dilation": 2, "padding": 2}), (1, (2, 5, 4), (3, 3, 4), {"stride": 2, "output_padding": 1}),
):  # fmt: skip
    case(f"conv_transpose {_image} {_kernel} {_more}", lambda a, b, m=_more: ops.conv_transpose(a, b, **m), _transpose_theirs(_dims, **_more), _image, _kernel)  # fmt: skip
case("layer_norm", lambda a, w, b: ops.layer_norm(a, w, b), lambda a, w, b: F.layer_norm(a, w.shape, w, b), "abc", "c", "c", may_be_empty=False)  # fmt: skip
case("rms_norm", lambda a, w: ops.rms_norm(a, w, 1e-5), lambda a, w: F.rms_norm(a, w.shape, w, 1e-5), "abc", "c", may_be_empty=False)  # fmt: skip
for _axis in (1, 2):

    def _batch_theirs(x: Any, w: Any, b: Any, m: Any, v: Any, axis: int = _axis) -> Any:
        w, b, m, v = (p.reshape([-1 if d == axis else 1 for d in range(3)]) for p in (w, b, m, v * v))
        return (x - m) / torch.sqrt(v + 1e-3) * w + b

    _c = "abc"[_axis]
    case(f"batch_norm {_axis}", lambda x, w, b, m, v, axis=_axis: ops.batch_norm(x, w, b, m, v * v, axis, 1e-3), _batch_theirs, "abc", _c, _c, _c, _c)  # fmt: skip


def _attention_theirs(q: Any, k: Any, v: Any, *mask: Any, causal: bool = False) -> Any:
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    for m in mask:
        scores = scores + m
    if causal:
        later = torch.ones(scores.shape[-2:]).triu(1 + scores.shape[-1] - scores.shape[-2]).bool()
        scores = scores.masked_fill(later, -math.inf)
    return torch.softmax(scores, -1) @ v


case("attention", ops.attention, _attention_theirs, "nabd", "nacd", "nace", may_be_empty=False)
case("attention mask", ops.attention, _attention_theirs, "nabd", "acd", "nace", "1bc", may_be_empty=False)
case("attention causal", lambda q, k, v: ops.attention(q, k, v, causal=True), lambda q, k, v: _attention_theirs(q, k, v, causal=True), (2, "n", 3, "d"), (2, "n", 5, "d"), (2, "n", 5, "e"), may_be_empty=False)  # fmt: skip

IDS = [c.name for c in CASES]


def arrays_for(c: Case, rng: np.random.Generator, extents: dict[str, int]) -> list[np.ndarray]:
    found = []
    for shape in c.shapes:
        full = tuple(int(s) if isinstance(s, str) and s.isdigit() else extents.get(s, s) for s in shape)
        x = rng.standard_normal(full)
        found.append(x if c.domain == "n" else np.abs(x) + 0.5)
    return found


def draws(c: Case, seed: int) -> list[list[np.ndarray]]:
    """Inputs of random extents; of extents of 1; of an extent of 0."""
    rng = np.random.default_rng(seed)
    letters = sorted({s for shape in c.shapes for s in shape if isinstance(s, str) and s.isalpha()})
    some = [dict(zip(letters, rng.integers(2, 6, len(letters)).tolist()))]
    if letters:
        some.append(dict.fromkeys(letters, 1))
        if c.may_be_empty:
            some += [{**some[0], x: 0} for x in letters]
    return [arrays_for(c, rng, extents) for extents in some]


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    a, b = ours.numpy(), theirs.detach().numpy(force=True)
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


NOT_BY_DIFFERENCES = {"cast": "it rounds to float32", "stop_gradient": "its gradient is not its derivative"}


@pytest.mark.parametrize("c", [c for c in CASES if c.name not in NOT_BY_DIFFERENCES], ids=lambda c: c.name)
def test_gradients_are_central_differences(c: Case) -> None:
    """Along random directions: (f(x + eps d) - f(x - eps d)) / (2 eps) = <grad, d>."""
    eps = 1e-5
    arrays = draws(c, 5)[0]
    rng = np.random.default_rng(9)
    xs = [ndl.Tensor(a) for a in arrays]
    out = c.ours(*xs)
    weight = rng.standard_normal(out.shape)
    found = ndl.gradients([out], xs, [ndl.Tensor(weight)])
    for number, (x, g) in enumerate(zip(arrays, found)):
        direction = rng.standard_normal(x.shape)

        def at(step: float, number: int = number, direction: np.ndarray = direction) -> float:
            moved = [ndl.Tensor(a + step * direction if i == number else a) for i, a in enumerate(arrays)]
            return float((c.ours(*moved).numpy() * weight).sum())

        slope, got = (at(eps) - at(-eps)) / (2 * eps), float((g.numpy() * direction).sum())
        assert math.isclose(got, slope, rel_tol=1e-5, abs_tol=1e-5 * max(1.0, float(np.abs(weight).sum())))


@needs_torch
@pytest.mark.parametrize("c", CASES, ids=IDS)
def test_values_and_derivatives(c: Case) -> None:
    for number, arrays in enumerate(draws(c, len(c.name))):
        rng = np.random.default_rng(number)
        ours = [ndl.Tensor(a) for a in arrays]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        out, expected = c.ours(*ours), c.theirs(*theirs)
        close(out, expected, c.tolerance)
        weight = rng.standard_normal(out.shape)
        found = ndl.gradients([out], ours, [ndl.Tensor(weight)])
        wanted = torch.autograd.grad(
            (expected * torch.tensor(weight)).sum(), theirs, create_graph=True, materialize_grads=True
        )
        for g, w in zip(found, wanted):
            close(g, w, c.tolerance)
        v = [rng.standard_normal(a.shape) for a in arrays]
        second = ndl.gradients(list(found), ours, [ndl.Tensor(x) for x in v])
        total = sum((g * torch.tensor(x)).sum() for g, x in zip(wanted, v))
        if not total.requires_grad:  # linear: there is nothing to differentiate
            assert not any(g.numpy().any() for g in second)
            continue
        for g, w in zip(second, torch.autograd.grad(total, theirs, materialize_grads=True)):
            close(g, w, c.tolerance)


@pytest.mark.parametrize("c", CASES, ids=IDS)
def test_forward_mode_is_the_transpose_of_reverse_mode(c: Case) -> None:
    """<w, J t> = <J^T w, t>."""
    arrays = draws(c, 3)[0]
    rng = np.random.default_rng(7)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    out, tangent = ndl.jvp(c.ours, arrays, directions)
    assert tangent.shape == out.shape and tangent.dtype == out.dtype
    weight = rng.standard_normal(out.shape)
    xs = [ndl.Tensor(a) for a in arrays]
    found = ndl.gradients([c.ours(*xs)], xs, [ndl.Tensor(weight)])
    back = sum(float((g.numpy() * d).sum()) for g, d in zip(found, directions))
    assert math.isclose(float((tangent.numpy() * weight).sum()), back, rel_tol=c.tolerance, abs_tol=c.tolerance)


def derivatives(c: Case, weights: list[np.ndarray]) -> Callable[..., list[ndl.Tensor]]:
    """The value and the gradients of a case, as one function to trace."""

    def f(*xs: ndl.Tensor) -> list[ndl.Tensor]:
        out = c.ours(*xs)
        return [out, *ndl.gradients([out], xs, [ndl.Tensor.make_const(weights[0])])]

    return f


@pytest.mark.parametrize("c", CASES, ids=[c.name for c in CASES])
def test_values_and_gradients_are_traced(c: Case) -> None:
    """The graph of a case and of its gradients, evaluated by the operators' references."""
    arrays = draws(c, 11)[0]
    out = c.ours(*map(ndl.Tensor, arrays))
    f = derivatives(c, [np.random.default_rng(1).standard_normal(out.shape)])
    traced = tcomp.evaluate(ndl.trace(f, arrays), arrays)
    for x, y in zip(traced, f(*map(ndl.Tensor, arrays)), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y.numpy(), rtol=c.tolerance, atol=c.tolerance)


@pytest.mark.parametrize("c", CASES, ids=[c.name for c in CASES])
def test_a_trace_knows_types_and_computes_nothing(c: Case) -> None:
    """Of every operator in a case and in its gradients; asked for values afterwards, it computes those that it foretold."""
    arrays = draws(c, 13)[0]
    xs = [ndl.Tensor.make_const(a, requires_grad=True) for a in arrays]
    with keep_graph(infer):
        out = c.ours(*xs)
        results = [out, *ndl.gradients([out], xs, [ndl.Tensor.make_const(np.ones(out.shape))])]
    nodes = [n for n in find_topo_sort(results) if n.op is not None]
    assert all(n.cached_data is None for n in nodes), [type(n.op).__name__ for n in nodes if n.cached_data is not None]
    for node in nodes:
        told = node.known
        made = node.realize_cached_data()
        pairs = zip(told, made, strict=True) if isinstance(made, tuple) else [(told, made)]
        assert all((a.shape, a.dtype, a.size) == (b.shape, b.dtype, b.size) for a, b in pairs), type(node.op).__name__


@pytest.mark.parametrize(
    "name",
    ["gelu", "clip", "power ('ab', 'b')", "max (0, 2) False", "logsumexp (0, 2)", "softmax 1", "take axis", "einsum aab,bcb->ac",
     "members of one tuple", "max_pool2d 3 2 1", "avg_pool2d 2 None 0", "layer_norm", "batch_norm 1", "getitem (slice(4, 0, -2), slice(1, 1, None))",
     "conv (1, 9, 8, 4) (3, 3, 2, 6) {'dilation': 2, 'groups': 2, 'padding': 2}",
     "conv (2, 5, 5, 3) (3, 3, 1, 6) {'groups': 3, 'stride': 2}", "conv (1, 6, 5, 4) (3, 3, 1, 4) {'groups': 4, 'padding': 1}",
     "conv (1, 4, 5, 4, 2) (2, 3, 2, 2, 3) {'padding': 1, 'stride': (1, 2, 1)}",
     "conv_transpose (1, 3, 2, 4, 4) (2, 3, 2, 3, 4) {'stride': 2, 'padding': (0, 2, 1), 'output_padding': 1, 'groups': 2}",
     "conv_transpose (1, 3, 4, 4) (3, 3, 1, 4) {'stride': 3, 'output_padding': 1, 'groups': 2}", "attention causal"],
)  # fmt: skip
@pytest.mark.drawn(1 / 2)
def test_values_and_gradients_compile(name: str) -> None:
    (c,) = [c for c in CASES if c.name == name]
    arrays = [a.astype("float32") for a in draws(c, 12)[0]]
    out = c.ours(*map(ndl.Tensor, arrays))
    f = derivatives(c, [np.random.default_rng(1).standard_normal(out.shape).astype("float32")])
    compiled = tcomp.compile(ndl.trace(f, arrays))(*arrays)
    for x, y in zip(compiled, f(*map(ndl.Tensor, arrays)), strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=2e-5, atol=2e-5)
