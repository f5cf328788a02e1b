"""What compiling holds on to: the weights of a model are let go as soon as others have taken their places."""

import gc
import weakref

import numpy as np
import pytest

import tcomp
from tcomp import driver
from tcomp.backends import backend_of
from tcomp.ir.module import IRModule
from tcomp.ops import GraphBuilder
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
