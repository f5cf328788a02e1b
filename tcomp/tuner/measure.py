"""Timing candidates beside the default: turn by turn, on the same arrays, with an interval of the ratio."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from ..errors import TcompError
from ..ir.expr import Buffer
from ..ir.query import as_int
from ..memory import aligned_empty
from ..runtime.device.cpu import load_objects
from .build import Built
from .task import Task

TURN_S = 1e-3
"""Seconds of a turn: short calls are repeated."""
PAGE = 4096
LOST = 1.1
"""Times the thread's own time that a turn may take, if the thread kept its core."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio of times: the median of pairs, and an interval that holds it with 95 %."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval_of(ratios: Sequence[float]) -> Interval:
    """The median of a sample, and between which of its order statistics that of the population lies with at least 95 %.

    M. Hollander, D. Wolfe and E. Chicken, Nonparametric Statistical Methods, 3rd ed., Wiley 2014, section 3.6 (the sign test). Fewer than six
    numbers bound nothing.
    """
    ordered, n = sorted(ratios), len(ratios)
    tail, k = 0.0, 0
    while k < n // 2 and tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        return Interval(0.0, median(ordered) if n else 1.0, math.inf)
    return Interval(ordered[k - 1], median(ordered), ordered[n - k])


@dataclass
class Loaded:
    """A candidate's code, ready to be called on some arrays.

    Attributes:
        run: calls the kernel once. repeat: calls of a turn. first: seconds of the first call.
    """

    built: Built
    run: Callable[[], None]
    repeat: int = 1
    first: float = 0.0

    was_interrupted: bool = False
    """Whether the thread lost its core during the last turn."""

    def turn(self) -> float:
        """Seconds of a call."""
        run = self.run
        used = time.thread_time()
        start = time.perf_counter()
        for _ in range(self.repeat):
            run()
        spent = time.perf_counter() - start
        self.was_interrupted = spent > LOST * (time.thread_time() - used) + 2e-5
        return spent / self.repeat


class Arrays:
    """Arguments of a kernel, at places of their own.

    Args:
        place: shifts where in a page each array begins: some kernels are fast at some addresses alone.
    """

    def __init__(self, task: Task, seed: int, place: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.arrays = [_array(b, rng, place * (i + 1) * 576 % PAGE) for i, b in enumerate(task.func.buffers)]
        self.inputs = self.arrays[: len(task.func.inputs)]
        self.outputs = self.arrays[len(task.func.inputs) :]

    def load(self, built: Built, num_threads: int | None, limit_s: float = math.inf) -> Loaded:
        """A candidate that runs on these arrays.

        Args:
            limit_s: of a first call that takes longer, no other follows.

        Raises:
            TcompError: its code cannot be loaded.
        """
        library = load_objects([built.code], [built.symbol])
        function = library.kernel(built.symbol, ["args"] * len(self.arrays))
        addresses = [a.ctypes.data for a in self.arrays]
        library.device.prepare(num_threads)
        held = (library, self.arrays)  # as long as anybody may call it

        def run(held: object = held) -> None:
            function(*addresses)

        loaded = Loaded(built, run)
        loaded.first = loaded.turn()
        if loaded.first > limit_s:
            return loaded
        once = min(loaded.turn(), loaded.turn())
        loaded.repeat = max(1, min(10_000, int(TURN_S / max(once, 1e-8))))
        return loaded


def _array(b: Buffer, rng: np.random.Generator, offset: int) -> np.ndarray:
    """Normal numbers; small integers, which are places in any table."""
    shape = tuple(as_int(e, -1) for e in b.shape)
    if min(shape, default=0) < 0:
        raise TcompError(f"cannot measure a kernel whose extents are open: {b.name}")
    size, kind = math.prod(shape), b.dtype.numpy
    memory = aligned_empty(size * kind.itemsize + PAGE)[offset:]
    found = memory[: size * kind.itemsize].view(kind).reshape(shape)
    whole = b.dtype.is_int or b.dtype.is_bool
    found[...] = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
    return found


def race(default: Loaded, other: Loaded, rounds: int, give_up: float = 0.0) -> list[float]:
    """Ratios default / other of turns that follow each other, whoever goes first. Pairs during which the thread lost its core are dropped, as
    long as there are not too many.

    Args:
        give_up: end after three rounds where the other is not even this fast.
    """
    found: list[float] = []
    for number in range(3 * rounds):
        pair = (default, other) if number % 2 else (other, default)
        times = {id(x): x.turn() for x in pair}
        if (default.was_interrupted or other.was_interrupted) and number < 2 * rounds:
            continue
        found.append(times[id(default)] / times[id(other)])
        if len(found) == rounds or (give_up and len(found) == 3 and max(found) < give_up):
            break
    return found
