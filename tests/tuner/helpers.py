"""Kernels and executors that the tests of the tuner share."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import tcomp
from tcomp.backends import backend_of
from tcomp.driver import lower
from tcomp.ir.primfunc import PrimFunc
from tcomp.target import Target
from tcomp.tuner.build import Built
from tcomp.tuner.database import Trial
from tcomp.tuner.measure import Confirmed, Interval


def softmax(rows: int = 64, columns: int = 96) -> tcomp.IRModule:
    g = tcomp.GraphBuilder()
    return g.build(g.softmax(g.input("x", (rows, columns))))


def product(m: int = 24, k: int = 32, n: int = 40) -> tcomp.IRModule:
    g = tcomp.GraphBuilder()
    return g.build(g.relu(g.matmul(g.input("x", (m, k)), g.input("w", (k, n)))))


def kernels(module: tcomp.IRModule, target: str = "cpu") -> dict[str, PrimFunc]:
    return dict(lower(lambda: module, backend_of(Target.parse(target)), True).module.kernels)


class Here(Executor):
    """Runs calls at once, in this process.

    Args:
        change: what becomes of each result that is built.
    """

    def __init__(self, change: Callable[[Built], Built] = lambda b: b) -> None:
        self.change, self.calls = change, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        try:
            future.set_result(self.change(fn(*args, **kwargs)))
        except Exception as error:
            future.set_exception(error)
        return future


def ends() -> None:
    """What a crash does."""
    os._exit(3)


def hangs() -> None:
    time.sleep(60)


def eats() -> int:
    """More memory than it may have."""
    return len(bytearray(1 << 33))


def adds(a: int, b: int) -> int:
    print("this is no answer")
    return a + b


def fails() -> None:
    raise ValueError("no")


class Speeds:
    """A `Measurer` that is told how fast candidates are.

    Args:
        speed: the ratio of a candidate.
    """

    def __init__(self, speed: Callable[[Built], float]) -> None:
        self.speed = speed

    def ratio(self, built: Built, best: float) -> float:
        return self.speed(built)

    def confirm(self, built: Built) -> Confirmed:
        ratio = self.speed(built)
        return Confirmed(Interval(ratio, ratio, ratio), ratio > 1, 1e-3)

    def is_right(self, built: Built) -> bool:
        return True

    def trial(self, built: Built) -> Trial:
        return Trial(built.candidate, built.program, self.speed(built))
