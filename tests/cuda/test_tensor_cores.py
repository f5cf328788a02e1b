"""Matrix instructions: products of 16-bit floats by tiles that a warp holds, as the default rule makes them and by hand; what is refused."""

from collections.abc import Callable

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import TargetError, UnsupportedError
from tcomp.ops import GraphBuilder
from tcomp.ops.reference import evaluate
from tcomp.schedule import Schedule

EMULATOR = "cuda -device=emulator"
ALLOWED = {"float16": 2e-3, "bfloat16": 1.6e-2}


def plain(g: GraphBuilder, d: str) -> object:
    return g.matmul(g.input("x", (64, 64), d), g.input("w", (64, 64), d))


def uneven(g: GraphBuilder, d: str) -> object:
    x = g.matmul(g.input("x", (45, 70), d), g.input("w", (70, 37), d))
    return g.relu(g.add(x, g.input("b", (37,), d)))


def batched(g: GraphBuilder, d: str) -> object:
    return g.sigmoid(g.matmul(g.input("x", (2, 3, 33, 40), d), g.input("w", (2, 3, 40, 50), d)))


def right_turned(g: GraphBuilder, d: str) -> object:
    return g.matmul(g.input("x", (32, 48), d), g.transpose(g.input("w", (80, 48), d), axes=(1, 0)))


def left_turned(g: GraphBuilder, d: str) -> object:
    return g.matmul(g.transpose(g.input("x", (48, 40), d), axes=(1, 0)), g.input("w", (48, 64), d))


def linear(g: GraphBuilder, d: str) -> object:
    return g.op("linear", g.input("x", (2, 19, 96), d), g.input("w", (50, 96), d), g.input("b", (50,), d))


def two_products(g: GraphBuilder, d: str) -> object:
    hidden = g.relu(g.matmul(g.input("x", (40, 32), d), g.input("u", (32, 64), d)))
    return g.matmul(hidden, g.input("w", (64, 24), d))


def compiled(
    make: Callable[[GraphBuilder, str], object], d: str
) -> tuple[tcomp.Executable, list[np.ndarray], np.ndarray]:
    g = GraphBuilder()
    module = g.build(make(g, d))
    rng = np.random.default_rng(5)
    inputs = [rng.standard_normal(v.type.shape).astype(v.type.dtype.numpy) for v in module.main.params]
    exact = np.asarray(evaluate(module, inputs, exact=True)[0], np.float64)
    return tcomp.compile(module, target=EMULATOR), inputs, exact


@pytest.mark.parametrize("d", ["float16", "bfloat16"])
@pytest.mark.parametrize("make", [plain, uneven, batched, right_turned, left_turned, linear, two_products])
def test_products_of_16_bit_floats(make: Callable[[GraphBuilder, str], object], d: str) -> None:
    exe, inputs, exact = compiled(make, d)
    assert "tensor_product" in exe.explain() and "tile_multiply_" in exe.ir("cuda")
    results = []
    for order in ("forward", "backward", "shuffled"):
        exe.library.driver.order = order
        results.append(np.asarray(exe(*inputs)))
    error = np.linalg.norm(results[0].astype(np.float64) - exact) / np.linalg.norm(exact)
    assert error < ALLOWED[d]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_sums_are_of_float32() -> None:
    """4096 products of 1 in float16 are 4096, and not the 2048 from which on adding 1 changes nothing."""
    g = GraphBuilder()
    exe = tcomp.compile(
        g.build(g.matmul(g.input("x", (16, 4096), "float16"), g.input("w", (4096, 16), "float16"))), target=EMULATOR
    )
    ones = np.ones((16, 4096), np.float16)
    assert "tile_multiply_" in exe.ir("cuda") and (exe(ones, ones.T.copy()) == 4096).all()


@pytest.mark.parametrize(
    ("arch", "d", "has"),
    [
        ("sm_70", "float16", True),
        ("sm_70", "bfloat16", False),
        ("sm_80", "bfloat16", True),
        ("sm_90", "float32", False),
    ],
)
def test_only_where_the_target_has_them(arch: str, d: str, has: bool) -> None:
    g = GraphBuilder()
    exe = tcomp.compile(g.build(plain(g, d)), target=f"cuda -arch={arch}")
    assert ("tile_multiply_" in exe.ir("cuda")) == has


def by_hand(d: str = "float16") -> Schedule:
    """One tile, and what follows it by the 32 lanes of a warp."""
    a, b = (te.placeholder((16, 16), d, name=n) for n in "AB")
    k = te.reduce_axis(16, "k")
    wide = lambda x: te.cast(x, "float32")
    c = te.compute((16, 16), lambda i, j: te.sum(wide(a[i, k]) * wide(b[k, j]), axis=k), name="C")
    sch = Schedule(te.create_prim_func([a, b, te.compute((16, 16), lambda i, j: c[i, j] + 1.0, name="D")], "product"))
    sch.set_scope("C", 0, "shared")
    sums = sch.cache_write("C", 0, "warp").name
    copies = [sch.cache_read("C", n, "warp").name for n in "AB"]
    init = sch.decompose_reduction("C", sch.get_loops("C")[0]).name
    names = {
        init: "wmma_fill",
        "C": f"wmma_a_b_{d}",
        sums: "wmma_store",
        **{c: f"wmma_load_{o}_{d}" for c, o in zip(copies, "ab")},
    }
    for block, intrin in names.items():
        sch.tensorize(sch.get_loops(block)[0], intrin)
    return sch


def test_a_tile_by_hand(rng: np.random.Generator) -> None:
    sch = by_hand()
    _, lane = sch.split(sch.fuse(*sch.get_loops("D")), [None, 32])
    sch.bind(lane, "threadIdx.x")
    a, b = (rng.integers(-3, 4, (16, 16)).astype(np.float16) for _ in "ab")
    np.testing.assert_array_equal(
        tcomp.compile(sch, target=EMULATOR)(a, b), a.astype(np.float32) @ b.astype(np.float32) + 1
    )


def test_what_a_warp_cannot_do_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="1 threads along threadIdx.x"):
        tcomp.compile(by_hand(), target=EMULATOR)
    with pytest.raises(TargetError, match="tensorized with wmma_"):
        tcomp.compile(by_hand("bfloat16"), target="cuda -arch=sm_70 -device=emulator")
    with pytest.raises(TargetError, match="which needs tensor cores"):
        tcomp.compile(by_hand(), target="cpu")
