"""Graph passes: what they change, and that the answer stays."""

from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp.errors import InternalError
from tcomp.ir.equal import structural_equal
from tcomp.ir.graph import FuncCall, Function, OpCall, Value
from tcomp.ir.module import IRModule
from tcomp.ir.verify import verify
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes import FUSE, GRAPH, LOWER, Pipeline, plan_memory
from tcomp.passes.check import relative_error, run_kernels
from tcomp.passes.fold import EliminateCommonSubexpressions, EliminateDeadCode, FoldConstants
from tcomp.passes.fuse import FuseOps
from tcomp.passes.lower import LowerToPrimFuncs
from tcomp.passes.simplify import Canonicalize, FoldScales, SimplifyAlgebra

R = np.random.default_rng(7)


def array(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype("float32")


def ops_of(module: IRModule) -> list[str]:
    return [b.call.op if isinstance(b.call, OpCall) else f"@{b.call.callee}" for b in module.main.bindings]


def same(before: IRModule, after: IRModule, tolerance: float = 1e-6) -> None:
    verify(after)
    inputs = [R.standard_normal(p.type.shape).astype(p.type.dtype.numpy) for p in before.main.params]
    for a, b in zip(evaluate(after, inputs, exact=True), evaluate(before, inputs, exact=True)):
        assert relative_error(a, b) <= tolerance


def cnn() -> IRModule:
    g = GraphBuilder()
    x = g.input("x", (2, 3, 8, 8))
    y = g.conv2d(x, g.constant(array(4, 3, 3, 3)), padding=1)
    y = g.batch_norm(y, *(g.constant(np.abs(array(4)) + 0.5) for _ in range(4)))
    skip = g.relu(y)
    y = g.conv2d(skip, g.constant(array(4, 4, 3, 3)), padding=1)
    y = g.add(g.relu(g.batch_norm(y, *(g.constant(np.abs(array(4)) + 0.5) for _ in range(4)))), skip)
    y = g.max_pool2d(y, kernel=2)
    y = g.linear(g.reshape(y, shape=(2, 64)), g.constant(array(10, 64)), g.constant(array(10)))
    return g.build(g.softmax(y))


def test_the_whole_pipeline_on_a_cnn() -> None:
    module = cnn()
    graph = GRAPH.run(module)
    same(module, graph, 1e-5)
    assert "batch_norm" not in ops_of(graph) and "multiply" not in ops_of(graph) and "linear" not in ops_of(graph)
    assert ops_of(graph).count("transpose") == 2  # into NHWC, and out of it before the reshape
    fused = FUSE.run(graph)
    same(module, fused, 1e-5)
    assert fused.main.num_calls < graph.main.num_calls
    lowered = LOWER.run(fused)
    inputs = [array(2, 3, 8, 8)]
    assert relative_error(run_kernels(lowered, inputs)[0], evaluate(module, inputs, exact=True)[0]) < 1e-5


def test_constants_fold() -> None:
    g = GraphBuilder()
    x = g.input("x", (4,))
    c = g.exp(g.add(g.constant(array(4)), g.constant(array(4))))
    module = g.build(g.add(x, c))
    folded = EliminateDeadCode().run(FoldConstants().run(module))
    assert ops_of(folded) == ["add"] and len(folded.constants) == 1
    same(module, folded)


def test_dead_code_and_common_subexpressions() -> None:
    g = GraphBuilder()
    x = g.input("x", (4,))
    g.tanh(x)
    a, b = g.exp(x), g.exp(x)
    module = g.build(g.add(a, b))
    small = EliminateDeadCode().run(EliminateCommonSubexpressions().run(module))
    assert ops_of(small) == ["exp", "add"]
    same(module, small)


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda g, x: g.transpose(g.transpose(x, axes=(1, 2, 0)), axes=(2, 0, 1)), []),
        (lambda g, x: g.transpose(g.relu(g.transpose(x, axes=(1, 2, 0))), axes=(2, 0, 1)), ["relu"]),
        (lambda g, x: g.reshape(g.reshape(x, shape=(60,)), shape=(3, 4, 5)), []),
        (lambda g, x: g.negative(g.negative(x)), []),
        (lambda g, x: g.multiply_scalar(x, scalar=1.0), []),
        (lambda g, x: g.relu(g.relu(x)), ["relu"]),
        (lambda g, x: g.cast(x, dtype="float32"), []),
        (lambda g, x: g.multiply(x, g.constant(np.ones((5,), "float32"))), []),
        (lambda g, x: g.broadcast_to(x, shape=(3, 4, 5)), []),
        (lambda g, x: g.pad(x, pad_width=((0, 0),) * 3), []),
        (lambda g, x: g.sum(g.transpose(x, axes=(0, 2, 1)), axes=(1,)), ["sum"]),
        (lambda g, x: g.add_scalar(x, scalar=0.0), ["add_scalar"]),  # turns -0.0 into 0.0: not an identity
    ],
)
def test_simplifications(build: object, left: list[str]) -> None:
    g = GraphBuilder()
    module = g.build(build(g, g.input("x", (3, 4, 5))))
    simple = SimplifyAlgebra().run(module)
    assert ops_of(simple) == left
    same(module, simple)


