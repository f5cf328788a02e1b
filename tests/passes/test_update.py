"""Results that take the place of inputs: what is written at once, what is copied, and in which order kernels run."""

import numpy as np
import pytest

import tcomp
from tcomp.errors import InputError, ShapeError
from tcomp.ops import GraphBuilder
from tcomp.passes import FUSE, GRAPH, LOWER

R = np.random.default_rng(2)


def arrays(*shapes: tuple) -> list[np.ndarray]:
    return [R.standard_normal(s).astype("float32") for s in shapes]


def run(module: tcomp.IRModule, inputs: list[np.ndarray]) -> tuple[int, ...]:
    """Compile and run; everything is compared with the values that the graph has. Returns the results written directly."""
    want = tcomp.evaluate(module, inputs)
    changed = dict(module.main.attrs["updates"])
    given = [a.copy() for a in inputs]
    got = tcomp.compile(module)(*given)
    for i, (a, b) in enumerate(zip(got if isinstance(got, tuple) else (got,), want)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=str(i))
    for number, a in enumerate(given):
        wanted = want[changed[number]] if number in changed else inputs[number]
        np.testing.assert_allclose(a, wanted, rtol=1e-4, atol=1e-5)
    return LOWER.run(FUSE.run(GRAPH.run(module))).main.attrs["direct"]


def test_a_step_writes_parameters_after_their_last_use() -> None:
    """The weight's update comes first in the graph, though its gradient's kernel and another one still read the weight."""
    g = GraphBuilder()
    w, x, y = g.input("w", (40, 30)), g.input("x", (50, 40)), g.input("y", (50, 30))
    grad = g.matmul(g.transpose(x, axes=(1, 0)), y)
    new = g.subtract(w, g.multiply_scalar(grad, scalar=0.1))
    late = g.matmul(y, g.transpose(w, axes=(1, 0)))
    assert run(g.build(new, late, updates={w: 0}), arrays((40, 30), (50, 40), (50, 30))) == (0,)


def test_updates_that_read_elsewhere_are_copied() -> None:
    for make in (
        lambda g, p: g.transpose(p, axes=(1, 0)),
        lambda g, p: g.flip(p, axes=(0,)),
        lambda g, p: g.softmax(p),
        lambda g, p: g.matmul(p, p),
    ):
        g = GraphBuilder()
        p = g.input("p", (33, 33))
        assert run(g.build(make(g, p), updates={p: 0}), arrays((33, 33))) == ()


def test_values_that_depend_on_both_old_and_new_force_a_copy() -> None:
    g = GraphBuilder()
    p, x = g.input("p", (8, 64)), g.input("x", (8, 64))
    new = g.add(p, x)
    total = g.sum(new, axes=(1,), keepdims=True)  # a kernel of its own, behind the update
    both = g.matmul(g.multiply(p, total), g.transpose(new, axes=(1, 0)))
    direct = run(g.build(new, both, updates={p: 0}), arrays((8, 64), (8, 64)))
    assert direct in ((), (0,))


def test_chains_of_updates() -> None:
    """Adam's shape: the parameter reads the new moments; two parameters share the update kernel; one reads the other's old value."""
    g = GraphBuilder()
    inputs = [g.input(n, (17, 21)) for n in ("p", "m", "v", "g")]
    p, m, v, grad = inputs
    m2 = g.add(g.multiply_scalar(m, scalar=0.9), g.multiply_scalar(grad, scalar=0.1))
    v2 = g.add(g.multiply_scalar(v, scalar=0.99), g.multiply(grad, grad))
    p2 = g.subtract(p, g.divide(m2, g.add_scalar(g.sqrt(g.abs(v2)), scalar=1e-3)))
    direct = run(g.build(p2, m2, v2, updates={p: 0, m: 1, v: 2}), arrays(*[(17, 21)] * 4))
    assert sorted(direct) == [0, 1, 2]
    g = GraphBuilder()
    a, b = g.input("a", (5, 9)), g.input("b", (5, 9))
    run(g.build(g.add(a, b), g.subtract(b, a), updates={a: 0, b: 1}), arrays((5, 9), (5, 9)))  # either reads the other


