"""What compiling holds on to: the weights of a model are let go as soon as others have taken their places."""

import gc
import weakref

import numpy as np
import pytest

import tcomp
from tcomp import driver
from tcomp.backends import backend_of
from tcomp.ir.module import IRModule
from tcomp.ir.node import with_fields
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes import pack


def test_weights_are_freed_as_passes_replace_them(monkeypatch: pytest.MonkeyPatch) -> None:
    refs: list[weakref.ref[np.ndarray]] = []

    def make() -> IRModule:
        weight, scale = np.ones((64, 48), np.float32), np.full(48, 2, np.float32)
        refs.append(weakref.ref(weight))
        g = GraphBuilder()
        return g.build(g.relu(g.multiply(g.matmul(g.input("x", (20, 64)), g.constant(weight)), g.constant(scale))))

    alive = []
    run = pack.PackWeights.run

    def packing(self: pack.PackWeights, module: IRModule) -> IRModule:
        gc.collect()
        alive.append(refs[0]() is not None)
        return run(self, module)

    monkeypatch.setattr(pack.PackWeights, "run", packing)
    backend = backend_of(tcomp.Target.parse("cpu"))
    x = np.random.default_rng(0).standard_normal((20, 64)).astype("float32")
    got = driver.compile_module(make, backend, driver.Options())(x)
    assert alive == [False] and np.allclose(got, np.maximum(x.sum(1, keepdims=True) * 2, 0).repeat(48, 1), atol=1e-4)


def test_a_weight_stays_until_nothing_reads_it_unpacked() -> None:
    """Of four weights one is packed once, one twice, one is a table besides, one is read in a loop, too."""
    rng = np.random.default_rng(1)
    g = GraphBuilder()
    x, at = g.input("x", (20, 64)), g.input("at", (20,), "int64")
    once, twice, table, looped = (g.constant(rng.standard_normal((64, 64)).astype("float32") / 8) for _ in range(4))
    y = g.matmul(g.matmul(g.matmul(x, once), twice), twice)
    y = g.add(g.matmul(y, table), g.take(table, at, axis=0))
    (last,), _ = g.scan(lambda b, carried, rows: ((b.matmul(carried[0], looped),), ()), [y], length=3)
    module = g.build(g.matmul(last, looped))
    arrays = [rng.standard_normal((20, 64)).astype("float32"), rng.integers(0, 64, 20)]
    want = evaluate(module, arrays, exact=True)[0]
    new = with_fields(module, constants=dict(module.constants))
    packing = pack.PackWeights(backend_of(tcomp.Target.parse("cpu")).layout(True), lets_go=True)
    gone: set[str] = set()
    for f in module.graphs:
        given, new = new, packing.run(new.entered_at(f.name)).entered_at(module.entry)
        gone |= {name for name, a in given.constants.items() if not a.any()}
    assert np.allclose(evaluate(new, arrays, exact=True)[0], want)
    assert {once.name, twice.name} <= gone and table.name not in gone
    assert all(a.any() for a in module.constants.values())
