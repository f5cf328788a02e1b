"""Default schedules: the right rule, the right answer, code that a user could have written."""

import numpy as np
import pytest

from tcomp import te
from tcomp.codegen.lowering import lower
from tcomp.ir.equal import structural_equal
from tcomp.ir.interp import run
from tcomp.ir.primfunc import PrimFunc
from tcomp.ir.stmt import Allocate, walk_statements
from tcomp.ops import GraphBuilder
from tcomp.passes import FUSE, GRAPH, LOWER
from tcomp.schedule import Schedule
from tcomp.schedule.rules.cpu.tiles import choose_tile
from tcomp.schedule.rules.default import default_schedule
from tcomp.target import Target
from tcomp.tools.expressions import random_func
from tcomp.tools.fuzz import agree, make_inputs

TARGETS = [
    Target.parse(t)
    for t in (
        "llvm -mcpu=skylake-avx512 -num-cores=8",
        "llvm -mcpu=haswell -num-cores=2",
        "llvm -mcpu=x86-64 -num-cores=1",
        "llvm -mtriple=aarch64-unknown-linux-gnu -mcpu=neoverse-n1 -l2=512K -num-cores=4",
    )
]


def kernels(build: object) -> list[PrimFunc]:
    g = GraphBuilder()
    module = LOWER.run(FUSE.run(GRAPH.run(g.build(build(g)))))
    return [f for f in module.functions.values() if isinstance(f, PrimFunc)]


GRAPHS = {
    "matmul": (lambda g: g.relu(g.add(g.matmul(g.input("a", (37, 29)), g.input("b", (29, 70))), g.input("c", (70,)))), "tiled reduction"),
    "large matmul": (lambda g: g.matmul(g.input("a", (50, 40)), g.input("b", (40, 300))), "tiled reduction"),
    "conv": (lambda g: g.conv2d(g.input("x", (2, 9, 9, 5)), g.input("w", (3, 3, 5, 40)), padding=1, layout="NHWC", kernel_layout="HWIO"), "tiled reduction"),
    "groups": (lambda g: g.relu(g.conv2d(g.input("x", (2, 9, 9, 6)), g.input("w", (3, 3, 3, 46)), groups=2, padding=1, layout="NHWC", kernel_layout="HWIO")), "tiled reduction"),
    "packed groups": (lambda g: g.relu(g.packed_conv2d(g.input("x", (1, 7, 9, 15)), g.input("w", (2, 3, 3, 3, 5, 16)), columns=27, groups=3, stride=2)), "tiled reduction"),
    "pool": (lambda g: g.max_pool2d(g.input("x", (2, 9, 9, 21)), kernel=3, stride=2, padding=1, layout="NHWC"), "windows"),
    "depthwise": (lambda g: g.conv2d(g.input("x", (2, 9, 11, 37)), g.input("w", (3, 3, 1, 37)), groups=37, padding=1, layout="NHWC", kernel_layout="HWIO"), "windows"),
    "global pool": (lambda g: g.global_avg_pool2d(g.input("x", (2, 7, 7, 40)), layout="NHWC"), "tiled reduction"),
    "packed matmul": (lambda g: g.relu(g.packed_matmul(g.input("a", (37, 29)), g.input("b", (5, 29, 16)), columns=70)), "tiled reduction"),
    "columns": (lambda g: g.sum(g.input("x", (13, 33)), axes=(0,)), "tiled reduction"),
    "rows": (lambda g: g.sum(g.input("x", (13, 33)), axes=(1,)), "rows"),
    "channels": (lambda g: g.sum(g.input("x", (3, 5, 6, 7)), axes=(0, 2, 3)), "rows"),
    "gradient of a kernel": (lambda g: g.op("conv_backward_weight", g.input("x", (2, 7, 7, 9)), g.input("y", (2, 5, 5, 36)), window=3), "tiled reduction"),
    "softmax": (lambda g: g.softmax(g.input("x", (13, 33))), "rows"),
    "attention": (lambda g: g.relu(g.attention(*(g.input(n, (2, 21, 20)) for n in "qkv"), panel=32)), "attention"),
    "attention of a query": (lambda g: g.attention(g.input("q", (3, 1, 40)), g.input("k", (3, 45, 40)), g.input("v", (3, 45, 33))), "attention"),
    "attention of two queries": (lambda g: g.attention(g.input("q", (2, 40)), g.input("k", (45, 40)), g.input("v", (45, 33))), "attention"),
    "attention of one stack": (lambda g: g.attention(g.input("q", (30, 20)), g.input("k", (45, 20)), g.input("v", (45, 33)), panel=16), "attention"),
    "elementwise": (lambda g: g.tanh(g.add(g.input("x", (13, 33)), g.input("y", (33,)))), "elementwise"),
    "transpose": (lambda g: g.transpose(g.input("x", (13, 33)), axes=(1, 0)), "elementwise"),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.cpu)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.drawn(1 / 4)
def test_rules_keep_the_meaning_and_replay(name: str, target: Target) -> None:
    build, rule = GRAPHS[name]
    (func,) = kernels(build)
    sch, used, _ = default_schedule(func, target)
    if target.vector_bytes > 16:
        assert used == rule
    check(sch, func)