def test_a_scale_folds_only_where_the_product_has_no_other_use() -> None:
    for other_use in (False, True):
        g = GraphBuilder()
        x = g.input("x", (4, 6))
        y = g.matmul(x, g.constant(array(6, 5)))
        z = g.multiply(y, g.constant(array(5)))
        module = Canonicalize().run(g.build(z, y) if other_use else g.build(z))
        folded = FoldScales().run(module)
        assert ("multiply" in ops_of(folded)) == other_use
        same(module, folded, 1e-6)


def kernels(module: IRModule) -> list[str]:
    return [b.call.callee for b in module.main.bindings if isinstance(b.call, FuncCall)]


def test_fusion_groups() -> None:
    g = GraphBuilder()
    x, w = g.input("x", (4, 6)), g.input("w", (6, 5))
    y = g.matmul(x, w)
    z = g.relu(g.add(y, g.constant(array(5))))
    module = g.build(g.matmul(g.tanh(z), g.constant(array(5, 3))))
    assert kernels(FUSE.run(module)) == ["matmul_add_relu_tanh", "matmul"]


def test_fusion_joins_the_branches_of_a_diamond() -> None:
    g = GraphBuilder()
    x = g.input("x", (4, 6))
    a = g.exp(x)
    module = g.build(g.add(g.sin(a), g.cos(a)))
    assert kernels(FUSE.run(module)) == ["exp_sin_cos_add"]


def test_fusion_keeps_products_and_results_apart() -> None:
    g = GraphBuilder()
    x = g.input("x", (6, 6))
    y = g.matmul(x, x)
    module = g.build(g.relu(g.matmul(y, y)), g.relu(y))
    fused = FUSE.run(module)
    assert all(k.count("matmul") == 1 for k in kernels(fused) if "matmul" in k)
    same(module, fused)
    result = g.build(g.relu(y), y)  # y itself is wanted: it may not disappear into a kernel
    same(result, FUSE.run(result))


