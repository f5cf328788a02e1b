"""Schedules for a GPU by hand: what becomes of bound loops, registers, shared memory and threads that reduce together; what is refused."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import DeviceError, TargetError, TcompError, UnsupportedError
from tcomp.runtime.device.grid import GridKernel
from tcomp.schedule import Schedule
from tcomp.target import CudaTarget, Target
from tcomp.target.cuda import archs

EMULATOR = "cuda -device=emulator"
N = 64


def product(n: int = N) -> Schedule:
    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    k = te.reduce_axis(n, "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    return Schedule(te.create_prim_func([a, b, c], "product"))


def rows(n: int = 300, count: int = 5) -> Schedule:
    a, k = te.placeholder((count, n), name="A"), te.reduce_axis(n, "k")
    return Schedule(te.create_prim_func([a, te.compute((count,), lambda i: te.sum(a[i, k], axis=k), name="S")], "rows"))


def tiled(sch: Schedule) -> None:
    """32 x 32 of the result in a block of 8 x 8 threads, 4 x 4 in each thread's registers."""
    write = sch.cache_write("C", 0, "local")
    i, j = sch.get_loops(write)
    i0, i1, i2 = sch.split(i, [None, 8, 4])
    j0, j1, j2 = sch.split(j, [None, 8, 4])
    sch.reorder(i0, j0, i1, j1, i2, j2)
    sch.compute_at("C", j0)
    _, _, ci, cj, ck = sch.get_loops("C")
    ci1, ci2 = sch.split(ci, [8, 4])
    cj1, cj2 = sch.split(cj, [8, 4])
    k0, k1 = sch.split(ck, [None, 16])
    sch.reorder(k0, ci1, cj1, k1, ci2, cj2)
    for y, x in ((i1, j1), (ci1, cj1)):
        sch.bind(y, "threadIdx.y")
        sch.bind(x, "threadIdx.x")
    sch.decompose_reduction("C", k0)
    for name in "AB":
        copy = sch.cache_read("C", name, "shared")
        sch.compute_at(copy, k0)
        whole = sch.fuse(*sch.get_loops(copy)[3:])
        _, y, x = sch.split(whole, [None, 8, 8])
        sch.bind(y, "threadIdx.y")
        sch.bind(x, "threadIdx.x")
    sch.bind(i0, "blockIdx.y")
    sch.bind(j0, "blockIdx.x")


def test_a_product_in_tiles(rng: np.random.Generator) -> None:
    sch = product()
    tiled(sch)
    exe = tcomp.compile(sch, target=EMULATOR)
    a, b = (rng.standard_normal((N, N)).astype("float32") for _ in "ab")
    for order in ("forward", "backward", "shuffled"):
        exe.library.driver.order = order
        np.testing.assert_allclose(exe(a, b), a.astype(float) @ b, rtol=1e-4, atol=1e-4)
    text = exe.ir("cuda")
    assert text.count("__syncthreads();") == 2, "before the slices are read, and before the next ones are written"
    assert "float C_local[16];" in text and "SHARED float A_shared[512];" in text
    for target in ("reference", "cpu"):  # which run bound loops one iteration after another
        np.testing.assert_allclose(tcomp.compile(sch, target=target)(a, b), a.astype(float) @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [2, 32, 64, 96])
def test_threads_reduce_together(threads: int, rng: np.random.Generator) -> None:
    sch = rows()
    i, k = sch.get_loops("S")
    _, k1 = sch.split(k, [None, threads])
    sch.bind(i, "blockIdx.x")
    sch.bind(k1, "threadIdx.x")
    exe = tcomp.compile(sch, target=EMULATOR)
    x = rng.standard_normal((5, 300)).astype("float32")
    np.testing.assert_allclose(exe(x), x.astype(float).sum(1), rtol=1e-4, atol=1e-4)
    assert f"f32_threads_add_{threads}(" in exe.ir("cuda")


def test_extents_that_a_call_decides() -> None:
    n = te.var("n")
    a = te.placeholder((n, 8), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((n, 8), lambda i, j: a[i, j] * 2.0, name="B")], "double"))
    i, j = sch.get_loops("B")
    i0, i1 = sch.split(i, [None, 4])
    for loop, index in ((i0, "blockIdx.x"), (i1, "threadIdx.y"), (j, "threadIdx.x")):
        sch.bind(loop, index)
    exe = tcomp.compile(sch, target=EMULATOR)
    for count in (0, 1, 5, 8):
        x = np.arange(count * 8, dtype="float32").reshape(count, 8)
        assert np.array_equal(exe(x), 2 * x)


