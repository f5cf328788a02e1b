"""Batches that run some samples at a time: what treats samples apart, where the loop ends, and that nothing changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.ir.graph import OpCall, Scan
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.batch import SplitBatch, plan_split
from tcomp.passes.check import random_array, relative_error

R = np.random.default_rng(7)
NHWC = {"layout": "NHWC", "kernel_layout": "HWIO"}


def c(g: GraphBuilder, *shape: int) -> Any:
    return g.constant(R.standard_normal(shape).astype("float32") / 4)


def split(module: tcomp.IRModule, near_bytes: int = 1) -> tcomp.IRModule:
    """The module after the pass, with the same answer."""
    after = SplitBatch(near_bytes).run(module)
    arrays = [random_array(p.type, R) for p in module.main.params]
    for a, b in zip(evaluate(after, arrays, exact=True), evaluate(module, arrays, exact=True), strict=True):
        assert a.shape == b.shape and relative_error(a, b) < 1e-12
    return after


def scans(module: tcomp.IRModule) -> list[Scan]:
    return [b.call for b in module.main.bindings if isinstance(b.call, Scan)]


def inside(module: tcomp.IRModule) -> list[str]:
    """The operators of the loop's body."""
    (scan,) = scans(module)
    return [b.call.op for b in module.graph(scan.body).bindings if isinstance(b.call, OpCall)]


Make = Callable[[GraphBuilder, Any], Any]
"""(builder, images (6, 8, 8, 4)) -> a tensor"""
APART: dict[str, Make] = {
    "conv": lambda g, x: g.conv2d(x, c(g, 3, 3, 4, 5), padding=1, **NHWC),
    "pool": lambda g, x: g.max_pool2d(x, kernel=2, layout="NHWC"),
    "mean over pixels": lambda g, x: g.mean(x, axes=(1, 2), keepdims=True),
    "rows of pixels": lambda g, x: g.matmul(g.reshape(x, shape=(384, 4)), c(g, 4, 3)),
    "bias, and a tensor beside each sample": lambda g, x: g.add(g.add(x, c(g, 4)), c(g, 6, 1, 1, 4)),
    "a constant joined to each sample": lambda g, x: g.concat(c(g, 6, 8, 1, 4), x, axis=2),
    "layer norm": lambda g, x: g.layer_norm(x, c(g, 4), c(g, 4)),
    "softmax": lambda g, x: g.softmax(x, axis=-1),
    "transpose": lambda g, x: g.transpose(x, axes=(0, 3, 1, 2)),
    "slice": lambda g, x: g.slice(x, begin=(0, 1), end=(6, 5), strides=(1, 2)),
    "pad": lambda g, x: g.pad(x, pad_width=((0, 0), (1, 2), (0, 1), (0, 0))),
    "split": lambda g, x: g.split(x, axis=3, sections=(1, 3))[1],
    "take along another axis": lambda g, x: g.take(x, g.constant(np.array([3, 0, 0])), axis=3),
    "products of stacks": lambda g, x: g.matmul(x, g.transpose(x, axes=(0, 1, 3, 2))),
    "attention": lambda g, x: g.attention(x, g.relu(x), x, c(g, 8, 8)),
    "extremes": lambda g, x: g.cast(g.argmax(x, axis=2), dtype="float32"),
}
TOGETHER: dict[str, Make] = {
    "sum over samples": lambda g, x: g.sum(x, axes=(0,)),
    "softmax over samples": lambda g, x: g.softmax(x, axis=0),
    "transpose that moves samples": lambda g, x: g.transpose(x, axes=(1, 0, 2, 3)),
    "first samples alone": lambda g, x: g.slice(x, begin=(0,), end=(3,)),
    "samples backwards": lambda g, x: g.slice(x, begin=(None,), end=(None,), strides=(-1,)),
    "padded with samples": lambda g, x: g.pad(x, pad_width=((0, 6), (0, 0), (0, 0), (0, 0))),
    "joined with other samples": lambda g, x: g.concat(x, c(g, 6, 8, 8, 4), axis=0),
    "taken from other samples": lambda g, x: g.take(x, g.constant(np.array([3, 0, 0, 1, 1, 2])), axis=0),
    "a product of two batches": lambda g, x: g.matmul(g.reshape(x, shape=(6, 256)), g.reshape(x, shape=(256, 6))),
    "beside all samples' sum": lambda g, x: g.add(x, g.sum(x, axes=(0,), keepdims=True)),
}