def test_an_unchanged_input_and_a_view_of_it() -> None:
    g = GraphBuilder()
    p, q = g.input("p", (4, 6)), g.input("q", (4, 6))
    same, viewed = p, g.reshape(g.reshape(q, shape=(24,)), shape=(4, 6))
    run(g.build(same, viewed, g.sum(q), updates={p: 0, q: 1}), arrays((4, 6), (4, 6)))
    g = GraphBuilder()
    p, x = g.input("p", (4, 6)), g.input("x", (24,))
    new = g.reshape(g.add(g.reshape(p, shape=(24,)), x), shape=(4, 6))
    assert run(g.build(new, updates={p: 0}), arrays((4, 6), (24,))) in ((), (0,))


def test_random_steps_keep_their_meaning() -> None:
    """Random graphs of products and elementwise calls over some parameters, all of which are updated."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        g = GraphBuilder()
        params = [g.input(f"p{i}", (24, 24)) for i in range(3)]
        values = list(params)
        for _ in range(9):
            a, b = (values[int(rng.integers(len(values)))] for _ in range(2))
            op = str(rng.choice(["add", "multiply", "matmul", "transpose", "tanh", "subtract"]))
            if op == "transpose":
                values.append(g.transpose(a, axes=(1, 0)))
            elif op == "tanh":
                values.append(g.tanh(a))
            else:
                values.append(g.op(op, a, g.tanh(b)) if op == "matmul" else g.op(op, a, b))
        results = [values[-1 - i] for i in rng.permutation(5)[:3]]
        module = g.build(*results, g.sum(values[-1]), updates={p: i for i, p in enumerate(params)})
        run(module, [0.3 * a for a in arrays(*[(24, 24)] * 3)])


def test_updates_must_fit() -> None:
    g = GraphBuilder()
    p = g.input("p", (3, 4))
    y = g.sum(p)
    with pytest.raises(ShapeError, match="cannot take the place"):
        g.build(y, updates={p: 0})
    with pytest.raises(ShapeError, match="pairs an input with a result"):
        g.build(y, updates={y: 0})
    with pytest.raises(ShapeError, match="pairs an input with a result"):
        g.build(p, updates={p: 1})


def test_what_cannot_be_changed_in_place_is_refused_and_left_alone() -> None:
    g = GraphBuilder()
    w, x = g.input("w", (4, 5)), g.input("x", (4, 5))
    exe = tcomp.compile(g.build(g.add(w, x), updates={w: 0}))
    first, second = arrays((4, 5), (4, 5))
    fixed = first.copy()
    fixed.flags.writeable = False
    before = first.copy()
    for args, named in (
        ((fixed, second), {}),
        ((first,), {"x": second}),
        ((first, second), {"out": np.zeros((4, 5), "float32")}),
    ):
        with pytest.raises(InputError, match="the model changes inputs in place: w: all inputs must be"):
            exe(*args, **named)
    assert np.array_equal(first, before) and np.array_equal(fixed, before)
    exe(first, second)
    np.testing.assert_allclose(first, before + second)


def test_an_old_value_that_another_result_reads_forces_a_copy() -> None:
    """p's new value leaves the kernel first; q reads the old one, at its own element."""
    g = GraphBuilder()
    p, x = g.input("p", (8, 64)), g.input("x", (8, 64))
    scaled = g.multiply_scalar(p, scalar=0.5)
    module = g.build(g.add(scaled, x), g.subtract(x, scaled), updates={p: 0})
    assert tcomp.compile(module).num_kernels == 1
    assert run(module, arrays((8, 64), (8, 64))) == ()