def test_indices_are_as_wide_as_they_need_to_be() -> None:
    for size, kind in ((1 << 10, "int"), (1 << 17, "int64_t")):
        a = te.placeholder((size, size), name="A")
        func = te.create_prim_func([a, te.compute((size, size), lambda i, j, a=a: a[j, i], name="B")], "turn")
        text = tcomp.compile(func, target="cuda -arch=sm_80").ir("cuda")
        assert re.search(rf"const {kind} \w+ = threadIdx\.x;", text)


def late_block(sch: Schedule) -> None:
    _, j, _ = sch.get_loops("C")
    sch.bind(j, "blockIdx.x")


def two_owners(sch: Schedule) -> None:
    write = sch.cache_write("C", 0, "local")
    sch.bind(sch.get_loops("C")[0], "threadIdx.x")
    sch.bind(sch.get_loops(write)[1], "threadIdx.x")


def other_runs(sch: Schedule) -> None:
    """Sixteen threads: of one nest each has four neighbours, of the other every sixteenth row."""
    write = sch.cache_write("C", 0, "local")
    sch.bind(sch.split(sch.get_loops("C")[0], [16, 4])[0], "threadIdx.x")
    sch.bind(sch.split(sch.get_loops(write)[0], [4, 16])[1], "threadIdx.x")


def shared_by_launches(sch: Schedule) -> None:
    write = sch.cache_write("C", 0, "shared")
    for name in ("C", write):
        sch.bind(sch.get_loops(name)[0], "blockIdx.x")


def too_much_shared(sch: Schedule) -> None:
    copy = sch.cache_read("C", "A", "shared")
    sch.bind(sch.get_loops(copy)[1], "threadIdx.x")
    sch.bind(sch.get_loops("C")[0], "threadIdx.x")


def tall_grid(sch: Schedule) -> None:
    i, k = sch.get_loops("S")
    sch.bind(i, "blockIdx.y")


def seven_threads(sch: Schedule) -> None:
    _, k = sch.get_loops("S")
    sch.bind(sch.split(k, [None, 7])[1], "threadIdx.x")


def sums_apart(sch: Schedule) -> None:
    """Threads add up parts of a sum whose other parts come after all rows."""
    i, k = sch.get_loops("S")
    k0, k1 = sch.split(k, [None, 32])
    sch.reorder(k0, i, k1)
    sch.bind(k1, "threadIdx.x")


def nothing_to_buffer(sch: Schedule) -> None:
    tiled(sch)
    sch.pragma(sch.get_loops("C")[-1], "double_buffer", 1)


