"""Random graphs of all dtypes through each graph pass; rewrites that once changed the answer."""

import numpy as np
import pytest

import tcomp
import tcomp.passes.simplify as simplify
from tcomp.ir.graph import OpCall, Operand, TensorType
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes import GRAPH
from tcomp.passes.rewriter import Rewriter, rule
from tcomp.tools.graph_fuzz import differs, random_graph, run_graph, verdicts


@pytest.mark.parametrize("first", range(40_000, 40_120, 20))
@pytest.mark.drawn(1 / 3)
def test_fresh_graphs(first: int) -> None:
    assert not [v for v in verdicts(first, 20) if v[1]]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 4000, 100))
def test_four_thousand_graphs(first: int) -> None:
    assert not [v for v in verdicts(first, 100) if v[1]]


def test_the_graphs_cover_operators_and_dtypes() -> None:
    modules = [random_graph(seed)[0] for seed in range(800)]
    bindings = [b for m in modules for f in m.graphs for b in f.bindings]
    calls = {b.call.op if isinstance(b.call, OpCall) else type(b.call).__name__ for b in bindings}
    kinds = {b.result.type.dtype.name for m in modules for b in m.main.bindings}
    missing = {"exp", "add", "floor_divide", "logical_and", "where", "cast", "sum", "prod", "max", "mean", "argmax", "reshape",
               "transpose", "broadcast_to", "concat", "slice", "pad", "flip", "dilate", "take", "matmul", "linear", "conv2d",
               "batch_norm", "max_pool2d", "avg_pool2d", "global_avg_pool2d", "softmax", "layer_norm", "rms_norm", "attention",
               "cross_entropy", "multiply_scalar", "scatter", "scatter_add", "Scan", "Cond"} - calls  # fmt: skip
    assert not missing and len(kinds) == 13


@rule("multiply")
def careless_fold(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """The factor goes into the weight, whatever the weight can hold."""
    y, factor = call.args[0], g.array(call.args[1])
    inner = g.definition(y, "matmul")
    weight = g.array(inner.args[1]) if inner is not None else None
    if factor is None or weight is None or factor.size != type_.shape[-1] or not g.is_used_once(y):
        return None
    return g.again(inner, inner.args[0], g.constant((weight * factor.reshape(-1)).astype(weight.dtype)))


def test_the_fuzzer_notices_a_scale_folded_into_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplify, "SCALES", (careless_fold,))
    assert any("FoldScales" in run_graph(seed, native=False) for seed in range(600))


def _scaled(kind: str, factor: np.ndarray, out_dtype: str | None, rng: np.random.Generator) -> tuple:
    x, w = (rng.integers(-100, 100, s).astype(kind) for s in ((4, 8), (8, 16)))
    g = GraphBuilder()
    y = g.matmul(g.input("x", x.shape, kind), g.constant(w), out_dtype=out_dtype)
    return g.build(g.multiply(y, g.constant(factor))), x, w


def test_a_factor_of_integer_sums_stays_out_of_narrow_weights(rng: np.random.Generator) -> None:
    module, x, w = _scaled("int8", np.full(16, 100, "int32"), "int32", rng)
    want = x.astype("int64") @ w.astype("int64") * 100
    assert np.array_equal(tcomp.compile(module)(x), want)


def test_a_factor_of_wide_sums_does_not_overflow_half_weights(rng: np.random.Generator) -> None:
    module, x, w = _scaled("float16", np.full(16, 1e5, "float32"), "float32", rng)
    want = x.astype("float64") @ w.astype("float64") * 1e5
    got = tcomp.compile(module)(x)
    assert np.isfinite(got).all() and np.allclose(got, want, rtol=1e-5, atol=1e-3 * np.abs(want).max())


def test_float32_factors_are_folded_still(rng: np.random.Generator) -> None:
    g = GraphBuilder()
    y = g.matmul(g.input("x", (4, 8)), g.constant(rng.standard_normal((8, 16)).astype("float32")))
    module = g.build(g.multiply(y, g.constant(np.full(16, 3, "float32"))))
    assert [b.call.op for b in GRAPH.run(module).main.bindings] == ["matmul"]


@pytest.mark.parametrize("kind", ["int32", "uint8", "float32"])
def test_not_not_of_numbers_is_a_bool(kind: str) -> None:
    x = np.array([0, 1, 5, 200], kind)
    g = GraphBuilder()
    module = g.build(g.logical_not(g.logical_not(g.input("x", x.shape, kind))))
    got = tcomp.compile(module)(x)
    assert got.dtype == bool and np.array_equal(got, [False, True, True, True])
    assert differs(got, evaluate(module, [x])[0], 0) == ""