def model(make: Make) -> tcomp.IRModule:
    """An operator after two layers, and a product that reads its result from memory."""
    g = GraphBuilder()
    x = g.relu(g.conv2d(g.input("x", (6, 8, 8, 4)), c(g, 1, 1, 4, 4), **NHWC))
    y = make(g, g.max_pool2d(g.exp(x), kernel=1, layout="NHWC"))
    last = y.type.shape[-1]
    return g.build(g.matmul(g.reshape(y, shape=(y.type.size // last, last)), c(g, last, 2)))


@pytest.mark.parametrize("name", APART)
def test_what_treats_samples_apart_runs_in_the_loop(name: str) -> None:
    module = model(APART[name])
    ops = [b.call.op for b in module.main.bindings if isinstance(b.call, OpCall)]
    assert ops[: ops.index("max_pool2d") + 2] == inside(split(module))[: ops.index("max_pool2d") + 2]


@pytest.mark.parametrize("name", TOGETHER)
def test_what_takes_samples_together_ends_the_loop(name: str) -> None:
    module = model(TOGETHER[name])
    assert inside(split(module)) == ["conv2d", "relu", "exp", "max_pool2d"]


def residual(batch: int = 4) -> tcomp.IRModule:
    """Two blocks with shortcuts: the first at 16 x 16, the second, of many weights, at 4 x 4."""
    g = GraphBuilder()
    x = g.input("x", (batch, 16, 16, 8))
    y = g.relu(g.conv2d(x, c(g, 3, 3, 8, 8), padding=1, **NHWC))
    y = g.relu(g.add(g.conv2d(y, c(g, 3, 3, 8, 8), padding=1, **NHWC), x))
    z = g.conv2d(y, c(g, 4, 4, 8, 64), stride=4, **NHWC)
    z = g.relu(g.add(g.conv2d(z, c(g, 3, 3, 64, 64), padding=1, **NHWC), z))
    return g.build(g.mean(z, axes=(1, 2)))


def test_the_loop_ends_where_layers_are_small_and_one_tensor_goes_on() -> None:
    module = residual()
    near = 4 * 16 * 16 * 8 * 4  # of one tensor of the first block
    assert inside(split(module, near)) == ["conv2d", "relu", "conv2d", "add", "relu"]
    assert plan_split(module.main, 16 * near) is None and plan_split(module.main, 0) is None
    for batch, most, expected in (
        (4, near, (2, 2)),
        (4, near // 4, (1, 4)),
        (5, near, (1, 5)),
    ):  # two do not divide five
        plan = plan_split(residual(batch).main, most)
        assert plan is not None and (plan.samples, plan.trips) == expected


def test_layers_of_more_weights_than_samples_stay_together() -> None:
    g = GraphBuilder()
    x = g.input("x", (8, 64))
    module = g.build(g.matmul(g.relu(g.matmul(x, c(g, 64, 64))), c(g, 64, 64)))
    assert SplitBatch(1).run(module) is module


def test_a_layer_alone_gains_nothing_from_a_loop() -> None:
    g = GraphBuilder()
    module = g.build(g.softmax(g.exp(g.input("x", (512, 64))), axis=1))
    assert SplitBatch(1).run(module) is module


@pytest.mark.parametrize("threads", [1, 2])
def test_a_split_batch_is_compiled_and_right(threads: int) -> None:
    target = tcomp.Target.parse("cpu")
    near = int(target.costs.near_caches * target.l2_bytes_per_core * target.num_cores)
    side = int((near / 4 / 8 / 4 * 2) ** 0.5) // 4 * 4 + 8  # four images of 8 channels are twice as much
    g = GraphBuilder()
    x = g.input("x", (4, side, side, 8))
    y = g.relu(g.add(g.conv2d(x, c(g, 3, 3, 8, 8), padding=1, **NHWC), c(g, 8)))
    y = g.conv2d(y, c(g, 3, 3, 8, 8), padding=1, **NHWC)
    y = g.max_pool2d(y, kernel=4, layout="NHWC")
    z = g.reshape(g.mean(g.conv2d(y, c(g, 3, 3, 8, 16), stride=2, **NHWC), axes=(1, 2)), shape=(4, 16))
    module = g.build(g.matmul(z, c(g, 16, 3)))
    exe = tcomp.compile(module, num_threads=threads)
    assert "scan" in exe.ir("graph")
    image = R.standard_normal((4, side, side, 8)).astype("float32")
    assert relative_error(exe(image), evaluate(module, [image], exact=True)[0]) < 1e-5


@pytest.mark.parametrize("batch", [1 << 31, (1 << 31) - 1, (1 << 40) + 1, (1 << 62) + 3, (1 << 63) - 1])
def test_absurd_batches_are_planned_at_once(batch: int) -> None:
    """Nothing counts up to an extent that only a damaged file holds."""
    g = GraphBuilder()
    h = g.input("x", (batch, 4))
    for _ in range(3):
        h = g.relu(g.matmul(h, c(g, 4, 4)))
    plan = plan_split(g.build(h).main, 1 << 20)
    assert plan is None or plan.samples * plan.trips == batch
