"""What leaves loops, and what stays: each by itself, with the same answer."""

from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.ir.graph import OpCall, Scan
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.check import random_array, relative_error
from tcomp.passes.scans import SimplifyScans

R = np.random.default_rng(5)


def simplified(module: tcomp.IRModule) -> tcomp.IRModule:
    """The module after the pass, with the same answer."""
    after = SimplifyScans().run(module)
    arrays = [random_array(p.type, R) for p in module.main.params]
    for a, b in zip(evaluate(after, arrays, exact=True), evaluate(module, arrays, exact=True), strict=True):
        assert relative_error(a, b) < 1e-12
    return after


def scan_of(module: tcomp.IRModule) -> Scan:
    return next(b.call for b in module.main.bindings if isinstance(b.call, Scan))


def calls(module: tcomp.IRModule, body: bool) -> list[str]:
    """The operators of the body, or of the entry."""
    f = module.graph(scan_of(module).body) if body else module.main
    return [b.call.op for b in f.bindings if isinstance(b.call, OpCall)]


def graph(make: Any, count: bool = False, batch: int = 3) -> tcomp.IRModule:
    """A scan over rows (5, batch, 4), with a carried (batch, 4) tensor, a matrix w (4, 4) and a sum (4, 4)."""
    g = GraphBuilder()
    x, h = g.input("x", (5, batch, 4)), g.input("h", (batch, 4))
    w, total = g.input("w", (4, 4)), g.input("total", (4, 4))
    n = {"count": g.input("n", (), "int64")} if count else {}
    results: tuple[Any, ...] = ()

    def body(b: GraphBuilder, carried: Any, rows: Any) -> Any:
        return make(b, carried[0], carried[1], rows[0], w)

    after, stacked = g.scan(body, [h, total], [x], **n)
    results = (*after, *stacked)
    return g.build(*results)


def test_what_is_captured_is_computed_once() -> None:
    module = graph(lambda b, h, s, x, w: ((b.matmul(h, b.transpose(w, axes=(1, 0))), b.add(s, b.exp(w))), ()))
    after = simplified(module)
    assert calls(after, True) == ["matmul", "add"] and calls(after, False) == ["transpose", "exp"]


def test_what_makes_much_out_of_little_stays() -> None:
    def body(b: GraphBuilder, h: Any, s: Any, x: Any, w: Any) -> Any:
        row = b.slice(w, begin=(0, 0), end=(1, 4))
        return (b.add(h, b.broadcast_to(row, shape=(3, 4))), s), ()

    after = simplified(graph(body))
    assert calls(after, True) == ["broadcast_to", "add"] and calls(after, False) == ["slice"]


def test_constants_are_known_inside_and_what_never_changes_is_captured() -> None:
    g = GraphBuilder()
    x, h = g.input("x", (5, 3, 4)), g.input("h", (4, 4))
    c = g.constant(R.standard_normal((4, 4)).astype("float32"))
    (last,), (rows,) = g.scan(lambda b, k, r: ((k[0],), (b.matmul(b.matmul(r[0], c), b.exp(k[0])),)), [h], [x])
    after = simplified(g.build(last, rows))
    scan = scan_of(after)
    assert scan.num_carried == 0 and all(a is not c for a in scan.args) and after.main.results[0] is h


def test_products_of_rows_are_one_product() -> None:
    after = simplified(graph(lambda b, h, s, x, w: ((b.tanh(b.add(h, b.matmul(x, w))), s), ())))
    assert calls(after, True) == ["add", "tanh"] and calls(after, False) == ["matmul"]


def summing(b: GraphBuilder, h: Any, s: Any, x: Any, w: Any) -> Any:
    new = b.tanh(b.add(h, x))
    return (new, b.add(b.matmul(b.transpose(h, axes=(1, 0)), new), s)), (new,)


def test_a_sum_of_products_is_one_product_of_all_trips() -> None:
    after = simplified(graph(summing, batch=1))
    assert scan_of(after).num_carried == 1 and "matmul" not in calls(after, True)
    assert calls(after, False) == ["reshape", "transpose", "reshape", "matmul", "add"]


def test_a_sum_stays_where_stacking_moves_more() -> None:
    after = simplified(graph(summing, batch=9))
    assert scan_of(after).num_carried == 2 and "matmul" in calls(after, True)


def test_terms_that_are_no_sums_of_rows_stay() -> None:
    def body(b: GraphBuilder, h: Any, s: Any, x: Any, w: Any) -> Any:
        (new, total), rows = summing(b, h, s, x, w)
        return (new, b.add(total, b.tanh(w))), rows

    def own(b: GraphBuilder, h: Any, s: Any, x: Any, w: Any) -> Any:
        (new, total), rows = summing(b, h, s, x, w)
        return (new, total), (*rows, b.exp(s))

    after = simplified(graph(body, batch=1))
    assert scan_of(after).num_carried == 2 and "matmul" not in calls(after, True)
    assert scan_of(simplified(graph(own, batch=1))).num_carried == 2, "trips read the sum"


@pytest.mark.parametrize("make", [summing, lambda b, h, s, x, w: ((b.add(h, b.matmul(x, w)), s), ())])
def test_counted_scans_keep_their_sums_and_products(make: Any) -> None:
    module = graph(make, count=True, batch=1)
    after = SimplifyScans().run(module)
    assert "matmul" in calls(after, True)
    arrays = [random_array(p.type, R) for p in module.main.params[:-1]]
    for n in (0, 2, 7):
        for a, b in zip(evaluate(after, [*arrays, np.array(n)], True), evaluate(module, [*arrays, np.array(n)], True)):
            assert relative_error(a, b) < 1e-12


def test_what_nobody_reads_goes() -> None:
    g = GraphBuilder()
    x, h, k = g.input("x", (5, 4)), g.input("h", (4,)), g.input("k", (4,))
    body = lambda b, c, r: ((b.add(c[0], r[0]), b.add(c[1], b.exp(c[0])), b.tanh(c[2])), (b.sin(r[1]), c[0]))
    last, rows = g.scan(body, [h, h, k], [x, x])
    for used, carried, scanned, stacked in (
        ((last[0],), 1, 1, 0),
        ((last[1],), 2, 1, 0),
        ((rows[1], last[2]), 2, 1, 1),
        ((rows[0],), 0, 1, 1),
    ):
        after = simplified(g.build(*used))
        scan = next(b for b in after.main.bindings if isinstance(b.call, Scan))
        assert (scan.call.num_carried, scan.call.num_scanned) == (carried, scanned)
        assert len(scan.results) == carried + stacked


def test_weights_that_are_made_of_constants_are_packed_for_a_loop() -> None:
    g = GraphBuilder()
    x, h = g.input("x", (5, 2, 24)), g.input("h", (2, 24))
    parts = [g.constant(R.standard_normal((12, 24)).astype("float32") / 5) for _ in range(2)]
    w = g.concat(*parts, axis=0)

    def body(b: GraphBuilder, carried: Any, rows: Any) -> Any:
        y = b.tanh(b.add(rows[0], b.matmul(carried[0], b.transpose(w, axes=(1, 0)))))
        return (y,), (y,)

    after, stacked = g.scan(body, [h], [x])
    module = g.build(*after, *stacked)
    exe = tcomp.compile(module)
    assert [k.name for k in exe.program.kernels] == ["packed_matmul_add_tanh"]
    arrays = [random_array(p.type, R) for p in module.main.params]
    for a, b in zip(exe(*arrays), evaluate(module, arrays, exact=True), strict=True):
        assert relative_error(a, b) < 1e-5