STREAMS = {
    "one row": lambda g: g.matmul(g.input("a", (1, 29)), g.input("b", (29, 200))),
    "three rows, bias": lambda g: g.relu(g.add(g.matmul(g.input("a", (3, 37)), g.input("b", (37, 203))), g.input("c", (203,)))),
    "sum over rows": lambda g: g.mean(g.input("x", (50, 201)), axes=(0,)),
}  # fmt: skip


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("name", STREAMS)
def test_large_matrices_of_few_results_are_streamed(name: str, cores: int) -> None:
    (func,) = kernels(STREAMS[name])
    sch, used, _ = default_schedule(func, Target.parse(f"llvm -mcpu=haswell -l1=2K -l2=1K -num-cores={cores}"))
    assert used == "streams"
    check(sch, func)
    assert default_schedule(func, Target.parse("llvm -mcpu=haswell -l1=64K -num-cores=1"))[1] == "tiled reduction"


@pytest.mark.parametrize("rows", [1, 3])
def test_outer_products_are_no_streams(rows: int) -> None:
    (func,) = kernels(lambda g: g.matmul(g.input("a", (rows, 1)), g.input("b", (1, 3000))))
    sch, used, _ = default_schedule(func, Target.parse("llvm -mcpu=haswell -l1=2K -l2=1K -num-cores=2"))
    assert used != "streams"
    check(sch, func)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (4, 4), (1, 3)])
def test_channels_of_images_are_summed_in_vectors(size: tuple[int, int]) -> None:
    """Where the pixels of a channel fill one: rows of an image are next to each other, images are not."""
    (func,) = kernels(lambda g: g.sum(g.input("x", (3, 5, *size)), axes=(0, 2, 3)))
    sch, used, _ = default_schedule(func, Target.parse("llvm -mcpu=skylake-avx512 -num-cores=1"))
    assert used == "rows" and ("vectorize(" in sch.trace.as_python()) == (size[0] * size[1] >= 16)
    check(sch, func)


@pytest.mark.slow
def test_padded_convolutions_pack_large_kernels_that_vary() -> None:
    def build(g: GraphBuilder) -> object:
        x, w = g.input("x", (1, 5, 5, 15)), g.input("w", (3, 3, 15, 258))
        return g.conv2d(x, w, padding=1, layout="NHWC", kernel_layout="HWIO")

    (func,) = kernels(build)
    packs, want = {}, run(func, make_inputs(func, 3))
    for size in ("16K", "4M"):
        sch, used, _ = default_schedule(func, Target.parse(f"llvm -mcpu=haswell -l2={size} -num-cores=2"))
        assert used == "tiled reduction"
        packs[size] = "read_at(" in sch.trace.as_python()
        check(sch, func, want)
    assert packs == {"16K": True, "4M": False}


def check(sch: Schedule, func: PrimFunc, want: list | None = None) -> None:
    """The schedule computes what the kernel does (`want`, where it is known), and its trace makes it again."""
    inputs = make_inputs(func, 3)
    assert all(map(agree, run(sch.func, inputs), run(func, inputs) if want is None else want))
    scope = {"sch": Schedule(func)}
    exec(sch.trace.as_python(), scope)
    assert structural_equal(scope["sch"].func, sch.func)


@pytest.mark.parametrize("name", ["matmul", "large matmul", "conv", "pool"])
def test_accumulators_are_as_small_as_the_register_file(name: str) -> None:
    """The tile is allocated in the loop over tiles, also where another buffer is allocated around it."""
    target = TARGETS[0]
    (func,) = kernels(GRAPHS[name][0])
    lowered = lower(default_schedule(func, target)[0].func)
    tiles = [s.buffer for s in walk_statements(lowered.body) if isinstance(s, Allocate) and s.buffer.scope == "local"]
    assert tiles
    for b in tiles:
        assert b.shape[0].value * b.dtype.itemsize <= target.num_registers * target.vector_bytes


@pytest.mark.parametrize("seed", range(0, 120, 3))
@pytest.mark.drawn(1 / 2)
def test_any_kernel_gets_a_schedule_that_keeps_its_meaning(seed: int) -> None:
    func = random_func(seed)
    inputs = make_inputs(func, seed)
    want = run(func, inputs)
    for target in TARGETS[:2]:
        sch, used, _ = default_schedule(func, target)
        assert "refused" not in used, used
        assert all(map(agree, run(sch.func, inputs), want))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.cpu)
def test_register_tiles_fit_the_register_file(target: Target) -> None:
    rng = np.random.default_rng(0)
    lanes, registers = target.lanes(4), target.num_registers
    for _ in range(200):
        extents = [int(x) for x in rng.integers(1, 200, rng.integers(1, 5))]
        tile = choose_tile(extents, lanes, target)
        rows = int(np.prod(tile.rows))
        assert rows * tile.vectors + tile.vectors + 1 < registers and tile.lanes <= extents[-1]
        assert all(r <= e for r, e in zip(tile.rows, extents))
    large = choose_tile([509, 503], lanes, target)
    assert large.rows[0] * large.vectors >= (20 if registers == 32 else 8)
    even = choose_tile([512, 512], lanes, target)  # one without edges may be smaller, but multiply-adds must bound it
    assert even.rows[0] * even.vectors / target.fma_ports >= max(
        target.costs.fma_latency, (even.rows[0] + even.vectors) / target.costs.loads
    )


def test_stages_are_known_by_their_role_not_their_name() -> None:
    k = te.reduce_axis(32, "k")
    a, b = te.placeholder((40, 32), name="A"), te.placeholder((32, 48), name="B")
    for name in ("attention_product", "winograd_product"):
        c = te.compute((40, 48), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name=name)
        found = default_schedule(te.create_prim_func([a, b, c], "own"), Target.parse("llvm -mcpu=haswell"))
        assert found.origin == "tiled reduction"
