"""Random tensor expressions for the fuzzer: small shapes, some of them empty or symbolic, all dtypes, reducers of all kinds, one to
five stages."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .. import te
from ..dtype import ALL, DType, bool_
from ..ir.expr import Expr, Select, Var, call, const
from ..ir.primfunc import PrimFunc

NUMBERS = tuple(d for d in ALL if d != bool_)
_Build = Callable[["_Random", DType], list[te.Tensor]]


class _Random(random.Random):
    """A source of choices, and of extents that are numbers or, now and then, known only at run time."""

    symbolic = False
    most = 17

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sizes: dict[Var, int] = {}

    def extent(self) -> Any:
        extents = [e for e in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17) if e <= self.most]
        value = 0 if self.random() < 0.04 else self.choice(extents)
        if not self.symbolic or self.random() < 0.4:
            return value
        v = te.var(f"n{len(self.sizes)}")
        self.sizes[v] = value
        return v


def _extent(rng: _Random) -> Any:
    return rng.extent()


def _pointwise(rng: _Random, x: Expr, y: Expr) -> Expr:
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


def _chain(rng: _Random, d: DType) -> list[te.Tensor]:
    """Elementwise stages with broadcasting."""
    shape = tuple(_extent(rng) for _ in range(rng.randint(1, 3)))
    a = te.placeholder(shape, d, "A")
    b = te.placeholder(shape[-1:], d, "B")
    current = a
    for n in range(rng.randint(1, 3)):
        previous = current
        current = te.compute(shape, lambda *i, p=previous: _pointwise(rng, p[i], b[i[-1]]), name=f"E{n}")
    return [a, b, current]


def _matmul(rng: _Random, d: DType) -> list[te.Tensor]:
    n, m, r = _extent(rng), _extent(rng), _extent(rng)
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


def _stencil(rng: _Random, d: DType) -> list[te.Tensor]:
    """A padded stage read through a window, then a pointwise stage."""
    n, w = _extent(rng) + 1, rng.randint(1, 3)
    a = te.placeholder((n,), d, "A")
    wide = te.compute(
        (n + w - 1,), lambda i: Select((i >= w // 2) & (i < n + w // 2), a[i - w // 2], const(0, d)), name="pad"
    )
    k = te.reduce_axis(w, "k")
    s = te.compute((n,), lambda i: te.sum(wide[i + k], axis=k), name="S")
    return [a, te.compute((n,), lambda i: s[i] + a[i], name="T")]


def _conv(rng: _Random, d: DType) -> list[te.Tensor]:
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


def _rows(rng: _Random, d: DType) -> list[te.Tensor]:
    """Reductions over rows, and what uses them."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k, k2 = te.reduce_axis(m, "k"), te.reduce_axis(m, "k2")
    reduce = rng.choice((te.max, te.min))
    top = te.compute((n,), lambda i: reduce(a[i, k], axis=k), name="top")
    shifted = te.compute((n, m), lambda i, j: a[i, j] - top[i], name="shifted")
    total = te.compute((n,), lambda i: te.sum(shifted[i, k2], axis=k2), name="total")
    return [a, te.compute((n, m), lambda i, j: shifted[i, j] + total[i], name="out")]


def _argmax(rng: _Random, d: DType) -> list[te.Tensor]:
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k = te.reduce_axis(m, "k")
    f = rng.choice((te.argmax, te.argmin))
    index, value = te.compute((n,), lambda i: f(a[i, k], axis=k), name="arg")
    return [a, index, value]


def _disguised_max(a: Expr, b: Expr) -> Expr:
    return Select(a < b, b, a)


