"""Tensor expressions: what they mean, and what they refuse."""

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import ExprError
from tcomp.ir.interp import run


@pytest.mark.parametrize(
    ("reduce", "reference"), [(te.sum, np.sum), (te.max, np.max), (te.min, np.min), (te.prod, np.prod)]
)
def test_reducers(reduce: object, reference: object, rng: np.random.Generator) -> None:
    a = te.placeholder((5, 7, 3), name="A")
    k, q = te.reduce_axis(7, "k"), te.reduce_axis(3, "q")
    f = te.create_prim_func([a, te.compute((5,), lambda i: reduce(a[i, k, q], axis=[k, q]), name="R")])
    x = rng.standard_normal((5, 7, 3)).astype("float32")
    want = reference(x.astype(np.float64), axis=(1, 2))
    assert np.allclose(run(f, [x])[0], want, rtol=1e-5)
    assert np.allclose(tcomp.compile(f)(x), want, rtol=1e-5)


@pytest.mark.parametrize(("find", "reference"), [(te.argmax, np.argmax), (te.argmin, np.argmin)])
@pytest.mark.parametrize("values", ["random", "ties", "nan", "infinite"])
def test_argmax(find: object, reference: object, values: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 9)).astype("float32")
    if values == "ties":
        x = np.round(x)
    if values == "nan":
        x[1, 3] = x[1, 5] = x[3, 0] = np.nan
    if values == "infinite":
        x[:] = -np.inf if find is te.argmax else np.inf
    a = te.placeholder((4, 9), name="A")
    k = te.reduce_axis(9, "k")
    index, value = te.compute((4,), lambda i: find(a[i, k], axis=k), name="arg")
    f = te.create_prim_func([a, index, value])
    for got_index, got_value in (run(f, [x]), tcomp.compile(f)(x)):
        assert np.array_equal(got_index, reference(x, axis=1))
        assert np.array_equal(got_value, np.take_along_axis(x, got_index[:, None], 1)[:, 0], equal_nan=True)


def test_user_defined_reducer(rng: np.random.Generator) -> None:
    """Mean and count in one pass, as a pair."""
    pair = te.comm_reducer(lambda x, y: (x[0] + y[0], x[1] + y[1]), lambda t: (0.0, 0), name="sum_count")
    a = te.placeholder((6, 5), name="A")
    k = te.reduce_axis(5, "k")
    s, n = te.compute((6,), lambda i: pair((a[i, k], te.const(1)), axis=k), name="pair")
    x = rng.standard_normal((6, 5)).astype("float32")
    total, count = run(te.create_prim_func([a, s, n]), [x])
    assert np.allclose(total, x.sum(1), atol=1e-5) and (count == 5).all()


def test_symbolic_extents_run_for_any_size(rng: np.random.Generator) -> None:
    n, m = te.var("n"), te.var("m")
    a, b = te.placeholder((n, m), name="A"), te.placeholder((m,), name="B")
    k = te.reduce_axis(m, "k")
    c = te.compute((n,), lambda i: te.sum(a[i, k] * b[k], axis=k), name="C")
    exe = tcomp.compile(te.create_prim_func([a, b, c], "matvec"))
    for shape in ((1, 1), (5, 9), (33, 17)):
        x, y = rng.standard_normal(shape).astype("float32"), rng.standard_normal(shape[1]).astype("float32")
        assert np.allclose(exe(x, y), x @ y, atol=1e-4)
    with pytest.raises(tcomp.TcompError, match="m = 9"):
        exe(np.zeros((5, 9), "float32"), np.zeros(8, "float32"))


def test_multi_stage_and_several_outputs(rng: np.random.Generator) -> None:
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((8,), lambda i: b[i] + a[i], name="C")
    x = rng.standard_normal(8).astype("float32")
    got_b, got_c = tcomp.compile(te.create_prim_func([a, b, c]))(x)
    assert np.allclose(got_b, 2 * x) and np.allclose(got_c, 3 * x)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (
            "return all 2 results of argmax",
            lambda a, k: te.create_prim_func([a, te.compute((4,), lambda i: te.argmax(a[i, k], axis=k)[0], name="X")]),
        ),
        ("int32x4 is a vector", lambda a, k: te.compute((4,), lambda i: te.cast(a[i, 0], "int32x4"), name="X")),
        ("more elements than can be counted", lambda a, k: te.placeholder((2**40, 2**30))),
        (
            "placeholders come first",
            lambda a, k: te.create_prim_func([te.compute((4,), lambda i: 1.0 + a[i, 0], name="X"), a]),
        ),
        ("stands for a scalar", lambda a, k: te.compute((4,), lambda i: te.exp(a), name="X")),
        (
            "must share one reduction",
            lambda a, k: te.compute(
                (4,), lambda i: (te.sum(a[i, k], axis=k), te.sum(a[i, m := te.reduce_axis(4, "m")], axis=m))
            ),
        ),
        ("takes 2", lambda a, k: te.compute((4,), lambda i, j: a[i, j], name="X")),
        ("inside a larger expression", lambda a, k: te.compute((4,), lambda i: te.sum(a[i, k], axis=k) + 1.0)),
        ("reduce axes", lambda a, k: te.compute((4,), lambda i: te.sum(a[i, 0], axis=i))),
        ("2 dimensions", lambda a, k: te.compute((4,), lambda i: a[i])),
        ("one dtype", lambda a, k: te.compute((4, 6), lambda i, j: a[i, j] + i)),
        ("negative extent", lambda a, k: te.placeholder((-1,))),
        ("no parameter", lambda a, k: te.create_prim_func([te.compute((4, 6), lambda i, j: a[i, j])])),
        ("nothing to compute", lambda a, k: te.create_prim_func([a])),
    ],
)
def test_refusals(message: str, make: object) -> None:
    with pytest.raises(ExprError, match=message):
        make(te.placeholder((4, 6), name="A"), te.reduce_axis(6, "k"))


def test_notes_reach_the_block_and_change_no_meaning() -> None:
    a = te.placeholder((5,), name="A")
    b = te.compute((5,), lambda i: a[i] * 2.0, "B", {"role": "double", "panel_width": 16})
    func = te.create_prim_func([a, b], "noted")
    assert dict(func.blocks["B"].annotations) == {"role": "double", "panel_width": 16}
    x = np.arange(5, dtype="float32")
    assert np.array_equal(run(func, [x])[0], 2 * x)
    assert np.array_equal(tcomp.compile(func)(x), 2 * x)


@pytest.mark.parametrize("notes", [{"panel_width": [16]}, {3: "x"}, {"role": 1.5}])
def test_notes_are_names_with_integers_or_texts(notes: dict) -> None:
    a = te.placeholder((5,), name="A")
    with pytest.raises(ExprError, match="annotation"):
        te.compute((5,), lambda i: a[i], "B", notes)


@pytest.mark.parametrize(
    "notes", [{"panel_width": "x"}, {"panel_width": -1}, {"panel_width": 16, "dot_group": 4}, {"panel_width": 7}]
)
def test_notes_that_lie_change_no_answer(notes: dict) -> None:
    """A product of a matrix that lies transposed, said to lie in panels."""
    a, b, k = te.placeholder((6, 20), name="A"), te.placeholder((40, 20), name="B"), te.reduce_axis(20, "k")
    c = te.compute((6, 40), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), "C", notes)
    x, y = (np.random.default_rng(0).standard_normal(s).astype("float32") for s in ((6, 20), (40, 20)))
    got = tcomp.compile(te.create_prim_func([a, b, c], "lying"))(x, y)
    assert np.allclose(got, x.astype("float64") @ y.T, atol=1e-5)
