"""Whole models with extents that calls decide: one executable, right at every extent up to the bound."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import InputError, ScheduleError, ShapeError, UnsupportedError
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.check import relative_error
from tcomp.runtime.program import Copy, Program
from tcomp.target import Target

R = np.random.default_rng(8)


def c(g: GraphBuilder, *shape: int, fan: int = 1) -> Any:
    return g.constant((R.standard_normal(shape) / fan**0.5).astype("float32"))


def mlp(g: GraphBuilder, n: Any) -> Any:
    x = g.reshape(g.input("x", (n, 4, 9)), shape=(-1, 36))
    h = g.layer_norm(g.relu(g.linear(x, c(g, 50, 36, fan=36), c(g, 50))), c(g, 50), c(g, 50))
    y = g.linear(h, c(g, 10, 50, fan=50), c(g, 10))
    return g.softmax(y), g.argmax(y, axis=1)


def cnn(g: GraphBuilder, n: Any) -> Any:
    h = g.input("x", (n, 3, 14, 14))
    for i, o, stride in ((3, 16, 1), (16, 16, 1), (16, 24, 2)):
        y = g.conv2d(h, c(g, o, i, 3, 3, fan=9 * i), stride=stride, padding=1)
        y = g.batch_norm(y, *(g.constant(np.full(o, v, np.float32)) for v in (1.2, 0.1, 0.3, 0.8)))
        short = g.conv2d(h, c(g, o, i, 1, 1, fan=i), stride=stride)
        h = g.relu(g.add(y, short))
    h = g.max_pool2d(h, kernel=2)
    return g.linear(g.reshape(g.global_avg_pool2d(h), shape=(-1, 24)), c(g, 7, 24), c(g, 7))


def transformer(g: GraphBuilder, s: Any) -> Any:
    d, heads = 24, 3
    x = g.take(c(g, 17, d), g.input("tokens", (s,), "int64"))
    x = g.reshape(x, shape=(1, -1, d))
    for _ in range(2):
        h = g.layer_norm(x, c(g, d), c(g, d))
        q, k, v = (
            g.transpose(
                g.reshape(g.linear(h, c(g, d, d, fan=d), c(g, d)), shape=(1, s, heads, d // heads)), axes=(0, 2, 1, 3)
            )
            for _ in range(3)
        )
        mixed = g.reshape(g.transpose(g.attention(q, k, v, causal=True), axes=(0, 2, 1, 3)), shape=(1, s, d))
        x = g.add(x, g.linear(mixed, c(g, d, d, fan=d), c(g, d)))
        x = g.add(x, g.linear(g.mish(g.linear(x, c(g, 2 * d, d, fan=d))), c(g, d, 2 * d, fan=2 * d)))
    return g.rms_norm(x, c(g, d)), g.sum(x, axes=(1,))


MODELS: dict[str, tuple[Callable[..., Any], int, Callable[[int], np.ndarray]]] = {
    "mlp": (mlp, 70, lambda n: R.standard_normal((n, 4, 9)).astype("float32")),
    "cnn": (cnn, 12, lambda n: R.standard_normal((n, 3, 14, 14)).astype("float32")),
    "transformer": (transformer, 50, lambda n: R.integers(0, 17, n)),
}


def built(name: str) -> tcomp.IRModule:
    make, largest, _ = MODELS[name]
    g = GraphBuilder()
    results = make(g, g.dim("n", max=largest))
    return g.build(*(results if isinstance(results, tuple) else (results,)))


def compare(exe: tcomp.Executable, module: tcomp.IRModule, x: np.ndarray) -> None:
    got = exe(x)
    for a, b in zip(got if isinstance(got, tuple) else (got,), evaluate(module, [x], exact=True)):
        assert a.shape == b.shape
        if a.dtype.kind == "i":
            assert np.array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_executable_is_right_at_every_extent(name: str) -> None:
    module, (_, largest, inputs) = built(name), MODELS[name]
    exe = tcomp.compile(module)
    for n in sorted({0, 1, 2, 3, largest, largest - 1, *R.integers(1, largest + 1, 14).tolist()}):
        compare(exe, module, inputs(n))
    with pytest.raises(InputError, match=f"extent n is {largest + 1}: the model was compiled for at most {largest}"):
        exe(inputs(largest + 1))
    again = Program.from_json(exe.program.to_json(), exe.program.constants)
    assert again == exe.program and again.dim_max == (largest,)


@pytest.mark.parametrize("name", MODELS)
def test_the_interpreter_agrees(name: str) -> None:
    module, (_, _, inputs) = built(name), MODELS[name]
    exe = tcomp.compile(module, target="reference")
    for n in (0, 2):
        compare(exe, module, inputs(n))


@pytest.mark.parametrize("target", ["llvm -mcpu=haswell -num-cores=4", "cpu -num-cores=1", "cpu -num-cores=8"])
@pytest.mark.drawn(1 / 3)
def test_other_plans(target: str) -> None:
    exe = tcomp.compile(built("cnn"), target=target)
    assert not [k.name for k in exe.program.kernels if "refused" in exe.ir("scheduled", k.name)]
    module = built("mlp")
    exe = tcomp.compile(module, target=target)
    if not Target.parse(target).missing_here():
        for n in (1, 5, 64, 70):
            compare(exe, module, MODELS["mlp"][2](n))


def test_kernels_are_tiled_and_parallel_as_static_ones_are() -> None:
    exe = tcomp.compile(built("mlp"), target="cpu -num-cores=4")
    rules = [exe.ir("scheduled", k.name).splitlines()[0] for k in exe.program.kernels]
    assert not [r for r in rules if "refused" in r or "plain" in r]
    assert any("tiled reduction" in r for r in rules)


def test_two_extents_and_arithmetic_of_them() -> None:
    g = GraphBuilder()
    n, s = g.dim("n", max=6), g.dim("s", max=9)
    x, y = g.input("x", (n, s, 8)), g.input("y", (n, 1, 8))
    h = g.exp(g.negative(g.abs(g.add(x, y))))
    flat = g.reshape(h, shape=(-1, 8))
    module = g.build(g.linear(flat, c(g, 20, 8), c(g, 20)), g.max(h, axes=(2,)), g.softmax(h, axis=1))
    exe = tcomp.compile(module)
    assert str(exe.outputs[0]).startswith("result0: float32[n * s, 20]")
    for a, b in ((1, 1), (6, 9), (2, 7), (5, 1), (0, 3)):
        arrays = [R.standard_normal(shape).astype("float32") for shape in ((a, b, 8), (a, 1, 8))]
        for got, want in zip(exe(*arrays), evaluate(module, arrays, exact=True)):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="axis 0 differs"):
        exe(np.ones((2, 3, 8), "float32"), np.ones((3, 1, 8), "float32"))


def test_results_that_are_copied_have_the_bytes_of_the_call() -> None:
    g = GraphBuilder()
    n = g.dim("n", max=40)
    x = g.input("x", (n, 3))
    y = g.exp(x)
    module = g.build(y, y, g.reshape(x, shape=(-1,)))
    for target in ("cpu", "reference"):
        exe = tcomp.compile(module, target=target)
        assert sum(isinstance(s, Copy) for s in exe.program.steps) == 2
        for k in (0, 1, 7, 40):
            v = R.standard_normal((k, 3)).astype("float32")
            out = [np.full((k, 3), 7, np.float32), np.full((k, 3), 7, np.float32), np.full(3 * k, 7, np.float32)]
            exe(v, out=out)
            assert np.allclose(out[0], np.exp(v), rtol=1e-6) and np.array_equal(out[0], out[1])
            assert np.array_equal(out[2], v.reshape(-1))


@pytest.mark.parametrize(
    "ends", [(1, 3), (-2, None), (0, -1), (1, None), (None, 2), (2, 9), (-1, None), (1, -1), (-3, -1)]
)
def test_parts_of_a_symbolic_axis(ends: tuple[int | None, int | None]) -> None:
    g = GraphBuilder()
    n = g.dim("n", max=6)
    y = g.slice(g.input("x", (n, 4)), begin=(ends[0], 1), end=(ends[1], 3))
    exe = tcomp.compile(g.build(g.relu(y)))
    for k in range(1, 7):
        v = np.abs(R.standard_normal((k, 4))).astype("float32")
        assert np.array_equal(exe(v), v[ends[0] : ends[1], 1:3])


def test_what_has_no_bound_or_cannot_be_is_refused() -> None:
    g = GraphBuilder()
    with pytest.raises(UnsupportedError, match="have no bound") as error:
        tcomp.compile(g.build(g.exp(g.input("x", (te.var("k"), 3)))))
    assert 'dim("k", max=...)' in str(error.value)
    g = GraphBuilder()
    n = g.dim("n", max=5)
    for bad in (0, -1, 2.5, True, 1 << 50):
        with pytest.raises(ShapeError, match="cannot be at most"):
            g.dim("m", max=bad)
    with pytest.raises(ShapeError, match="two extents"):
        g.dim("n", max=5)
    x = g.input("x", (n, 4))
    with pytest.raises(ShapeError, match="step by step"):
        g.slice(x, begin=(0, 0), end=(n, 4), strides=(2, 1))
    with pytest.raises(ShapeError, match="do not fill"):
        g.reshape(x, shape=(7, -1, 3))
    with pytest.raises(ShapeError, match="do not fill"):
        g.reshape(x, shape=(n, 5))
    with pytest.raises(ShapeError, match="do not broadcast"):
        g.add(x, g.input("y", (g.dim("m", max=5), 4)))
    images = g.input("images", (1, 3, n, 8))
    for make in (
        lambda: g.conv2d(images, g.input("w", (4, 3, 3, 3))),
        lambda: g.max_pool2d(images, kernel=2, stride=2),
        lambda: g.concat(x, g.input("z", (3, 4)), axis=0),
        lambda: g.take(x, g.input("index", (4,), "int64")),
    ):
        with pytest.raises(UnsupportedError, match="symbolic extents there"):
            tcomp.compile(g.build(make()))


def random_rows(seed: int) -> tcomp.IRModule:
    """A reduction, a normalisation or a product of extents that are numbers or symbolic."""
    r, g = random.Random(seed), GraphBuilder()

    def extent() -> Any:
        if r.random() < 0.5:
            return r.choice((1, 2, 3, 5, 6, 8, 16, 17, 33, 40))
        return g.dim(f"n{len(g.dims)}", max=r.choice((1, 5, 9, 40)))

    shape = tuple(extent() for _ in range(r.randint(1, 4)))
    x, axes = g.input("x", shape), tuple(sorted(r.sample(range(len(shape)), r.randint(1, len(shape)))))
    match r.randrange(6):
        case 0 | 1 | 2:
            y = g.op(r.choice(("sum", "mean", "max", "min")), x, axes=axes, keepdims=r.random() < 0.5)
        case 3:
            y = g.op(r.choice(("softmax", "log_softmax")), x, axis=r.randrange(len(shape)))
        case 4:
            y = g.layer_norm(x, g.input("w", shape[-1:]), g.input("b", shape[-1:]))
        case _:
            y = g.matmul(g.reshape(x, shape=(1, *shape)), g.input("w", (shape[-1], extent())))
    return g.build(g.multiply_scalar(y, scalar=0.5) if r.random() < 0.4 else y)


@pytest.mark.parametrize("first", range(100, 160, 20))
def test_random_rows_of_symbolic_extents(first: int) -> None:
    for seed in range(first, first + 10):
        module, r = random_rows(seed), random.Random(seed)
        exe = tcomp.compile(module, num_threads=1)
        for _ in range(5 if module.main.dims else 1):
            at = {v: r.choice((1, m, r.randint(1, m))) for v, m in module.main.bounds.items()}
            arrays = [R.uniform(0.1, 1, p.type.at(at).extents).astype("float32") for p in module.main.params]
            (want,) = evaluate(module, arrays, exact=True)
            assert relative_error(exe(*arrays), want) < 1e-5, (seed, at)


def fused(inner: str) -> tcomp.Schedule:
    """Rows outside, columns in tiles of a symbolic number inside, as one loop."""
    n = te.var("n")
    a = te.placeholder((12, n), name="A")
    rule = {"both": lambda i, j: a[i, j] + 1.0, "sum": None}[inner]
    if rule is not None:
        return tcomp.Schedule(te.create_prim_func([a, te.compute((12, n), rule, name="B")], "f"))
    k = te.reduce_axis(n, "k")
    return tcomp.Schedule(te.create_prim_func([a, te.compute((12,), lambda i: te.sum(a[i, k], axis=k), name="B")], "f"))


def test_loops_fused_over_a_symbolic_extent_are_proved_independent() -> None:
    sch = fused("both")
    i, j = sch.get_loops("B")
    outer, _ = sch.split(j, [None, 4])
    sch.parallel(sch.fuse(i, outer))  # f // ((n + 3) // 4), f % ((n + 3) // 4)
    exe = tcomp.compile(sch)
    for n in (0, 1, 3, 4, 9):
        x = R.standard_normal((12, n)).astype("float32")
        assert np.array_equal(exe(x), x + 1)
    sch = fused("sum")
    with pytest.raises(ScheduleError, match="cannot parallelize"):
        sch.parallel(sch.fuse(*sch.get_loops("B")))


def test_equal_kernels_of_two_extents_are_one_and_a_warm_model_schedules_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = GraphBuilder()
    n, m = g.dim("n", max=9), g.dim("m", max=9)
    module = g.build(g.softmax(g.input("x", (n, 8))), g.softmax(g.input("y", (m, 8))))
    tcomp.compile(module)
    monkeypatch.setattr("tcomp.backends.scheduling.rules.default_schedule", lambda *a: pytest.fail("scheduled again"))
    exe = tcomp.compile(module)
    assert len({k.symbol for k in exe.program.kernels}) == 1
    for a, b in ((1, 9), (9, 2), (0, 4)):
        arrays = [R.standard_normal((k, 8)).astype("float32") for k in (a, b)]
        for got, want in zip(exe(*arrays), evaluate(module, arrays, exact=True)):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