def _own_reducers(d: DType) -> list[tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]]:
    """(combination, identity, element of a value) of reducers that nothing knows by name: commutative and associative, and exact."""
    limits = lambda e: te.maximum(te.minimum(e, const(0, d)), const(0 if d.kind == "uint" else -1, d))
    found: list[tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = [
        (lambda a, b: a + (b + a * b), lambda t: 0, limits),  # 1 less than a product
        (lambda a, b: a + a * (b - const(1, d)), lambda t: 1, lambda e: limits(e) + const(1, d)),
        (_disguised_max, lambda t: t.lowest, lambda e: e),
        (
            lambda a, b: (a[0] + b[0], te.maximum(a[1], b[1])),
            lambda t: (0, t[1].lowest),
            lambda e: (e, e * const(2, d)),
        ),
        (
            lambda a, b: (a[0] * b[0] + a[1] * b[1], a[0] * b[1] + a[1] * b[0]),  # the reader of both accumulators
            lambda t: (1, 0),
            lambda e: (
                Select(e < const(1, d), const(1, d), const(0, d)),
                Select(e < const(1, d), const(0, d), const(1, d)),
            ),
        ),
    ]
    if d.is_int:
        found += [
            (lambda a, b: a ^ b, lambda t: 0, lambda e: e),
            (
                lambda a, b: (a[0] | b[0], a[1] & b[1]),
                lambda t: (0, -1 if t[1].kind == "int" else t[1].highest),
                lambda e: (e, e),
            ),
        ]
    return found


def _own_reducer(rng: _Random, d: DType) -> list[te.Tensor]:
    """A reduction by a combination of one's own, of one or two values; of one, an elementwise stage may follow."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k = te.reduce_axis(m, "k")
    combine, identity, element = rng.choice(_own_reducers(d))
    reduce = te.comm_reducer(combine, identity, name="own")
    result = te.compute((n,), lambda i: reduce(element(a[i, k]), k), name="R")
    if isinstance(result, tuple):
        return [a, *result]
    return [a, te.compute((n,), lambda i: result[i] + const(1, d), name="after") if rng.random() < 0.5 else result]


def _move(rng: _Random, d: DType) -> list[te.Tensor]:
    """Transposed, flipped and strided access."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((2 * n, m), d, "A")
    t = te.compute((m, n), lambda i, j: a[j * 2 + 1, m - 1 - i], name="T")
    return [a, te.compute((m * n,), lambda i: t[i // n, i % n] + const(1, d), name="R")]


def _softmax(rng: _Random, d: DType) -> list[te.Tensor]:
    """A maximum, differences, a function of them, a sum, a quotient."""
    n, m = _extent(rng), _extent(rng)
    a = te.placeholder((n, m), d, "A")
    k, k2 = te.reduce_axis(m, "k"), te.reduce_axis(m, "k2")
    top = te.compute((n,), lambda i: te.max(a[i, k], axis=k), name="top")
    is_exact = not (d.is_float and d.bits >= 32)
    raised = te.compute(
        (n, m), lambda i, j: (a[i, j] - top[i]) if is_exact else call("exp", a[i, j] - top[i]), name="raised"
    )
    total = te.compute((n,), lambda i: te.sum(raised[i, k2], axis=k2), name="total")
    out = te.compute(
        (n, m), lambda i, j: raised[i, j] + total[i] if is_exact else raised[i, j] / total[i], name="softmax"
    )
    return [a, out]


def _two_products(rng: _Random, d: DType) -> list[te.Tensor]:
    """A reduction of a reduction."""
    n, m, r = _extent(rng), _extent(rng), _extent(rng)
    a, b = te.placeholder((n, r), d, "A"), te.placeholder((r, m), d, "B")
    k, k2 = te.reduce_axis(r, "k"), te.reduce_axis(m, "k2")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.compute((n,), lambda i: te.max(c[i, k2], axis=k2), name="S")
    return [a, b, te.compute((n, m), lambda i, j: c[i, j] - s[i], name="D")]


def _epilogue(rng: _Random, d: DType) -> list[te.Tensor]:
    """A sum over two axes, a bias, an elementwise stage in another order."""
    n, m, r, q = _extent(rng), _extent(rng), rng.randint(1, 5), rng.randint(1, 4)
    a, b = te.placeholder((n, r, q), d, "A"), te.placeholder((m,), d, "bias")
    k, l = te.reduce_axis(r, "k"), te.reduce_axis(q, "l")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k, l], axis=[k, l]), name="C")
    with_bias = te.compute((n, m), lambda i, j: c[i, j] + b[j], name="biased")
    if rng.random() < 0.4:
        return [a, b, with_bias]
    return [a, b, te.compute((m, n), lambda j, i: te.maximum(with_bias[i, j], const(0, d)), name="relu")]


def _depthwise(rng: _Random, d: DType) -> list[te.Tensor]:
    """A dilated, strided window over each channel, padded."""
    n, c, w = rng.randint(3, 9), rng.randint(1, 5), rng.randint(1, 3)
    stride, dilation = rng.randint(1, 2), rng.randint(1, 2)
    span = dilation * (w - 1) + 1
    x, f = te.placeholder((n, c), d, "X"), te.placeholder((w, c), d, "F")
    pad = te.compute(
        (n + span - 1, c),
        lambda i, q: Select((i >= span // 2) & (i < n + span // 2), x[i - span // 2, q], const(0, d)),
        name="pad",
    )
    k = te.reduce_axis(w, "k")
    rows = (n - 1) // stride + 1
    out = te.compute(
        (rows, c), lambda i, q: te.sum(pad[i * stride + k * dilation, q] * f[k, q], axis=k), name="depthwise"
    )
    return [x, f, out]


def _quantized(rng: _Random, d: DType) -> list[te.Tensor]:
    """Sums of products of narrow operands, the second in groups along the reduction, as dot-product instructions want."""
    narrow = rng.random() < 0.5
    group, types = (4, ("uint8", "int8", "int32")) if narrow else (2, ("bfloat16", "bfloat16", "float32"))
    n, m, r = rng.randint(1, 4), 16 * rng.randint(1, 2), group * rng.randint(1, 3)
    a, b = te.placeholder((n, r), types[0], "A"), te.placeholder((r // group, m, group), types[1], "B")
    k = te.reduce_axis(r, "k")
    wide = lambda x: te.cast(x, types[2])
    c = te.compute((n, m), lambda i, j: te.sum(wide(a[i, k]) * wide(b[k // group, j, k % group]), axis=k), name="C")
    return [a, b, c]


def _scatter(rng: _Random, d: DType) -> list[te.Tensor]:
    """Elements of a computed tensor changed at places from memory, then used."""
    n, m, count = _extent(rng) + 1, _extent(rng), _extent(rng)
    a, b = te.placeholder((n, m), d, "A"), te.placeholder((count, m), d, "B")
    index = te.placeholder((count,), rng.choice(("int64", "int32")), "I")
    start = te.compute((n, m), lambda i, j: a[i, j] + const(1, d), name="start") if rng.random() < 0.5 else a
    rows = te.compute((count, m), lambda i, j: _pointwise(rng, b[i, j], b[i, j]), name="rows")
    axes = rng.random() < 0.7  # else the columns run outside

    def place(i: Expr) -> Expr:
        return te.maximum(te.minimum(te.cast(index[i], "int64"), n - 1), 0)

    if axes:
        s = te.scatter(
            start,
            (count, m),
            lambda i, j: ((place(i), j), rows[i, j]),
            "add" if rng.random() < 0.6 else "set",
            name="S",
        )
    else:
        s = te.scatter(
            start,
            (m, count),
            lambda j, i: ((place(i), j), rows[i, j]),
            "add" if rng.random() < 0.6 else "set",
            name="S",
        )
    if rng.random() < 0.6:
        return [a, b, index, s]
    return [a, b, index, te.compute((n, m), lambda i, j: s[i, j] * s[i, j], name="out")]


BUILDERS: tuple[_Build, ...] = (
    _chain, _matmul, _matmul, _stencil, _conv, _rows, _argmax, _own_reducer, _move, _softmax, _two_products, _epilogue, _depthwise, _quantized, _quantized,
)  # fmt: skip


NEWER: tuple[tuple[int, tuple[_Build, ...]], ...] = ((280_000_000, (_scatter, _scatter)),)
"""Builders that seeds from some number on choose from, too: earlier ones keep their kernels, so that versions can be compared."""


def random_kernel(seed: int, symbolic: float = 0.25, most: int = 17) -> tuple[PrimFunc, dict[Var, int]]:
    """The kernel of a seed, and the run-time values of its symbolic extents; some have such, by a given chance.

    Args:
        most: the largest extent, about.
    """
    rng = _Random(seed)
    rng.most = most
    d = rng.choice(NUMBERS)
    if rng.random() < 0.5:
        d = NUMBERS[-2]  # float32, the commonest, half of the time
    build = rng.choice([*BUILDERS, *(b for first, builders in NEWER if seed >= first for b in builders)])
    rng.symbolic = rng.random() < symbolic
    func = te.create_prim_func(build(rng, d), "fuzz")
    return func, {v: rng.sizes[v] for v in func.dims}


def random_func(seed: int) -> PrimFunc:
    """The kernel of a seed, all extents known."""
    return random_kernel(seed, 0)[0]