def test_a_new_value_that_another_result_reads_is_written_at_once() -> None:
    g = GraphBuilder()
    p, q, x = (g.input(n, (8, 64)) for n in "pqx")
    new = g.add(g.multiply_scalar(p, scalar=0.5), x)
    module = g.build(new, g.subtract(q, g.exp(new)), updates={p: 0, q: 1})
    assert tcomp.compile(module).num_kernels == 1
    assert set(run(module, arrays((8, 64), (8, 64), (8, 64)))) == {0, 1}


def test_an_input_that_is_overwritten_and_a_result_too_keeps_its_old_values() -> None:
    g = GraphBuilder()
    x = g.input("x", (4,))
    exe = tcomp.compile(g.build(g.relu(x), x, g.reshape(x, shape=(2, 2)), updates={x: 0}))
    a = np.array([-1, 2, -3, 4], np.float32)
    old = a.copy()
    new, same, reshaped = exe(a)
    assert new is a and (a == np.maximum(old, 0)).all() and (same == old).all() and (reshaped.reshape(-1) == old).all()


def test_inputs_may_swap() -> None:
    g = GraphBuilder()
    x, y, z = (g.input(n, (3,)) for n in "xyz")
    exe = tcomp.compile(g.build(y, z, x, g.add(x, y), updates={x: 0, y: 1, z: 2}))
    arrays = [np.full(3, v, np.float32) for v in (1, 2, 4)]
    *_, total = exe(*arrays)
    assert [a[0] for a in arrays] == [2, 4, 1] and (total == 3).all()


def test_slices_that_are_added_to_an_updated_input_touch_nothing_else() -> None:
    g = GraphBuilder()
    w, rate, places, slices = (
        g.input("w", (50, 8)),
        g.input("rate", ()),
        g.input("p", (6,), "int64"),
        g.input("s", (6, 8)),
    )
    zeros = g.broadcast_to(g.constant(np.zeros((), np.float32)), shape=(50, 8))
    grad = g.scatter_add(zeros, places, slices)
    module = g.build(g.subtract(w, g.multiply(grad, rate)), updates={w: 0})
    before, at, rows = R.standard_normal((50, 8)).astype("float32"), np.array([3, 0, 3, 49, -1, 7]), arrays((6, 8))[0]
    want = before.copy()
    np.subtract.at(want, at, np.float32(0.5) * rows)
    for target in ("cpu", "reference"):
        exe = tcomp.compile(module, target=target)
        given = before.copy()
        exe(given, np.array(0.5, np.float32), at, rows)
        np.testing.assert_allclose(given, want, rtol=1e-6, atol=1e-6)
        (kernel,) = exe.program.kernels
        assert kernel.nbytes < 3 * rows.nbytes + 100, "the other rows were moved, too"
        assert "over 50" not in exe.ir("loops")


def test_slices_are_added_to_a_copy_where_the_input_is_a_result_too() -> None:
    g = GraphBuilder()
    w, places, slices = g.input("w", (9, 4)), g.input("p", (5,), "int64"), g.input("s", (5, 4))
    module = g.build(g.scatter_add(w, places, slices), w, g.exp(w), updates={w: 0})
    before, at, rows = *arrays((9, 4)), np.array([0, 8, 0, 2, 2]), *arrays((5, 4))
    given = before.copy()
    new, old, e = tcomp.compile(module)(given, at, rows)
    want = before.copy()
    np.add.at(want, at, rows)
    np.testing.assert_allclose(new, want, rtol=1e-6)
    assert (old == before).all() and np.allclose(e, np.exp(before), rtol=1e-5)


def test_timing_and_profiling_change_nothing_of_the_caller() -> None:
    g = GraphBuilder()
    w, places, slices = g.input("w", (9, 4)), g.input("p", (5,), "int64"), g.input("s", (5, 4))
    exe = tcomp.compile(g.build(g.scatter_add(w, places, slices), updates={w: 0}))
    before, at, rows = *arrays((9, 4)), np.array([0, 8, 0, 2, 2]), *arrays((5, 4))
    given = before.copy()
    exe.time(given, at, rows, repeat=3)
    exe.profile(given, at, rows, repeat=3)
    assert (given == before).all()
