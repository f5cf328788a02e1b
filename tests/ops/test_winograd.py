"""Winograd convolutions: right at odd sizes, with what follows fused, on several targets; chosen where predicted faster."""

import numpy as np
import pytest

import tcomp
from tcomp.dtype import float32
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.ops.winograd import IMAGE, RESULT, WEIGHT
from tcomp.passes.check import relative_error
from tcomp.schedule.rules.cpu.winograd import choose_algorithm
from tcomp.target import Target


@pytest.mark.parametrize("m", [2, 4])
def test_the_matrices_filter(m: int, rng: np.random.Generator) -> None:
    """A^T (G g * B^T d) is the correlation of a signal of m + 2 values with 3 taps."""
    d, g = rng.standard_normal(m + 2), rng.standard_normal(3)
    got = np.asarray(RESULT[m]) @ ((np.asarray(WEIGHT[m]) @ g) * (np.asarray(IMAGE[m]) @ d))
    np.testing.assert_allclose(got, np.correlate(d, g, "valid"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("m", "image", "columns", "width", "padding", "target"),
    [
        (2, (1, 8, 8, 16), 16, 16, 1, "cpu"),
        (4, (2, 9, 11, 17), 37, 32, 1, "cpu"),
        (4, (3, 13, 6, 20), 40, 16, (0, 1, 2, 1), "llvm -mcpu=haswell -num-cores=2"),
        (2, (1, 7, 5, 8), 9, 8, 0, "llvm -mcpu=haswell -num-cores=1"),
        (4, (1, 30, 30, 64), 64, 32, 1, "cpu"),
        (4, (3, 4, 3, 16), 16, 16, 1, "llvm -mcpu=haswell -num-cores=1"),  # images of one tile
        (2, (7, 2, 2, 20), 9, 8, 1, "llvm -mcpu=x86-64-v2 -num-cores=2"),
        (4, (1, 4, 4, 16), 16, 16, 1, "llvm -mcpu=haswell -num-cores=2"),
    ],
)
def test_against_float64(
    m: int, image: tuple, columns: int, width: int, padding: object, target: str, rng: np.random.Generator
) -> None:
    w = rng.standard_normal((3, 3, image[-1], columns)).astype("float32")
    bias = rng.standard_normal(columns).astype("float32")
    g, plain = GraphBuilder(), GraphBuilder()
    u = evaluate_one("winograd_weight", w, tile=m, width=width)
    y = g.winograd_conv2d(g.input("x", image), g.constant(u), tile=m, columns=columns, padding=padding)
    module = g.build(g.relu(g.add(y, g.constant(bias))))
    direct = plain.conv2d(
        plain.input("x", image), plain.constant(w), padding=padding, layout="NHWC", kernel_layout="HWIO"
    )
    reference = plain.build(plain.relu(plain.add(direct, plain.constant(bias))))
    x = rng.standard_normal(image).astype("float32")
    want = evaluate(reference, [x], exact=True)[0]
    exe = tcomp.compile(module, target=target)
    assert "rule: winograd\n" in exe.ir("scheduled")
    assert relative_error(exe(x), want) < 5e-6
    assert relative_error(evaluate(module, [x], exact=True)[0], want) < 1e-5


def evaluate_one(op: str, w: np.ndarray, **attrs: object) -> np.ndarray:
    """One operator, compiled; its NumPy reference agrees."""
    g = GraphBuilder()
    module = g.build(g.op(op, g.input("w", w.shape), **attrs))
    got, want = tcomp.compile(module)(w), evaluate(module, [w])[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    return want


def test_it_is_chosen_where_faster_and_can_be_forbidden() -> None:
    target = Target.parse("llvm -mcpu=skylake-avx512 -num-cores=1")
    assert choose_algorithm(target, (1, 56, 56, 64), (3, 3, 64, 64), float32)[0] == 4
    assert choose_algorithm(target, (1, 2, 2, 512), (3, 3, 512, 512), float32)[0] == 0
    assert choose_algorithm(target, (1, 56, 56, 64), (3, 3, 3, 64), float32)[0] == 0
    g = GraphBuilder()
    weight = g.constant(np.ones((3, 3, 32, 32), "float32"))
    module = g.build(g.conv2d(g.input("x", (1, 28, 28, 32)), weight, padding=1, layout="NHWC", kernel_layout="HWIO"))
    assert "winograd_conv2d" in tcomp.compile(module).ir("graph")
    assert "winograd" not in tcomp.compile(module, winograd=False).ir("graph")
