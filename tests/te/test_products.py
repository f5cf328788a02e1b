"""Accesses at products and quotients of symbolic extents: proved inside, or refused."""

import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.analysis.products import follows
from tcomp.errors import ExprError
from tcomp.ir import Const, Expr, PrimFunc, Var, const
from tcomp.ir.expr import EQ, LE, LT, FloorDiv, FloorMod, Max, Min, Not
from tcomp.ir.interp import evaluate, run

N, M, K = te.var("n"), te.var("m"), te.var("k")


def moved(given: tuple, made: tuple, f: Callable) -> PrimFunc:
    a = te.placeholder(given, name="A")
    return te.create_prim_func([a, te.compute(made, lambda *i: f(a, *i), name="C")])


INSIDE: dict[str, tuple[tuple, tuple, Callable]] = {
    "flatten": ((N, M), (N * M,), lambda a, i: a[i // M, i % M]),
    "unflatten": ((N * M,), (N, M), lambda a, i, j: a[i * M + j]),
    "square": ((N * N,), (N, N), lambda a, i, j: a[i * N + j]),
    "backwards": ((N * M,), (N, M), lambda a, i, j: a[N * M - 1 - (i * M + j)]),
    "reshape": ((N, M), (M, N), lambda a, i, j: a[(i * N + j) // M, (i * N + j) % M]),
    "flatten three": ((N, M, K), (N * M * K,), lambda a, i: a[i // (M * K), i // K % M, i % K]),
    "one after the other": ((N, M, K), (N * M * K,), lambda a, i: a[i // K // M, i // K % M, i % K]),
    "unflatten three": ((N * M * K,), (N, M, K), lambda a, i, j, k: a[i * M * K + j * K + k]),
    "with a factor": ((N, M, 4), (N * M * 4,), lambda a, i: a[i // (M * 4), i // 4 % M, i % 4]),
    "clamped": ((N, M), (N, M), lambda a, i, j: a[te.minimum(i * M, N - 1), j]),
    "guarded": ((N, M), (N, M), lambda a, i, j: te.if_then_else(i * M < N, a[i * M, j], 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_what_stays_inside_is_proved_and_runs(name: str) -> None:
    func = moved(*INSIDE[name])
    exe = tcomp.compile(func)
    for sizes in product((0, 1, 3, 5), repeat=len(func.dims)):
        dims = dict(zip(func.dims, sizes))
        x = np.arange(np.prod([evaluate(e, dims) for e in func.inputs[0].shape]), dtype="float32")
        x = x.reshape([evaluate(e, dims) for e in func.inputs[0].shape])
        (want,) = run(func, [x], dims)  # watches every index
        assert np.array_equal(exe(x, out=np.empty_like(want)), want)


OUTSIDE: dict[str, tuple[tuple, tuple, Callable, str]] = {
    "the other extent": ((N * M,), (N, M), lambda a, i, j: a[i * N + j], r"vi0 \* n \+ vi1 of axis 0"),
    "one too far": ((N * M,), (N, M), lambda a, i, j: a[i * M + j + 1], "of axis 0"),
    "one before": ((N * M,), (N, M), lambda a, i, j: a[i * M + j - 1], "of axis 0"),
    "quotient": ((N, M), (N * M,), lambda a, i: a[i // N, i % N], "of axis 0"),
    "three": ((N * M * K,), (N, M, K), lambda a, i, j, k: a[(i * K + j) * M + k], "of axis 0"),
    "column of nothing": ((N * M,), (N,), lambda a, i: a[i * M], "of axis 0"),  # with m = 0 there is no first element
    "guarded by another": ((N, M), (N, M), lambda a, i, j: te.if_then_else(i * M < M, a[i * M, j], 0.0), "of axis 0"),
    "by a float": ((N, M), (N, M), lambda a, i, j: te.if_then_else(a[i, j] < 0.5, a[i * M, j], 0.0), "of axis 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_may_leave_is_refused(name: str) -> None:
    given, made, f, reason = OUTSIDE[name]
    with pytest.raises(ExprError, match=reason):
        moved(given, made, f)


def test_tiles_of_symbolic_size_are_proved_where_they_touch_plain_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of n at a time: where a block is bound is a product, what it reads is not."""
    monkeypatch.setenv("TCOMP_VERIFY", "1")
    tcomp.config.config.cache_clear()
    a = te.placeholder((N,), name="A")
    pad = te.compute((N + 2,), lambda i: te.if_then_else((i >= 1) & (i < N + 1), a[i - 1], 0.0), name="P")
    func = te.create_prim_func([a, te.compute((N,), lambda i: pad[i] + pad[i + 2], name="S")])
    sch = tcomp.Schedule(func)
    try:
        sch.decompose_padding("P", sch.get_loops("P")[0])
        sch.split(sch.get_loops("P")[0], [2, None])
        sch.split(sch.get_loops("S")[0], [3, None])
    finally:
        monkeypatch.undo()
        tcomp.config.config.cache_clear()
    x = np.arange(7, dtype="float32")
    assert np.array_equal(tcomp.compile(sch)(x), run(func, [x], {func.dims[0]: 7})[0])


def _term(rng: random.Random, depth: int, leaves: list[Expr]) -> Expr:
    if depth == 0 or rng.random() < 0.25:
        return rng.choice([*leaves, const(rng.randrange(-2, 4))])
    a, b = (_term(rng, depth - 1, leaves) for _ in range(2))
    kind = rng.choice(["+", "-", "*", "*", FloorDiv, FloorMod, Min, Max])
    return a + b if kind == "+" else a - b if kind == "-" else a * b if kind == "*" else kind(a, b)


def _condition(rng: random.Random, leaves: list[Expr]) -> Expr:
    a, b = (_term(rng, 2, leaves) for _ in range(2))
    c = rng.choice([LT, LE, EQ])(a, b)
    return Not(c) if rng.random() < 0.2 else c


def test_no_proof_has_a_counterexample(rng: np.random.Generator) -> None:
    """Random conditions over a range of each variable, under random facts, against all values of the variables."""
    proved = 0
    for seed in rng.integers(0, 1 << 30, 400):
        r = random.Random(int(seed))
        n, i, j = Var("n"), Var("i"), Var("j")
        ranges = {n: (const(0), const(4)), i: (const(0), n - 1), j: (const(-1), const(2))}
        leaves: list[Expr] = [n, i, j]
        facts = [_condition(r, leaves) for _ in range(r.randrange(3))]
        wanted = (
            LE(*(_term(r, 3, leaves) for _ in range(2))) if r.random() < 0.5 else LT(i * n + j, n * n + r.randrange(3))
        )
        if not follows([wanted], ranges, facts):
            continue
        proved += 1
        for sizes in product(range(5), range(4), range(-1, 3)):
            at = dict(zip((n, i, j), sizes))
            if at[i] < at[n] and all(evaluate(c, at) for c in facts):
                assert evaluate(wanted, at), (int(seed), wanted, facts, sizes)
    assert proved > 40


def test_a_fact_that_cannot_be_is_a_proof() -> None:
    n = Var("n")
    ranges: dict[Var, tuple[Expr, Expr]] = {n: (const(0), const(9))}
    assert follows([LT(n * n, const(0))], ranges, [LT(n, const(0))])
    assert not follows([LT(n * n, const(81))], ranges, [])
    assert follows([LE(n * n, Const(81, n.dtype))], ranges, [])
