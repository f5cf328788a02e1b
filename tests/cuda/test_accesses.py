"""What is told of a launch's accesses: how wide they are, what of each sector they use, conflicts of banks; and what the default schedules reach."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.codegen.cuda.accesses import Accesses, accesses_of
from tcomp.codegen.cuda.generator import CudaGenerator
from tcomp.codegen.cuda.launches import launches_of
from tcomp.ir.module import IRModule
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.schedule import Schedule
from tcomp.target import CudaTarget, Target

TARGET = "cuda -arch=sm_80"


def told(sch: Schedule) -> list[Accesses]:
    target = Target.parse(TARGET)
    assert isinstance(target, CudaTarget)
    func = sch.func
    for step in CudaGenerator(target).steps:
        func = step(func)
    return [accesses_of(launch) for launch in launches_of(func).launches]


def copy(rows: int, columns: int, step: int = 1) -> Schedule:
    a = te.placeholder((rows, columns * step), name="A")
    return Schedule(
        te.create_prim_func([a, te.compute((rows, columns), lambda i, j: a[i, j * step], name="B")], "copy")
    )


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_width(lanes: int) -> None:
    sch = copy(32, 256)
    i, j = sch.get_loops("B")
    _, x, v = sch.split(j, [None, 32, lanes])
    sch.vectorize(v)
    sch.bind(i, "blockIdx.x")
    sch.bind(x, "threadIdx.x")
    (found,) = told(sch)
    assert found.global_bytes == 2 * 4 * 32 * 256 and found.sector_bytes == found.global_bytes
    assert found.wide_bytes == (found.global_bytes if lanes >= 4 else 0)


def test_rows_that_begin_anywhere_are_not_wide() -> None:
    sch = copy(32, 33)
    i, j = sch.get_loops("B")
    _, v = sch.split(j, [None, 4])
    sch.vectorize(v)
    sch.bind(i, "threadIdx.x")
    (found,) = told(sch)
    assert found.wide_bytes == 0


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16])
def test_sectors(step: int) -> None:
    """Each eighth element uses an eighth of a sector, and so does each sixteenth."""
    sch = copy(8, 32, step)
    i, j = sch.get_loops("B")
    sch.bind(i, "blockIdx.x")
    sch.bind(j, "threadIdx.x")
    (found,) = told(sch)
    nbytes = 4 * 8 * 32
    assert found.global_bytes == 2 * nbytes and found.sector_bytes == nbytes * (1 + min(step, 8))


def transposed(padding: int) -> Schedule:
    a = te.placeholder((64, 64), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((64, 64), lambda i, j: a[j, i], name="B")], "transpose"))
    i, j = sch.get_loops("B")
    i0, i1 = sch.split(i, [None, 32])
    j0, j1 = sch.split(j, [None, 32])
    sch.reorder(i0, j0, i1, j1)
    tile = sch.cache_read("B", "A", "shared")
    sch.compute_at(tile, j0)
    if padding:
        sch.storage_align(tile, 0, 0, 32, padding)
    for name in (tile, "B"):
        *_, y, x = sch.get_loops(name)
        y0, y1 = sch.split(y, [None, 8])
        sch.bind(y1, "threadIdx.y")
        sch.bind(x, "threadIdx.x")
        sch.reorder(y0, y1)
    sch.bind(i0, "blockIdx.y")
    sch.bind(j0, "blockIdx.x")
    return sch


@pytest.mark.parametrize(
    ("padding", "ratio"), [(0, Fraction(33, 2)), (1, Fraction(1)), (2, Fraction(3, 2)), (16, Fraction(17, 2))]
)
def test_banks(padding: int, ratio: Fraction) -> None:
    """Columns of 32 x 32 elements lie in one bank; with rows of 33 in 32 of them, with rows of 34 in 16. Writing them is free of conflicts."""
    (found,) = told(transposed(padding))
    assert Fraction(found.wavefronts, found.least) == ratio


def graph(name: str) -> IRModule:
    g = GraphBuilder()
    x = g.input("x", (64, 128))
    match name:
        case "product":
            y = g.relu(g.add(g.matmul(x, g.input("w", (128, 256))), g.input("b", (256,))))
        case "turned product":
            y = g.matmul(x, g.transpose(g.input("w", (256, 128)), axes=(1, 0)))
        case "convolution":
            image, w = g.input("i", (1, 14, 14, 64)), g.input("w", (3, 3, 64, 64))
            y = g.relu(g.conv2d(image, w, padding=1, layout="NHWC", kernel_layout="HWIO"))
        case "depthwise convolution":
            image, w = g.input("i", (1, 14, 14, 64)), g.input("w", (3, 3, 1, 64))
            y = g.conv2d(image, w, padding=1, layout="NHWC", kernel_layout="HWIO", groups=64)
        case "vector and matrix":
            y = g.matmul(g.input("v", (1, 512)), g.input("w", (512, 256)))
        case "attention":
            y = g.op("attention", *(g.input(n, (2, 4, 64, 64)) for n in "qkv"))
        case "transpose":
            y = g.transpose(x, axes=(1, 0))
        case "concatenation":
            y = g.op("concat", x, g.input("y", (64, 64)), axis=1)
        case "bias":
            y = g.relu(g.add(x, g.input("b", (128,))))
        case _:
            y = g.op("slice", x, begin=(3, 16), end=(60, 128), strides=None)
    return g.build(y)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_products_read_operands_as_they_lie(rows: int, turned: tuple[bool, bool], rng: np.random.Generator) -> None:
    """No transpose is a launch of its own; a constant with an odd number of columns is kept with its rows as columns."""
    w = rng.standard_normal((64, 131)).astype("float32")
    g = GraphBuilder()
    x = g.input("x", (64, rows) if turned[0] else (rows, 64))
    left = g.transpose(x, axes=(1, 0)) if turned[0] else x
    right = g.transpose(g.input("w", (131, 64)), axes=(1, 0)) if turned[1] else g.constant(w)
    module = g.build(g.matmul(left, right))
    exe = tcomp.compile(module, target="cuda -device=emulator")
    assert exe.num_kernels == 1
    inputs = [rng.standard_normal(v.type.shape).astype("float32") for v in module.main.params]
    exact = evaluate(module, inputs, exact=True)[0]
    assert np.linalg.norm(exe(*inputs) - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(1000, 1000), (3, 70000), (77,), (5,), (2, 300, 400), (1, 1)])
@pytest.mark.parametrize("op", ["sum", "max"])
def test_reductions_to_few_numbers(shape: tuple[int, ...], op: str, rng: np.random.Generator) -> None:
    """Long rows have parts, one a block, whose results a second launch adds up."""
    x = rng.standard_normal(shape).astype("float32")
    for axes in ((len(shape) - 1,), tuple(range(len(shape)))):
        g = GraphBuilder()
        module = g.build(g.op(op, g.input("x", shape), axes=axes))
        exe = tcomp.compile(module, target="cuda -device=emulator")
        exact = evaluate(module, [x], exact=True)[0]
        np.testing.assert_allclose(exe(x), exact, rtol=1e-4, atol=1e-4)
        launches = sum(len(launches_of(k.lowered).launches) for k in exe.stages.kernels.values())
        assert launches == (2 if np.prod(shape) > 100_000 and np.prod([shape[a] for a in axes]) > 10_000 else 1)


CASES: Sequence[str] = (
    "product", "turned product", "convolution", "depthwise convolution", "vector and matrix", "attention", "transpose", "concatenation",
    "bias", "slice",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_default_schedules_move_16_bytes_at_once(name: str) -> None:
    exe = tcomp.compile(graph(name), target=TARGET)
    found = sum(
        (accesses_of(x) for k in exe.stages.kernels.values() for x in launches_of(k.lowered).launches), Accesses()
    )
    assert found.wide_bytes >= 0.95 * found.global_bytes and found.sector_bytes <= 1.1 * found.global_bytes
    assert found.wavefronts <= 2.1 * found.least
    assert all(
        str(accesses_of(x)) in exe.explain()
        for k in exe.stages.kernels.values()
        for x in launches_of(k.lowered).launches
    )
