"""Random tensor expressions for the fuzzer: small shapes, all dtypes, one to four stages."""

from __future__ import annotations

import random
from collections.abc import Callable

from .. import te
from ..dtype import ALL, DType, bool_
from ..ir.expr import Expr, Select, call, const
from ..ir.primfunc import PrimFunc

NUMBERS = tuple(d for d in ALL if d != bool_)
_Build = Callable[[random.Random, DType], list[te.Tensor]]


def _extent(rng: random.Random) -> int:
    return rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17))


def _pointwise(rng: random.Random, x: Expr, y: Expr) -> Expr:
    """An elementwise combination of two values."""
    forms: list[Callable[[], Expr]] = [
        lambda: x + y,
        lambda: x - y,
        lambda: x * y,
        lambda: te.maximum(x, y),
        lambda: te.minimum(x, const(1, x.dtype)),
        lambda: Select(x < y, x, y + const(1, y.dtype)),
        lambda: abs(x) if x.dtype.kind != "uint" else x,
    ]
    if x.dtype.is_int:
        forms += [
            lambda: x // te.maximum(abs(y) if y.dtype.kind == "int" else y, const(1, y.dtype)),
            lambda: x % y,
            lambda: x & y,
        ]
    if x.dtype.is_float and x.dtype.bits >= 32:
        forms += [
            lambda: call("tanh", x) * y,
            lambda: x / (y * y + const(1, y.dtype)),
            lambda: call("exp", te.minimum(x, const(2, x.dtype))),
        ]
    return rng.choice(forms)()


def _chain(rng: random.Random, d: DType) -> list[te.Tensor]:
    """Elementwise stages with broadcasting."""
    shape = tuple(_extent(rng) for _ in range(rng.randint(1, 3)))
    a = te.placeholder(shape, d, "A")
    b = te.placeholder(shape[-1:], d, "B")
    current = a
    for n in range(rng.randint(1, 3)):
        previous = current
        current = te.compute(shape, lambda *i, p=previous: _pointwise(rng, p[i], b[i[-1]]), name=f"E{n}")
    return [a, b, current]


def _matmul(rng: random.Random, d: DType) -> list[te.Tensor]:
    n, m, r = _extent(rng), _extent(rng), min(_extent(rng), 13)
    transposed = rng.random() < 0.3
    a = te.placeholder((n, r), d, "A")
    b = te.placeholder((m, r) if transposed else (r, m), d, "B")
    k = te.reduce_axis(r, "k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k] * (b[j, k] if transposed else b[k, j]), axis=k), name="C")
    if rng.random() < 0.5:
        bias = te.placeholder((m,), d, "bias")
        out = te.compute((n, m), lambda i, j: te.maximum(c[i, j] + bias[j], const(0, d)), name="D")
        return [a, b, bias, out]
    return [a, b, c]


def _stencil(rng: random.Random, d: DType) -> list[te.Tensor]:
    """A padded stage read through a window, then a pointwise stage."""
    n, w = _extent(rng) + 1, rng.randint(1, 3)
    a = te.placeholder((n,), d, "A")
    wide = te.compute(
        (n + w - 1,), lambda i: Select((i >= w // 2) & (i < n + w // 2), a[i - w // 2], const(0, d)), name="pad"
    )
    k = te.reduce_axis(w, "k")
    s = te.compute((n,), lambda i: te.sum(wide[i + k], axis=k), name="S")
    return [a, te.compute((n,), lambda i: s[i] + a[i], name="T")]


def _conv(rng: random.Random, d: DType) -> list[te.Tensor]:
    h, w, c, o = rng.randint(3, 6), rng.randint(3, 9), rng.randint(1, 3), rng.randint(1, 9)
    kernel, stride = rng.randint(1, 3), rng.randint(1, 2)
    x = te.placeholder((h, w, c), d, "X")
    f = te.placeholder((kernel, kernel, c, o), d, "F")
    pad = te.compute(
        (h + 2, w + 2, c),
        lambda y, z, q: Select((y >= 1) & (y <= h) & (z >= 1) & (z <= w), x[y - 1, z - 1, q], const(0, d)),
        name="pad",
    )
    ry, rx, rc = te.reduce_axis(kernel, "ry"), te.reduce_axis(kernel, "rx"), te.reduce_axis(c, "rc")
    oh, ow = (h + 2 - kernel) // stride + 1, (w + 2 - kernel) // stride + 1
    out = te.compute(
        (oh, ow, o),
        lambda y, z, q: te.sum(pad[y * stride + ry, z * stride + rx, rc] * f[ry, rx, rc, q], axis=[ry, rx, rc]),
        name="conv",
    )
    return [x, f, out]


def _rows(rng: random.Random, d: DType) -> list[te.Tensor]:
    """Reductions over rows, and what uses them."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k, k2 = te.reduce_axis(m, "k"), te.reduce_axis(m, "k2")
    reduce = rng.choice((te.max, te.min))
    top = te.compute((n,), lambda i: reduce(a[i, k], axis=k), name="top")
    shifted = te.compute((n, m), lambda i, j: a[i, j] - top[i], name="shifted")
    total = te.compute((n,), lambda i: te.sum(shifted[i, k2], axis=k2), name="total")
    return [a, te.compute((n, m), lambda i, j: shifted[i, j] + total[i], name="out")]


def _argmax(rng: random.Random, d: DType) -> list[te.Tensor]:
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k = te.reduce_axis(m, "k")
    f = rng.choice((te.argmax, te.argmin))
    index, value = te.compute((n,), lambda i: f(a[i, k], axis=k), name="arg")
    return [a, index, value]


def _move(rng: random.Random, d: DType) -> list[te.Tensor]:
    """Transposed, flipped and strided access."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((2 * n, m), d, "A")
    t = te.compute((m, n), lambda i, j: a[j * 2 + 1, m - 1 - i], name="T")
    return [a, te.compute((m * n,), lambda i: t[i // n, i % n] + const(1, d), name="R")]


BUILDERS: tuple[_Build, ...] = (_chain, _matmul, _matmul, _stencil, _conv, _rows, _argmax, _move)


def random_func(seed: int) -> PrimFunc:
    """The kernel of a seed."""
    rng = random.Random(seed)
    d = rng.choice(NUMBERS)
    if rng.random() < 0.5:
        d = NUMBERS[-2]  # float32, the commonest, half of the time
    return te.create_prim_func(rng.choice(BUILDERS)(rng, d), "fuzz")
