"""Processes that help to build kernels: the same code, and no harm where one fails."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.backends import workers
from tcomp.backends.scheduling import cpu_scheduler
from tcomp.backends.workers import Helper, helpers
from tcomp.codegen.build import Kernel, Scheduled, make_kernel
from tcomp.codegen.llvm.generator import LlvmGenerator
from tcomp.errors import TcompError
from tcomp.schedule import Schedule
from tcomp.target import Target

TARGET = Target.parse("cpu")


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper()
    yield made
    made.close()


def kernel(n: int, schedule: bool = False) -> Kernel:
    a = te.placeholder((n, 9), name="A")
    func = te.create_prim_func([a, te.compute((n, 9), lambda i, j: te.exp(a[i, j]) + n, name="B")], f"k{n}")
    if not schedule:
        return make_kernel(func, LlvmGenerator(TARGET), cpu_scheduler(TARGET))
    sch = Schedule(func)
    sch.reorder(*sch.get_loops("B")[::-1])
    return make_kernel(func, LlvmGenerator(TARGET), lambda _: Scheduled(sch.func, "given"), "given")


def test_a_helper_makes_the_same_code(helper: Helper) -> None:
    for k in (kernel(3), kernel(40), kernel(5, True)):
        assert helper.build(k) == k.emit()


def test_a_helper_that_cannot_says_so_and_goes_on(helper: Helper) -> None:
    bad = kernel(7)
    bad.generator = None  # type: ignore[assignment]
    assert helper.build(bad) is None
    assert helper.build(kernel(8)) == kernel(8).emit()
    os.kill(helper._process.pid, signal.SIGKILL)
    helper._process.wait()
    assert helper.build(kernel(9)) is None


def model(count: int) -> tcomp.IRModule:
    g = tcomp.GraphBuilder()
    x = g.input("x", (4, 16))
    y = x
    for n in range(count):  # products of distinct widths, so that no two kernels are the same
        y = g.matmul(y, g.constant(np.full((y.type.shape[1], 17 + n), 0.05, np.float32)))
    return g.build(y)


@pytest.mark.parametrize("fate", ["help", "die", "never start"])
def test_models_compile_with_helpers_and_without(fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCOMP_WORKERS", "2")
    monkeypatch.setenv("TCOMP_CACHE", "0")
    monkeypatch.setattr(workers, "KERNELS_EACH", 4)
    tcomp.config.config.cache_clear()
    built: list[bytes | None] = []
    build, start = Helper.build, Helper.__init__

    def dying(self: Helper, k: Kernel) -> bytes | None:
        if fate == "die":
            self._process.kill()
        built.append(build(self, k))
        return built[-1]

    def never(self: Helper) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(Helper, "build", dying)
    monkeypatch.setattr(Helper, "__init__", never if fate == "never start" else start)
    told: list[str] = []
    try:
        exe = tcomp.compile(model(12), progress=lambda done, total, name: told.append(f"{done} of {total}"))
    finally:
        monkeypatch.undo()
        tcomp.config.config.cache_clear()
    assert told == [f"{n} of 12" for n in range(1, 13)]
    x = np.ones((4, 16), np.float32)
    np.testing.assert_allclose(exe(x), tcomp.compile(model(12))(x), rtol=1e-6)
    assert any(built) == (fate == "help") and (fate != "die" or built.count(None) == len(built) > 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TcompError("this one cannot be scheduled"), "cannot be scheduled"),
        (IndexError("no loop"), "IndexError: no loop"),
    ],
)
def test_the_error_of_a_kernel_is_the_parents(error: Exception, told: str) -> None:
    class Useless:
        def build(self, k: Kernel) -> bytes | None:
            time.sleep(0.01)
            return None

    from contextlib import contextmanager

    from tcomp.codegen.build import build_all
    from tcomp.codegen.cache import ObjectCache

    @contextmanager
    def hire(count: int) -> Iterator[list[Useless]]:
        yield [Useless()]

    def broken(func: object) -> object:
        raise error

    bad = kernel(11)
    bad.scheduler, bad.key = broken, "f" * 40  # type: ignore[assignment]
    cache = ObjectCache()
    cache.enabled = False
    with pytest.raises(TcompError, match=told):
        build_all([kernel(12), bad, kernel(13)], cache, hire=hire)


def test_few_kernels_need_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCOMP_WORKERS", "8")
    tcomp.config.config.cache_clear()
    try:
        with helpers(3) as few:
            assert not few
    finally:
        monkeypatch.undo()
        tcomp.config.config.cache_clear()