def test_equal_groups_share_one_kernel() -> None:
    g = GraphBuilder()
    x = g.input("x", (4, 4))
    for _ in range(3):
        x = g.relu(g.matmul(x, g.constant(array(4, 4))))
    fused = FUSE.run(g.build(x))
    assert kernels(fused) == ["matmul_relu"] * 3 and len(fused.functions) == 2


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_keep_their_meaning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = GraphBuilder()
    values = [g.input("a", (3, 4, 5)), g.input("b", (3, 4, 5)), g.constant(array(5))]
    for _ in range(12):
        a, b = (values[i] for i in rng.integers(0, len(values), 2))
        kind = rng.integers(0, 9)
        if kind < 3:
            if a.type.shape == b.type.shape:
                values.append(g.op(["add", "multiply", "maximum"][kind], a, b))
        elif kind < 5:
            values.append(g.op(["tanh", "relu"][kind - 3], a))
        elif kind == 5 and a.type.ndim == 3:
            values.append(g.transpose(a, axes=tuple(int(i) for i in rng.permutation(3))))
        elif kind == 6:
            values.append(g.reshape(a, shape=(a.type.size,)))
        elif kind == 7 and a.type.ndim == 3:
            values.append(g.sum(a, axes=(int(rng.integers(0, 3)),), keepdims=bool(rng.integers(0, 2))))
        elif kind == 8 and a.type.ndim == 3:
            values.append(g.softmax(a, axis=int(rng.integers(0, 3))))
    module = g.build(values[-1], values[-2], values[len(values) // 2])
    graph = GRAPH.run(module)
    same(module, graph, 1e-5)
    fused = FUSE.run(graph)
    same(module, fused, 1e-5)
    lowered = LOWER.run(fused)
    inputs = [array(3, 4, 5), array(3, 4, 5)]
    for a, b in zip(run_kernels(lowered, inputs), evaluate(module, inputs, exact=True)):
        assert relative_error(a, b) < 1e-5


def test_memory_plan_never_overlaps_what_is_alive() -> None:
    lowered = LOWER.run(FUSE.run(GRAPH.run(cnn())))
    main = lowered.main
    plan = plan_memory(lowered)
    assert 0 < plan.arena_bytes <= plan.total_bytes
    last = {a: i for i, b in enumerate(main.bindings) for a in b.call.args}
    alive: list[tuple[int, int, int, int]] = []
    for i, b in enumerate(main.bindings):
        for r in b.results:
            slot = plan.slots[r]
            if slot.place == "arena" and isinstance(b.call, FuncCall):
                end = max([last.get(r, i)] + [last.get(v, i) for v in _views(main, r)])
                alive.append((i, end, slot.at, slot.at + r.type.nbytes))
    for i, x in enumerate(alive):
        for y in alive[i + 1 :]:
            assert x[1] < y[0] or y[1] < x[0] or x[3] <= y[2] or y[3] <= x[2]


def _views(main: Function, r: Value) -> list[Value]:
    return [b.result for b in main.bindings if isinstance(b.call, OpCall) and b.call.args[0] is r]


def test_a_pipeline_checks_its_order_when_it_is_made() -> None:
    with pytest.raises(InternalError, match="requires"):
        Pipeline((LowerToPrimFuncs(), FuseOps()))


def test_a_failing_pass_names_itself_and_writes_a_reproducer() -> None:
    class Broken:
        requires = frozenset()
        ensures = frozenset()

        def run(self, module: IRModule) -> IRModule:
            raise KeyError("lost")

    failing = cnn()
    with pytest.raises(InternalError, match="pass Broken failed") as error:
        Pipeline((Broken(),)).run(failing)
    path = error.value.hint.split()[4]
    scope: dict = {}
    exec(Path(path).read_text(), scope)
    assert structural_equal(scope["program"], failing)


def test_short_products_join() -> None:
    """The gradient of a weight that every step of a sequence uses: one product, whatever else is added."""
    rng = np.random.default_rng(3)
    g = GraphBuilder()
    xs = [g.input(f"x{i}", (4, 30)) for i in range(5)]
    ys = [g.input(f"y{i}", (4, 40)) for i in range(5)]
    total = g.input("z", (30, 40))
    for x, y in zip(xs, ys):
        total = g.add(total, g.matmul(x, y, transposed=(True, False)))
    module = g.build(total)
    inputs = [rng.standard_normal(p.type.shape).astype("float32") for p in module.main.params]
    simple = GRAPH.run(module)
    assert sum(b.call.op == "matmul" for b in simple.main.bindings) == 5  # the first sum is not one of products
    g = GraphBuilder()
    xs = [g.input(f"x{i}", (4, 30)) for i in range(5)]
    ys = [g.input(f"y{i}", (4, 40)) for i in range(5)]
    products = [g.matmul(x, y, transposed=(True, False)) for x, y in zip(xs, ys)]
    total = products[0]
    for p in products[1:]:
        total = g.add(total, p)
    joined = GRAPH.run(g.build(total))
    assert [b.call.op for b in joined.main.bindings] == ["concat", "transpose", "concat", "matmul"]
    arrays = inputs[:5] + inputs[5:10]
    np.testing.assert_allclose(evaluate(joined, arrays)[0], evaluate(g.build(total), arrays)[0], rtol=1e-5, atol=1e-5)
    for shapes in (
        ((30, 200), (200, 40)),
        ((3, 4), (4, 5)),
    ):  # long sums, or hardly any result: copying would cost more
        g = GraphBuilder()
        a, b, c, d = (g.input(n, s) for n, s in zip("abcd", (*shapes, *shapes)))
        kept = GRAPH.run(g.build(g.add(g.matmul(a, b), g.matmul(c, d))))
        assert sum(x.call.op == "matmul" for x in kept.main.bindings) == 2


def adam(g: GraphBuilder) -> tuple:
    """A parameter's update: results p, m, v, and the inputs that they replace."""
    p, grad, m, v = (g.input(n, (33, 20)) for n in "pgmv")
    m1 = g.add(g.multiply_scalar(m, scalar=0.9), g.multiply_scalar(grad, scalar=0.1))
    v1 = g.add(g.multiply_scalar(v, scalar=0.99), g.multiply_scalar(g.multiply(grad, grad), scalar=0.01))
    step = g.divide(m1, g.add_scalar(g.sqrt(v1), scalar=1e-8))
    return (g.subtract(p, g.multiply_scalar(step, scalar=0.1)), m1, v1), {p: 0, m: 1, v: 2}


def test_an_optimizers_update_is_one_kernel_that_moves_each_byte_once(rng: np.random.Generator) -> None:
    g = GraphBuilder()
    results, updates = adam(g)
    module = g.build(*results, updates=updates)
    exe = tcomp.compile(module)
    (kernel,) = exe.program.kernels
    assert (
        kernel.nbytes == 7 * 4 * 33 * 20 and len(exe.program.steps) == 1
    )  # four arrays read, three written, none copied
    arrays = [np.abs(rng.standard_normal((33, 20))).astype("float32") for _ in range(4)]
    want = evaluate(module, arrays, exact=True)
    got = exe(*arrays)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert got[0] is arrays[0] and got[1] is arrays[2] and got[2] is arrays[3]
    assert exe.ir("scheduled").count("parallel") <= 1 and exe.ir("scheduled").count("vectorized") == 1


def test_groups_join_only_where_no_third_one_comes_between(rng: np.random.Generator) -> None:
    """x is read by both sums, but the second one needs the product of the first."""
    g = GraphBuilder()
    x, y = g.input("x", (24, 24)), g.input("y", (24, 24))
    first = g.add(x, y)
    second = g.add(x, g.exp(g.softmax(g.matmul(first, first))))
    module = g.build(first, second)
    exe = tcomp.compile(module)
    assert exe.num_kernels >= 3
    arrays = [rng.standard_normal((24, 24)).astype("float32") for _ in range(2)]
    for a, b in zip(exe(*arrays), evaluate(module, arrays, exact=True)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_joined_groups_run_before_what_reads_any_of_their_results(rng: np.random.Generator) -> None:
    """A reader of the first result stands, in the graph, before the call that joins the kernel."""
    g = GraphBuilder()
    x, y = g.input("x", (16, 16)), g.input("y", (16, 16))
    a = g.exp(x)
    early = g.matmul(a, y)
    b = g.multiply(a, g.tanh(y))
    module = g.build(early, b, a)
    exe = tcomp.compile(module)
    assert exe.num_kernels == 2
    arrays = [rng.standard_normal((16, 16)).astype("float32") for _ in range(2)]
    for got, want in zip(exe(*arrays), evaluate(module, arrays, exact=True)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (4, 1, 33), (0, 5), ()])
def test_several_results_of_odd_shapes(shape: tuple, rng: np.random.Generator) -> None:
    """A row, a column and a number broadcast beside full operands: one loop nest, whatever the last axis is."""
    g = GraphBuilder()
    x = g.input("x", shape)
    row, number = g.input("row", shape[-1:]), g.input("number", ())
    a = g.add(x, row)
    b = g.multiply(g.exp(a), number)
    module = g.build(b, a, g.maximum(x, row), g.cast(a, dtype="float64"))
    arrays = [rng.standard_normal(s).astype("float32") for s in (shape, shape[-1:], ())]
    exe = tcomp.compile(module)
    assert exe.num_kernels == 1
    for got, want in zip(exe(*arrays), evaluate(module, arrays, exact=True)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
