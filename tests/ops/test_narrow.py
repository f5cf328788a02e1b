"""Products of 8-bit integers and 16-bit floats: summed up in wider types, by dot product instructions where the CPU has them."""

import numpy as np
import pytest

import tcomp
from tcomp.dtype import bfloat16, dtype, float16, float32, int8, int32, uint8
from tcomp.errors import ShapeError
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.passes.check import relative_error
from tcomp.schedule.rules.cpu.layout import CpuLayout
from tcomp.target import Target

TARGETS = ["cpu", "llvm -mcpu=haswell -num-cores=2"]
SHAPES = [(1, 64, 10), (37, 64, 70), (5, 30, 33), (100, 128, 100)]


def numbers(rng: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    d = dtype(kind)
    if d.is_int:
        return rng.integers(d.lowest, d.highest, shape, endpoint=True).astype(d.numpy)
    return rng.standard_normal(shape).astype(d.numpy)


@pytest.mark.parametrize("target", TARGETS, ids=["host", "avx2"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8")])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.drawn(1 / 3)
def test_products_of_bytes_are_exact(
    shape: tuple, kinds: tuple, constant: bool, target: str, rng: np.random.Generator
) -> None:
    m, k, n = shape
    a, b = numbers(rng, kinds[0], m, k), numbers(rng, kinds[1], k, n)
    g = GraphBuilder()
    x = g.input("x", a.shape, kinds[0])
    y = g.matmul(x, g.constant(b) if constant else g.input("w", b.shape, kinds[1]))
    assert y.type.dtype == int32
    got = tcomp.compile(g.build(y), target=target)(*([a] if constant else [a, b]))
    assert np.array_equal(got, a.astype("int32") @ b.astype("int32"))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("int8", "int8")])
def test_convolutions_of_bytes_are_exact(kinds: tuple, padding: int, rng: np.random.Generator) -> None:
    a, w = numbers(rng, kinds[0], 2, 9, 8, 16), numbers(rng, kinds[1], 3, 3, 16, 20)
    g = GraphBuilder()
    x = g.input("x", a.shape, kinds[0])
    y = g.conv2d(x, g.constant(w), padding=padding, stride=(2, 1), layout="NHWC", kernel_layout="HWIO")
    module = g.build(g.cast(y, dtype="float32"))
    assert np.array_equal(tcomp.compile(module)(a), evaluate(module, [a])[0])


@pytest.mark.parametrize("target", TARGETS, ids=["host", "avx2"])
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.drawn(1 / 2)
def test_products_of_short_floats_are_summed_up_in_float32(
    shape: tuple, constant: bool, kind: str, target: str, rng: np.random.Generator
) -> None:
    m, k, n = shape
    a, b = numbers(rng, kind, m, k), numbers(rng, kind, k, n)
    g = GraphBuilder()
    x = g.input("x", a.shape, kind)
    y = g.matmul(x, g.constant(b) if constant else g.input("w", b.shape, kind), out_dtype="float32")
    got = tcomp.compile(g.build(y), target=target)(*([a] if constant else [a, b]))
    assert got.dtype == np.float32 and relative_error(got, a.astype("float64") @ b.astype("float64")) < 1e-6


def test_a_result_of_the_same_type_is_rounded_once(rng: np.random.Generator) -> None:
    a, b = numbers(rng, "bfloat16", 20, 500), numbers(rng, "bfloat16", 500, 30)
    g = GraphBuilder()
    got = tcomp.compile(g.build(g.matmul(g.input("x", a.shape, "bfloat16"), g.constant(b))))(a)
    exact = a.astype("float64") @ b.astype("float64")
    assert got.dtype == bfloat16.numpy
    assert np.max(np.abs(got.astype("float64") - exact) / np.abs(exact)) < 2**-7  # bfloat16 has 8 bits


def test_dot_product_instructions_are_used_where_the_target_has_them(rng: np.random.Generator) -> None:
    here, older = Target.parse("llvm -mcpu=znver4 -num-cores=1"), Target.parse("llvm -mcpu=haswell -num-cores=1")
    assert (CpuLayout(here).dot_group(uint8, int8), CpuLayout(here).dot_group(bfloat16, bfloat16)) == (4, 2)
    assert (
        CpuLayout(here).dot_group(int8, int8),
        CpuLayout(here).dot_group(float16, float16),
        CpuLayout(here).dot_group(float32, float32),
    ) == (
        1,
        1,
        1,
    )
    assert (CpuLayout(older).dot_group(uint8, int8), CpuLayout(older).dot_group(bfloat16, bfloat16)) == (1, 1)
    for kinds, name in (
        (("uint8", "int8"), "vpdpbusd"),
        (("int8", "int8"), "vpdpbusd"),
        (("bfloat16",) * 2, "vdpbf16ps"),
    ):
        g = GraphBuilder()
        y = g.matmul(g.input("x", (40, 64), kinds[0]), g.constant(numbers(rng, kinds[1], 64, 64)))
        assert name in tcomp.compile(g.build(y), target=here).ir("asm")


def test_dtypes_that_do_not_fit_are_refused() -> None:
    g = GraphBuilder()
    x, y = g.input("x", (3, 4), "int8"), g.input("y", (4, 5), "float32")
    with pytest.raises(ShapeError, match="dtypes differ"):
        g.matmul(x, y)
    with pytest.raises(ShapeError, match="int32 or int8, not float64"):
        g.matmul(x, g.input("z", (4, 5), "int8"), out_dtype="float64")


@pytest.mark.parametrize("columns", [1, 3, 16, 17])
def test_a_product_of_few_columns_with_what_follows_in_its_own_block(columns: int, rng: np.random.Generator) -> None:
    """The block behind reads a single column, where vectors are of sixteen."""
    g = GraphBuilder()
    x = g.input("x", (1, 4), "bfloat16")
    w, least = (rng.standard_normal(s).astype(dtype("bfloat16").numpy) for s in ((4, columns), ()))
    exe = tcomp.compile(g.build(g.minimum(g.constant(least), g.relu(g.matmul(x, g.constant(w))))))
    given = rng.standard_normal((1, 4)).astype(dtype("bfloat16").numpy)
    want = np.minimum(np.maximum(given.astype("float64") @ w.astype("float64"), 0), float(least))
    np.testing.assert_allclose(exe(given).astype("float64"), want, rtol=1e-2, atol=1e-2)
