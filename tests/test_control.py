"""Scans and conds: whole models with loops and branches, native and interpreted, against NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.errors import InputError, ShapeError, VerifyError
from tcomp.ir.equal import structural_equal
from tcomp.ir.graph import Scan
from tcomp.ir.node import with_fields
from tcomp.ir.printer import text
from tcomp.ir.repro import as_python, from_python
from tcomp.ir.verify import verify
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.check import random_array, relative_error
from tcomp.runtime.program import Program

R = np.random.default_rng(7)


def cell(b: GraphBuilder, h: Any, x: Any, w: Any) -> Any:
    return b.tanh(b.add(b.matmul(h, w), x))


def recurrent(reverse: bool = False, rows: int = 7) -> tcomp.IRModule:
    g = GraphBuilder()
    x, w, h = g.input("x", (rows, 3, 4)), g.input("w", (4, 4)), g.input("h", (3, 4))

    def step(b: GraphBuilder, carried: Any, row: Any) -> Any:
        y = cell(b, carried[0], row[0], w)
        return (y,), (b.relu(y), carried[0])

    (last,), (ys, hs) = g.scan(step, [h], [x], reverse=reverse)
    return g.build(last, ys, hs, g.sum(ys, axes=(0,)))


def constant_weights() -> tcomp.IRModule:
    g = GraphBuilder()
    x = g.input("x", (5, 6, 16))
    w = g.constant(R.standard_normal((32, 32)).astype("float32") / 6, "w")
    v = g.constant(R.standard_normal((16, 32)).astype("float32") / 6, "v")
    zero = g.constant(np.zeros((6, 32), np.float32))

    def step(b: GraphBuilder, carried: Any, row: Any) -> Any:
        y = cell(b, carried[0], b.matmul(row[0], v), w)
        return (y,), (y,)

    return g.build(g.scan(step, [zero], [x])[1][0])


def swapping() -> tcomp.IRModule:
    g = GraphBuilder()
    x, a, c = g.input("x", (5, 2)), g.input("a", (2,)), g.input("c", (2,))
    step = lambda b, carried, row: ((carried[1], carried[0]), (b.add(carried[0], row[0]), carried[1]))
    (p, q), (s, t) = g.scan(step, [a, c], [x])
    return g.build(p, q, s, t)


def without_rows() -> tcomp.IRModule:
    """Powers of two, no scanned tensor."""
    g = GraphBuilder()
    x = g.input("x", (3,))
    (y,), (all_,) = g.scan(lambda b, c, _: ((b.add(c[0], c[0]),), (c[0],)), [x], length=6)
    return g.build(y, all_)


def nested(reverse: bool = True) -> tcomp.IRModule:
    """Sums of sums; the inner body reads a value of the outer one and an input."""
    g = GraphBuilder()
    x, z, w = g.input("x", (4, 5, 3)), g.input("z", (3,)), g.input("w", (3,))

    def outer(b: GraphBuilder, carried: Any, row: Any) -> Any:
        scaled = b.multiply(carried[0], w)
        inner = lambda i, c, r: ((i.add(i.multiply(c[0], scaled), r[0]),), (i.multiply(c[0], w),))
        (total,), (seen,) = b.scan(inner, [carried[0]], [row[0]], reverse=reverse)
        return (b.tanh(total),), (seen, b.sum(seen, axes=(0,)))

    (last,), (seen, sums) = g.scan(outer, [z], [x])
    return g.build(last, seen, sums)


def branches() -> tcomp.IRModule:
    g = GraphBuilder()
    x, flag = g.input("x", (3, 4)), g.input("flag", (), "bool")
    y = g.exp(x)
    a, b = g.cond(flag, lambda b: (b.relu(x), y), lambda b: (b.matmul(x, b.constant(np.eye(4, dtype=np.float32))), x))
    return g.build(a, b)


def branch_in_scan() -> tcomp.IRModule:
    g = GraphBuilder()
    x, start, flags = g.input("x", (6, 4)), g.input("start", (4,)), g.input("flags", (6,), "bool")

    def step(b: GraphBuilder, carried: Any, row: Any) -> Any:
        new = b.cond(row[1], lambda t: t.add(carried[0], row[0]), lambda e: carried[0])
        return (new,), (new,)

    (last,), (all_,) = g.scan(step, [start], [x, flags])
    return g.build(last, all_)


def scan_in_branch() -> tcomp.IRModule:
    g = GraphBuilder()
    x, start, flag = g.input("x", (6, 4)), g.input("start", (4,)), g.input("flag", (), "bool")
    add = lambda b, c, r: ((b.add(c[0], r[0]),), ())
    y = g.cond(flag, lambda b: b.scan(add, [start], [x])[0][0], lambda b: b.scan(add, [start], [x], reverse=True)[0][0])
    return g.build(g.relu(y))


def counted(reverse: bool = False) -> tcomp.IRModule:
    g = GraphBuilder()
    x, h, n = g.input("x", (5, 3)), g.input("h", (3,)), g.input("n", (), "int64")

    def step(b: GraphBuilder, carried: Any, row: Any) -> Any:
        new = b.add(b.multiply_scalar(carried[0], scalar=0.5), row[0])
        return (new,), (b.exp(new),)

    (last,), (all_,) = g.scan(step, [h], [x], count=n, reverse=reverse)
    return g.build(last, all_)


MODELS: dict[str, Callable[[], tcomp.IRModule]] = {
    "recurrent": recurrent,
    "recurrent, reversed": lambda: recurrent(True),
    "no rows": lambda: recurrent(rows=0),
    "one row": lambda: recurrent(rows=1),
    "constant weights": constant_weights,
    "swapping": swapping,
    "without rows": without_rows,
    "nested": nested,
    "nested, forward": lambda: nested(False),
    "branches": branches,
    "branch in scan": branch_in_scan,
    "scan in branch": scan_in_branch,
    "counted": counted,
    "counted, reversed": lambda: counted(True),
}


def check(module: tcomp.IRModule, arrays: list[np.ndarray], **how: Any) -> None:
    want = evaluate(module, arrays, exact=True)
    for target in ("cpu", "reference"):
        found = tcomp.compile(module, target=target, **how)(*arrays)
        for a, b in zip(found if isinstance(found, tuple) else (found,), want, strict=True):
            assert relative_error(a, b) < 2e-6, target


@pytest.mark.parametrize("name", MODELS)
def test_native_and_interpreted_runs_agree_with_numpy(name: str) -> None:
    module = MODELS[name]()
    verify(module)
    for _ in range(3):
        check(module, [random_array(p.type, R) for p in module.main.params])


@pytest.mark.parametrize("count", [-3, 0, 1, 4, 5, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_count_runs_the_first_rows_and_leaves_zeros_in_the_others(count: int, reverse: bool) -> None:
    module = counted(reverse)
    x, h = (random_array(p.type, R) for p in module.main.params[:2])
    check(module, [x, h, np.array(count)])
    ran = min(max(count, 0), 5)
    assert not tcomp.compile(module)(x, h, np.array(count))[1][ran:].any()


def test_extents_of_bodies_may_be_symbolic() -> None:
    g = GraphBuilder()
    rows, batch = g.dim("rows", 9), g.dim("batch", 5)
    x, h = g.input("x", (rows, batch, 8)), g.input("h", (batch, 8))
    w = g.constant(R.standard_normal((8, 8)).astype("float32") / 3)
    step = lambda b, c, r: ((cell(b, c[0], r[0], w),), (b.exp(c[0]),))
    (last,), (all_,) = g.scan(step, [h], [x])
    module = g.build(last, all_)
    exes = [tcomp.compile(module, target=t) for t in ("cpu", "reference")]
    for n, m in ((0, 3), (1, 1), (4, 2), (9, 5), (3, 0)):
        arrays = [R.standard_normal(s).astype("float32") for s in ((n, m, 8), (m, 8))]
        want = evaluate(module, arrays, exact=True)
        for exe in exes:
            for a, b in zip(exe(*arrays), want, strict=True):
                assert relative_error(a, b) < 2e-6


@pytest.mark.parametrize("name", MODELS)
def test_written_down_and_read_again(name: str) -> None:
    module = MODELS[name]()
    assert structural_equal(from_python(as_python(module)), module)
    program = tcomp.compile(module).program
    assert Program.from_json(program.to_json(), program.constants) == program


def test_text_and_profile_show_loops() -> None:
    module = recurrent(True)
    assert "scan @scan_body(h, over=(x), with=(w), length=7, reverse=True)" in text(module)
    assert "cond @cond_body else @cond_body_1(flag, " in text(branches())
    exe = tcomp.compile(module)
    profile = exe.profile(*(random_array(p.type, R) for p in module.main.params), repeat=1)
    assert [r.calls for r in profile.rows] == [7, 7, 1] and "matmul_add_tanh x 7" in str(profile)
    dead = tcomp.compile(branches()).profile(np.ones((3, 4), np.float32), np.array(True), repeat=1)
    assert sorted(r.calls for r in dead.rows) == [0, 1, 1]


def test_a_body_is_compiled_once_whatever_the_number_of_rows() -> None:
    assert len(tcomp.compile(recurrent(rows=3)).program.kernels) == len(
        tcomp.compile(recurrent(rows=300)).program.kernels
    )


def test_places_that_a_body_reads_are_checked() -> None:
    g = GraphBuilder()
    table, places = g.input("table", (4, 3)), g.input("places", (5, 2), "int64")
    step = lambda b, c, r: ((), (b.take(table, r[0]),))
    exe = tcomp.compile(g.build(g.scan(step, [], [places])[1][0]))
    values, at = R.standard_normal((4, 3)).astype("float32"), R.integers(-4, 4, (5, 2))
    assert (exe(values, at) == values[at]).all()
    at[3, 1] = 4
    with pytest.raises(InputError, match="places"):
        exe(values, at)


def test_wrong_scans_are_refused() -> None:
    g = GraphBuilder()
    x, h, flag = g.input("x", (5, 3)), g.input("h", (3,)), g.input("flag", (), "bool")
    keep = lambda b, c, r: (c, r)
    for why, wrong in {
        "differ": lambda: g.scan(keep, [h], [x, h]),
        "no number of rows": lambda: g.scan(keep, [h]),
        "no axis": lambda: g.scan(keep, [h], [flag]),
        "cannot have -1 rows": lambda: g.scan(keep, [h], length=-1),
        "a count is": lambda: g.scan(keep, [h], [x], count=flag),
        "turns carried": lambda: g.scan(lambda b, c, r: ((b.cast(c[0], dtype="float64"),), ()), [h], [x]),
        r"returns \(carried tensors": lambda: g.scan(lambda b, c, r: c[0], [h], [x]),
        "a condition is": lambda: g.cond(h, lambda b: x, lambda b: x),
        "the bodies of a cond": lambda: g.cond(flag, lambda b: x, lambda b: h),
    }.items():
        with pytest.raises(ShapeError, match=why):
            wrong()


def test_damaged_scans_are_not_well_formed() -> None:
    module = recurrent()
    scan = module.main.bindings[0]
    assert isinstance(scan.call, Scan)
    for why, call in {
        "no such graph function": with_fields(scan.call, body="nowhere"),
        "do not have 8 rows": with_fields(scan.call, length=8),
        "it takes": with_fields(scan.call, args=scan.call.args[:-1]),
        "change their types": with_fields(scan.call, args=(scan.call.args[2], *scan.call.args[1:])),
    }.items():
        bindings = (with_fields(scan, call=call), *module.main.bindings[1:])
        with pytest.raises(VerifyError, match=why):
            verify(module.with_main(with_fields(module.main, bindings=bindings)))
