"""Random shapes of the operators that have schedules of their own, compiled for random targets."""

import numpy as np
import pytest

import tcomp
from tcomp.ir.graph import Operand
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.check import relative_error
from tcomp.target import Target

TARGETS = ("cpu", "llvm -mcpu=haswell -num-cores=2", "llvm -mcpu=x86-64 -num-cores=1")


def random_model(rng: np.random.Generator) -> tuple[tcomp.IRModule, list[np.ndarray]]:
    """A product, convolution, pooling or normalisation with an elementwise tail."""

    def n(high: int) -> int:
        return int(rng.integers(1, high))

    def weight(shapes: list[tuple[int, ...]]) -> Operand:
        """The second operand: an input, or a constant, which kernels may lay out as they like."""
        if rng.random() < 0.5:
            return g.input("w", shapes[1])
        return g.constant(rng.standard_normal(shapes.pop()).astype("float32"))

    g = GraphBuilder()
    kind = rng.integers(0, 6)
    if kind < 2:
        batch = () if rng.random() < 0.7 else (n(4),)
        rows, inner, columns = n(90), n(140), n(200)
        shapes = [(*batch, rows, inner), (inner, columns)]
        y = g.matmul(g.input("x", shapes[0]), weight(shapes))
    elif kind < 4:
        groups = int(rng.choice([1, 1, 2, 3]))
        c, o, k = groups * n(20), groups * n(40), n(4)
        size = k + n(12), k + n(12)
        nhwc = rng.random() < 0.5
        shapes = [
            (n(3), *size, c) if nhwc else (n(3), c, *size),
            (k, k, c // groups, o) if nhwc else (o, c // groups, k, k),
        ]
        x = [g.input("x", shapes[0]), weight(shapes)]
        layout = {"layout": "NHWC", "kernel_layout": "HWIO"} if nhwc else {}
        y = g.conv2d(*x, stride=n(3), padding=int(rng.integers(0, 3)), groups=groups, **layout)
    elif kind == 4:
        shapes = [(n(3), n(40), 4 + n(12), 4 + n(12))]
        y = g.op(
            str(rng.choice(["max_pool2d", "avg_pool2d"])),
            g.input("x", shapes[0]),
            kernel=2 + n(3) - 1,
            stride=n(3),
            padding=1,
        )
    else:
        shapes = [(n(40), n(70))]
        y = g.op(str(rng.choice(["softmax", "log_softmax"])), g.input("x", shapes[0]), axis=int(rng.integers(0, 2)))
    if rng.random() < 0.7:
        y = g.relu(g.add(y, g.constant(rng.standard_normal(y.type.shape[-1:]).astype("float32"))))
    if rng.random() < 0.3:
        y = g.transpose(y, axes=tuple(int(i) for i in rng.permutation(y.type.ndim)))
    return g.build(y), [rng.standard_normal(s).astype("float32") for s in shapes]


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    module, inputs = random_model(rng)
    target = str(rng.choice(TARGETS)) if Target.parse("cpu").triple.startswith("x86_64") else "cpu"
    got = tcomp.compile(module, target=target)(*inputs)
    assert relative_error(got, evaluate(module, inputs, exact=True)[0]) < 5e-6


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.drawn(1 / 2)
def test_random_shapes(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_many_random_shapes(seed: int) -> None:
    check(seed)
