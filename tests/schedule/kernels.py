"""Small kernels that the tests of the schedule language, and the examples in its docstrings, begin with."""

from __future__ import annotations

from collections.abc import Callable

from tcomp import te
from tcomp.ir import PrimFunc, Select, const
from tcomp.schedule import Schedule


def add(n: int = 10) -> PrimFunc:
    a = te.placeholder((n,), name="A")
    return te.create_prim_func([a, te.compute((n,), lambda i: a[i] + 1.0, name="B")], "add")


def _sum(n: int, m: int, r: int, types: tuple[str, str, str] = ("float32",) * 3) -> tuple:
    a, b = te.placeholder((n, r), types[0], "A"), te.placeholder((r, m), types[1], "B")
    k = te.reduce_axis(r, "k")
    cast = lambda x: te.cast(x, types[2])
    return a, b, te.compute((n, m), lambda i, j: te.sum(cast(a[i, k]) * cast(b[k, j]), axis=k), name="C")


def product(n: int = 6, m: int = 10, r: int = 7) -> PrimFunc:
    """A matmul alone: its block writes the output."""
    return te.create_prim_func(list(_sum(n, m, r)), "product")


def matmul(n: int = 6, m: int = 10, r: int = 7) -> PrimFunc:
    a, b, c = _sum(n, m, r)
    return te.create_prim_func([a, b, te.compute((n, m), lambda i, j: te.maximum(c[i, j], 0.0), name="D")], "matmul")


def matmul_bias(n: int = 6, m: int = 10, r: int = 7) -> PrimFunc:
    a, b, c = _sum(n, m, r)
    bias = te.placeholder((m,), name="b")
    return te.create_prim_func(
        [a, b, bias, te.compute((n, m), lambda i, j: c[i, j] + bias[j], name="D")], "matmul_bias"
    )


def matmul_relu_scale(n: int = 4, m: int = 6, r: int = 5) -> PrimFunc:
    a, b, c = _sum(n, m, r)
    d = te.compute((n, m), lambda i, j: te.maximum(c[i, j], 0.0), name="D")
    return te.create_prim_func([a, b, te.compute((m, n), lambda j, i: d[i, j] * 2.0, name="E")], "matmul_relu_scale")


def blur(n: int = 20) -> PrimFunc:
    """Two elementwise stages; a window over one of them."""
    a = te.placeholder((n + 2,), name="A")
    a2 = te.compute((n + 2,), lambda x: a[x] * 2.0, name="A2")
    a3 = te.compute((n + 2,), lambda y: a[y] * 3.0, name="A3")
    s = te.compute((n,), lambda x: a2[x] + a2[x + 1] + a2[x + 2] + a3[x], name="S")
    return te.create_prim_func([a, s], "blur")


def strided(n: int = 6, w: int = 3) -> PrimFunc:
    x, f = te.placeholder((2 * n + w,), name="X"), te.placeholder((w,), name="F")
    k = te.reduce_axis(w, "k")
    return te.create_prim_func(
        [x, f, te.compute((n,), lambda i: te.sum(x[i * 2 + k] * f[k], axis=k), name="C")], "strided"
    )


def gathered(n: int = 12) -> PrimFunc:
    a = te.placeholder((n, 4), name="A")
    return te.create_prim_func([a, te.compute((n * 4,), lambda i: a[i // 4, i % 4] + 1.0, name="R")], "gathered")


def padded(n: int = 6) -> PrimFunc:
    a = te.placeholder((n,), name="A")
    p = te.compute((n + 2,), lambda i: Select((i >= 1) & (i < n + 1), a[i - 1], const(0.0)), name="P")
    return te.create_prim_func([a, te.compute((n,), lambda i: p[i] + p[i + 2], name="S")], "padded")


def quantized(n: int = 2, m: int = 16, r: int = 8) -> PrimFunc:
    """uint8 x int8 -> int32, the second operand's rows along the reduction."""
    a, b = te.placeholder((n, r), "uint8", "A"), te.placeholder((r // 4, m, 4), "int8", "B")
    k = te.reduce_axis(r, "k")
    c = te.compute(
        (n, m),
        lambda i, j: te.sum(te.cast(a[i, k], "int32") * te.cast(b[k // 4, j, k % 4], "int32"), axis=k),
        name="C",
    )
    return te.create_prim_func([a, b, c], "quantized")


def argmax(n: int = 4, m: int = 6) -> PrimFunc:
    a = te.placeholder((n, m), name="A")
    k = te.reduce_axis(m, "k")
    return te.create_prim_func([a, *te.compute((n,), lambda i: te.argmax(a[i, k], axis=k), name="arg")])


def row_sum(m: int = 37, n: int = 5, op=te.sum) -> PrimFunc:
    a = te.placeholder((n, m), name="A")
    k = te.reduce_axis(m, "k")
    return te.create_prim_func([a, te.compute((n,), lambda i: op(a[i, k], axis=k), name="S")])


def own_reduction(
    combine: Callable, first, m: int = 6, n: int = 4, values: int = 1, dtype: str = "float32"
) -> PrimFunc:
    """Rows reduced by a combination of one's own; every value of an element is the element itself."""
    a, k = te.placeholder((n, m), dtype, "A"), te.reduce_axis(m, "k")
    reduce = te.comm_reducer(combine, lambda *types: first, name="own")
    made = te.compute((n,), lambda i: reduce(a[i, k] if values == 1 else (a[i, k],) * values, k), name="R")
    return te.create_prim_func([a, *(made if isinstance(made, tuple) else (made,))])


def symbolic_sum() -> PrimFunc:
    n = te.var("n")
    a = te.placeholder((4, n), name="A")
    k = te.reduce_axis(n, "k")
    return te.create_prim_func([a, te.compute((4,), lambda i: te.sum(a[i, k], axis=k), name="S")])


EXAMPLES = (add, product, matmul, matmul_bias, matmul_relu_scale, blur, strided, gathered, padded, quantized)


def scope() -> dict:
    """The names that a docstring's example begins with: each gives a Schedule of a fresh kernel."""
    return {f.__name__: (lambda *sizes, f=f: Schedule(f(*sizes))) for f in EXAMPLES}
