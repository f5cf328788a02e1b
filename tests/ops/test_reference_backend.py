"""The interpreter as a backend: every operator, random graphs, single kernels, through the same compile(), memory plan and program."""

import numpy as np
import pytest
from test_operators import CASES, judge, make

import tcomp
from tcomp import te
from tcomp.dtype import dtype
from tcomp.errors import TcompError
from tcomp.ir.graph import TensorType
from tcomp.ops import OPERATORS, infer
from tcomp.ops.reference import evaluate
from tcomp.ops.registry import as_tuple
from tcomp.tools.graph_fuzz import differs, random_graph

MOST_FLOPS = 400_000
"""The interpreter takes microseconds for each."""


def flops(op: str, shapes: list, attrs: dict) -> int:
    """Operations of a call."""
    arrays = [make(s, op, np.random.default_rng(0)) for s in shapes]
    types = [TensorType(x.shape, dtype(x.dtype)) for x in arrays]
    (first, *_), complete = infer(op, types, attrs)
    return OPERATORS[op].flops(types, first, complete)


SMALL = [case for case in CASES if flops(*case) <= MOST_FLOPS]


def test_every_operator_has_a_small_case() -> None:
    assert {case[0] for case in SMALL} == set(OPERATORS)


def check_operator(op: str, shapes: list, attrs: dict, rng: np.random.Generator, target: str) -> None:
    """An operator alone, compiled for a target, against its reference."""
    arrays = [make(s, op, rng) for s in shapes]
    g = tcomp.GraphBuilder()
    results = g.op(op, *(g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)), **attrs)
    module = g.build(*as_tuple(results))
    judge(tcomp.compile(module, target=target)(*arrays), evaluate(module, arrays, exact=True), attrs)


def check_graph(seed: int, target: str) -> None:
    """Many kernels, results and constants in one program."""
    module, inputs, eps = random_graph(seed)
    got = tcomp.compile(module, target=target)(*inputs)
    results = got if isinstance(got, tuple) else (got,)
    assert not [d for g, w, e in zip(results, evaluate(module, inputs), eps) if (d := differs(g, w, e))]


@pytest.mark.parametrize(("op", "shapes", "attrs"), SMALL, ids=[f"{c[0]}-{i}" for i, c in enumerate(SMALL)])
@pytest.mark.drawn(1 / 3)
def test_every_operator(op: str, shapes: list, attrs: dict, rng: np.random.Generator) -> None:
    check_operator(op, shapes, attrs, rng, "reference")


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.drawn(1 / 2)
def test_random_graphs(seed: int) -> None:
    check_graph(seed, "reference")


def test_kernels_with_symbolic_extents_and_schedules() -> None:
    n = te.var("n")
    a = te.placeholder((n, 8), name="A")
    func = te.create_prim_func([a, te.compute((n, 8), lambda i, j: a[i, j] * 2.0, name="B")], "double")
    exe = tcomp.compile(func, target="reference")
    for rows in (0, 1, 5):
        x = np.arange(rows * 8, dtype="float32").reshape(rows, 8)
        assert np.array_equal(exe(x), 2 * x)
    sch = tcomp.Schedule(func)
    sch.split(sch.get_loops("B")[1], [None, 3])
    shown = tcomp.compile(sch, target="reference")
    assert np.array_equal(shown(np.ones((4, 8), "float32")), np.full((4, 8), 2, "float32"))
    assert "range(3)" in shown.ir("scheduled") and "def run" in shown.ir("python")
    assert "interpreted" in shown.explain() and len(shown.profile(np.ones((4, 8), "float32")).rows) == 1


def test_what_it_does_not_have_is_named() -> None:
    a = te.placeholder((3,), name="A")
    exe = tcomp.compile(te.create_prim_func([a, te.compute((3,), lambda i: a[i], name="B")]), target="reference")
    with pytest.raises(TcompError, match="no stage 'llvm'"):
        exe.ir("llvm")
    assert str(tcomp.Target.parse("reference")) == "reference"


def test_a_model_may_call_kernels_of_its_own() -> None:
    """An IRModule whose entry calls operators and a PrimFunc; a kernel may even be named as the entry usually is."""
    from tcomp.ir.graph import Binding, FuncCall, Function, OpCall, TensorType, Value
    from tcomp.ops.registry import infer

    a = te.placeholder((4, 5), name="A")
    func = te.create_prim_func([a, te.compute((4, 5), lambda i, j: a[i, 4 - j] + 1.0, name="B")], "turn")
    kind = TensorType((4, 5), a.dtype)
    x, y, z = (Value(name, kind) for name in "xyz")
    _, attrs = infer("relu", [kind], {})
    bindings = (Binding((y,), OpCall("relu", (x,), attrs)), Binding((z,), FuncCall("turn", (y,))))
    module = tcomp.IRModule({"main": Function("main", (x,), bindings, (z,)), "turn": func}, facts=frozenset({"typed"}))
    v = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    want = np.maximum(v, 0)[:, ::-1] + 1
    for target in ("cpu", "reference"):
        assert np.array_equal(tcomp.compile(module, target=target)(v), want)
    assert np.array_equal(evaluate(module, [v])[0], want)
