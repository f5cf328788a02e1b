"""Memory that kernels take while they run."""

import ctypes
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import OutOfMemoryError
from tcomp.ir.node import with_fields
from tcomp.ir.primfunc import PrimFunc
from tcomp.runtime.device.cpu import ensure_pool
from tcomp.runtime.threads import installed_pool
from tcomp.schedule import Schedule
from tcomp.schedule.primitives.base import exchange_buffer


@pytest.fixture(scope="module")
def scratch() -> tuple:
    ensure_pool()
    at = installed_pool().addresses
    take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(at["tcomp_take"])
    give = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(at["tcomp_give"])
    return take, give


def test_what_is_given_back_is_taken_again(scratch: tuple) -> None:
    take, give = scratch
    first = take(100_000)
    second = take(100_000)
    assert first % 64 == second % 64 == 0 and abs(first - second) >= 100_000
    give(first)
    assert take(50_000) == first
    larger = take(300_000)
    assert larger not in (first, second)
    for p in (first, second, larger):
        give(p)


def test_more_than_the_shelf_holds_and_more_than_it_keeps(scratch: tuple) -> None:
    take, give = scratch
    held = [take(1000) for _ in range(100)] + [take(1 << 25)]
    assert len(set(held)) == len(held)
    for p in held:
        give(p)


def test_threads_never_share_a_buffer(scratch: tuple) -> None:
    take, give = scratch

    def work(number: int) -> bool:
        rng = np.random.default_rng(number)
        fine = True
        for _ in range(300):
            sizes = rng.integers(1, 20_000, 3)
            mine = [(take(int(n) * 8), int(n)) for n in sizes]
            views = [np.ctypeslib.as_array((ctypes.c_int64 * n).from_address(p)) for p, n in mine]
            for i, v in enumerate(views):
                v[:] = 10 * number + i
            fine = fine and all((v == 10 * number + i).all() for i, v in enumerate(views))
            for p, _ in mine:
                give(p)
        return fine

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("align", [64, 4096])
def test_large_buffers_inside_parallel_loops(align: int) -> None:
    n = 40_000
    a = te.placeholder((6, n), name="A")
    b = te.compute((6, n), lambda i, j: a[i, j] * 2.0, name="B")
    func = te.create_prim_func([a, te.compute((6, n), lambda i, j: b[i, n - 1 - j] + 1.0, name="C")])
    sch = Schedule(func)
    i, _ = sch.get_loops("C")
    sch.compute_at("B", i)
    sch.parallel(i)
    (middle,) = sch.func.allocs
    sch = Schedule(exchange_buffer(sch.func, middle, with_fields(middle, align=align)))
    x = np.random.default_rng(0).standard_normal((6, n)).astype("float32")
    exe = tcomp.compile(sch)
    assert "tcomp_take" in exe.ir("llvm")
    for _ in range(5):
        assert np.array_equal(exe(x), x[:, ::-1] * np.float32(2) + 1)


def with_large_scratch() -> PrimFunc:
    """Rows that are turned in a buffer of 256 MiB."""
    n = 1 << 26
    a = te.placeholder((2, n), name="A")
    b = te.compute((2, n), lambda i, j: a[i, j] * 2.0, name="B")
    sch = Schedule(te.create_prim_func([a, te.compute((2, n), lambda i, j: b[i, n - 1 - j] + 1.0, name="C")]))
    i, _ = sch.get_loops("C")
    sch.compute_at("B", i)
    return sch.func


def test_where_there_is_no_memory_the_run_says_so() -> None:
    """In a process with little of it; the next run, with enough, is right."""
    child = os.fork()
    if child == 0:
        x = np.ones((2, 1 << 26), np.float32)
        exe, out = tcomp.compile(Schedule(with_large_scratch())), np.zeros((2, 1 << 26), np.float32)
        exe.num_threads = 1
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), before[1]))
        try:
            exe(x, out=out)
            code = 1
        except OutOfMemoryError:
            resource.setrlimit(resource.RLIMIT_AS, before)
            code = 0 if (exe(x) == 3).all() else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