@pytest.mark.parametrize(
    ("make", "change", "why"),
    [
        (rows, sums_apart, "do not stand together"),
        (product, nothing_to_buffer, "do not begin with copies to shared memory"),
        (product, late_block, "stands inside a loop that is not bound"),
        (product, two_owners, "do not agree which thread has which element"),
        (product, other_runs, "do not agree which thread has which element"),
        (product, shared_by_launches, "several launches"),
        (lambda: product(128), too_much_shared, "a block has 49152"),
        (rows, seven_threads, "neither part of a warp"),
        (lambda: rows(3, 1 << 17), tall_grid, "at most 65535 blocks along y"),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_what_a_gpu_cannot_do_is_refused(
    make: Callable[[], Schedule], change: Callable[[Schedule], None], why: str
) -> None:
    sch = make()
    change(sch)
    with pytest.raises(UnsupportedError, match=why):
        tcomp.compile(sch, target=f"{EMULATOR} -block-shared=48K")


@pytest.mark.parametrize("n", [16, 64, 70])
def test_slices_are_loaded_while_others_are_in_use(n: int, rng: np.random.Generator) -> None:
    """One barrier an iteration is left, and one before the first; of a single slice there is nothing to load ahead."""
    sch = product(n)
    tiled(sch)
    sch.pragma(sch.get_loops("C")[2], "double_buffer", 1)
    exe = tcomp.compile(sch, target=EMULATOR)
    text = exe.ir("cuda")
    assert text.count("__syncthreads") == (1 if n == 16 else 2) and ("A_shared_next" in text) == (n > 16)
    a, b = (rng.standard_normal((n, n)).astype("float32") for _ in "ab")
    for order in ("forward", "backward", "shuffled"):
        exe.library.driver.order = order
        np.testing.assert_allclose(exe(a, b), a.astype("float64") @ b, atol=1e-4)


@pytest.mark.parametrize(("columns", "is_alike"), [(64, True), (60, True), (62, False), (61, False)])
def test_conditions_that_are_alike_in_all_lanes_are_no_masks(
    columns: int, is_alike: bool, rng: np.random.Generator
) -> None:
    a = te.placeholder((5, columns), name="A")
    sch = Schedule(te.create_prim_func([a, te.compute((5, columns), lambda i, j: a[i, j] * 2.0, name="B")], "twice"))
    i, j = sch.get_loops("B")
    _, thread, lane = sch.split(j, [None, 32, 4])
    sch.vectorize(lane)
    sch.bind(i, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    exe = tcomp.compile(sch, target=EMULATOR)
    assert ("_if(" not in exe.ir("cuda")) == is_alike
    x = rng.standard_normal((5, columns)).astype("float32")
    np.testing.assert_array_equal(exe(x), 2 * x)


def test_targets() -> None:
    for arch in archs():
        t = Target.parse(f"cuda -arch={arch} -device=emulator")
        assert isinstance(t, CudaTarget) and t.is_emulated and Target.parse(t.text) == t and arch in str(t)
    assert Target.parse("cuda -arch=sm_90 -sms=114 -l2=40M").l2 == 40 << 20  # type: ignore[attr-defined]
    assert Target.parse("cuda -arch=sm_87").threads == Target.parse("cuda -arch=sm_86").threads  # type: ignore[attr-defined]


def test_default_grids_are_no_longer_than_grids_can_be() -> None:
    g = tcomp.GraphBuilder()
    x = g.matmul(g.input("x", (70000, 9, 16)), g.input("w", (70000, 16, 9)))
    exe = tcomp.compile(g.build(x), target="cuda -arch=sm_80")
    assert "tiled_product" in exe.explain() and "blockIdx.x" in exe.ir("cuda") and "blockIdx.y" not in exe.ir("cuda")


def test_what_there_is_for_cpus_alone_is_refused() -> None:
    g = tcomp.GraphBuilder()
    module = g.build(g.relu(g.input("x", (3, 4))))
    with pytest.raises(TargetError, match="expected CPUs where there are several"):
        tcomp.compile(module, target=["cpu", EMULATOR])
    with pytest.raises(UnsupportedError, match="CPUs are tuned for"):
        tcomp.tune(module, target=EMULATOR, budget_s=1)
    with pytest.raises(UnsupportedError, match="cannot export"):
        tcomp.compile(module, target=EMULATOR).export("model.so")


def test_without_a_gpu_a_call_says_what_is_missing() -> None:
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.relu(g.input("x", (3, 4)))), target="cuda -device=63")
    assert re.search(r"KERNEL\(256\) k_\w+_relu\(", exe.ir("cuda"))
    with pytest.raises((DeviceError, TcompError), match="GPU"):
        exe(np.ones((3, 4), "float32"))


@pytest.mark.parametrize("size", [(4096, 4096, 4096), (3, 5000, 64), (20, 17, 100000)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_default_schedules_fit_the_target(size: tuple[int, int, int], dtype: str) -> None:
    m, n, k = size
    for arch in ("sm_70", "sm_90"):
        g = tcomp.GraphBuilder()
        exe = tcomp.compile(
            g.build(g.matmul(g.input("x", (m, k), dtype), g.input("w", (k, n), dtype))), target=f"cuda -arch={arch}"
        )
        assert "does not fit" not in exe.explain()


def test_a_default_schedule_that_does_not_fit_gives_way_to_another() -> None:
    """A norm whose rows are longer than shared memory."""
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.softmax(g.input("x", (2, 50_000)))), target=EMULATOR)
    assert "row_reduction does not fit" in exe.explain() and "a block has 166912" in exe.explain()
    x = np.random.default_rng(0).standard_normal((2, 50_000)).astype("float32")
    assert np.abs(exe(x).sum(1) - 1).max() < 1e-4


def test_what_threads_exchange_counts_as_shared_memory() -> None:
    """A row that fills shared memory to the last byte leaves no room for the warps' sums."""
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.softmax(g.input("x", (2, 11_264)))), target="cuda -arch=sm_80 -block-shared=48K")
    other = tcomp.compile(g.build(g.softmax(g.input("y", (2, 12_288)))), target="cuda -arch=sm_80 -block-shared=48K")
    assert "does not fit" not in exe.explain() and "exchanges 128" in other.explain()


@pytest.mark.parametrize(("columns", "is_pooled"), [(11_264, False), (13_312, True), (40_960, True)])
def test_more_shared_memory_than_code_may_declare(columns: int, is_pooled: bool) -> None:
    """It is asked for at the launch."""
    g = tcomp.GraphBuilder()
    module = g.build(g.softmax(g.input("x", (3, columns))))
    exe = tcomp.compile(module, target=EMULATOR)
    (launch,) = (x for k in exe.library.objects for x in GridKernel.from_json(k).launches)
    assert (launch.pool > 4 * columns) == (launch.pool > 0) == is_pooled
    assert ("POOLED(float" in exe.ir("cuda")) == is_pooled and launch.pool % 128 == 0
    x = np.random.default_rng(0).standard_normal((3, columns)).astype("float32")
    np.testing.assert_allclose(exe(x), tcomp.compile(module)(x), rtol=1e-5)
