"""No rule's own schedule is refused: a kernel would fall to a rule that knows nothing of it, and run many times slower."""

from typing import Any

import numpy as np
import pytest
from test_operators import CASES, make

import tcomp
from tcomp.backends import backend_of
from tcomp.ops.registry import as_tuple
from tcomp.passes import pipeline
from tcomp.schedule.rules.default import default_schedule
from tcomp.target import Target

TARGETS = (
    "llvm -mcpu=haswell -num-cores=2",
    "llvm -mcpu=sapphirerapids -num-cores=2",
    "llvm -mtriple=aarch64-unknown-linux-gnu -mcpu=neoverse-n1 -num-cores=4",
)


def refusals(module: tcomp.IRModule, target: str) -> list[str]:
    """The kernels of a model whose rule met a step that is refused, and the rules' words."""
    t = Target.parse(target)
    lowered = pipeline(backend_of(t).layout(True)).run(module)
    found = [(name, default_schedule(f, t).origin) for name, f in lowered.kernels.items()]
    return [f"{name}: {rule}" for name, rule in found if "refused" in rule]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.drawn(1 / 3)
def test_attention_of_any_length(target: str) -> None:
    """Groups of rows whose register tiles would leave them made the last rule refuse to run them in parallel."""
    found = []
    for rows in (50, 65, 197):
        for stacks in (1, 3):
            for how in ({}, {"causal": True}, {"panel": 32}):
                g = tcomp.GraphBuilder()
                shapes = [(stacks, rows, 20), (stacks, rows, 20), (stacks, rows, 12)]
                y = g.attention(*(g.input(f"x{i}", s) for i, s in enumerate(shapes)), **how)
                found += [f"{rows} {stacks} {how}: {r}" for r in refusals(g.build(y), target)]
    assert not found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.drawn(1 / 3)
def test_every_operator(target: str, rng: np.random.Generator) -> None:
    found = []
    for op, shapes, attrs in CASES:
        arrays = [make(s, op, rng) for s in shapes]
        g = tcomp.GraphBuilder()
        operands = [g.constant(x) if i == 1 else g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)]
        found += [f"{op}{shapes}: {r}" for r in refusals(g.build(*as_tuple(g.op(op, *operands, **attrs))), target)]
    assert not found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "kinds",
    [
        "uint8 int8",
        "int8 int8",
        "uint8 uint8",
        "int8 uint8",
        "bfloat16 bfloat16",
        "float16 float16",
        "float32 float32",
        "float64 float64",
    ],
)
@pytest.mark.drawn(1 / 3)
def test_products_of_narrow_numbers(kinds: str, target: str, rng: np.random.Generator) -> None:
    a, b = map(tcomp.dtype.dtype, kinds.split())
    found = []
    for rows, inner, columns in (
        (1, 512, 1024),
        (64, 512, 1024),
        (7, 100, 33),
        (50, 64, 16),
        (3, 5, 130),
        (1, 128, 1),
        (40, 300, 1),
        (9, 64, 2),
    ):
        g = tcomp.GraphBuilder()
        w = rng.integers(0, 9, (inner, columns)).astype(b.numpy)
        y = g.matmul(g.input("x", (rows, inner), a), g.constant(w))
        found += refusals(g.build(g.relu(g.cast(y, dtype="float32"))), target)
        image = g.input("image", (1, 32, 9, 9), a)
        for outputs in (48, 1, 3):
            kernel = rng.integers(0, 9, (outputs, 32, 3, 3)).astype(b.numpy)
            found += refusals(g.build(g.conv2d(image, g.constant(kernel), padding=1)), target)
    assert not found


def _epilogues() -> dict[str, Any]:
    """Elementwise tails, by name: (builder, tensor, one number a channel) -> tensor."""
    names = (
        "relu",
        "leaky_relu",
        "elu",
        "selu",
        "hardswish",
        "hardsigmoid",
        "mish",
        "silu",
        "gelu",
        "softplus",
        "softsign",
        "sign",
    )
    found: dict[str, Any] = {n: lambda g, y, s, n=n: g.op(n, y) for n in names}
    found["prelu"] = lambda g, y, s: g.prelu(y, s)
    found["clip"] = lambda g, y, s: g.clip(y, low=-1.0, high=2.0)
    found["scaled twice"] = lambda g, y, s: g.add(g.multiply(y, s), g.sigmoid(g.add(y, s)))
    found["three ways"] = lambda g, y, s: g.where(
        g.less(y, s), g.multiply(y, y), g.where(g.greater(y, g.negative(s)), s, y)
    )
    return found


@pytest.mark.parametrize("epilogue", _epilogues())
@pytest.mark.parametrize("anchor", ["winograd", "conv", "depthwise", "product", "pool"])
@pytest.mark.drawn(1 / 3)
def test_no_tail_makes_an_anchors_rule_refuse(anchor: str, epilogue: str, rng: np.random.Generator) -> None:
    """A rule that refuses leaves its kernel to one that knows nothing of it: slow code, and long to compile."""
    g = tcomp.GraphBuilder()
    x = g.input("x", (3, 70) if anchor == "product" else (1, 32, 14, 14))
    scale = g.constant(rng.standard_normal((70,) if anchor == "product" else (32, 1, 1)).astype("float32"))
    kernel = {"winograd": (32, 32, 3, 3), "conv": (32, 32, 1, 1), "depthwise": (32, 1, 3, 3), "product": (70, 70)}.get(
        anchor
    )
    w = g.constant(rng.standard_normal(kernel or (1,)).astype("float32"))
    y = {
        "winograd": lambda: g.conv2d(x, w, padding=1),
        "conv": lambda: g.conv2d(x, w),
        "depthwise": lambda: g.conv2d(x, w, padding=1, groups=32),
        "product": lambda: g.matmul(x, w),
        "pool": lambda: g.max_pool2d(x, kernel=2),
    }[anchor]()
    assert not refusals(g.build(_epilogues()[epilogue](g, y, scale)), TARGETS[1])
