"""Timing candidates beside the default: turn by turn, on the same arrays, with an interval of the ratio."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from ..errors import TcompError
from ..ir.expr import Buffer
from ..ir.query import as_int
from ..memory import aligned_empty
from ..ops.reference import evaluate
from ..runtime.device.cpu import load_objects
from .build import Built
from .task import Task

TURN_S = 1e-3
"""Seconds of a turn: short calls are repeated."""
ROUNDS, GIVE_UP, FLATTERY = 5, 0.97, 0.04
"""Pairs of turns of a candidate; given up after three where none shows so much of the default's speed, or comes so near to the best seen,
which few short turns flatter."""
FAR = 0.8
"""Share of that from which one pair is enough to tell."""
PROMISING, SECOND_ROUNDS = 1.02, 11
"""Ratio from which on a candidate that beats all others is raced once more, at another place, by so many pairs, which alone count: of many
candidates, those that few turns happened to flatter look best."""
CROWD_TURNS = 4
"""Turns in one of copies that run at once, which do not begin and end together."""
LONG_S = TURN_S
"""Seconds of a call that averages so much by itself that three pairs will do."""
PLACES, PLACE_ROUNDS = 5, 9
"""A candidate is confirmed at so many places of the arrays, by so many pairs each."""
HOPELESS, FIRST_S = 4.0, 5e-3
"""Times as long as the default that a first call may take; it may always take so many seconds, as its code is not in the caches yet."""
_EXACT = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-13}
"""Relative errors (2-norm) that are always allowed; beyond, four times the default's."""
PAGE, UNALIGNED = 4096, 16
"""Bytes of a page; and beyond a cache line's begin where a user's arrays may well begin, as large ones of NumPy do: vectors that lie across two
lines cost some kernels a third of their speed, others nothing. So it is at every other place."""
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
        spent, self.was_interrupted = timed(self.run, self.repeat)
        return spent / self.repeat


def timed(run: Callable[[], None], repeat: int) -> tuple[float, bool]:
    """Seconds of so many calls, and whether the thread lost its core meanwhile."""
    used = time.thread_time()
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    spent = time.perf_counter() - start
    return spent, spent > LOST * (time.thread_time() - used) + 2e-5


@dataclass
class Crowd:
    """Copies of a candidate on arrays of their own, called at once by as many threads (has what `race` needs of a `Loaded`)."""

    copies: Sequence[Loaded]
    pool: Executor
    was_interrupted: bool = False

    @property
    def first(self) -> float:
        return self.copies[0].first

    def turn(self) -> float:
        """Seconds of a call while the others run, too: the mean."""
        repeat = CROWD_TURNS * self.copies[0].repeat
        jobs = [self.pool.submit(timed, c.run, repeat) for c in self.copies]
        found = [j.result() for j in jobs]
        self.was_interrupted = any(lost for _, lost in found)
        return sum(spent for spent, _ in found) / len(found) / repeat


class Arrays:
    """Arguments of a kernel, at places of their own.

    Args:
        place: shifts where in a page each array begins: some kernels are fast at some addresses alone.
    """

    def __init__(self, task: Task, seed: int, place: int = 0) -> None:
        rng = np.random.default_rng(seed)
        func = task.func
        aside = UNALIGNED * (place % 2)
        found = {b: _array(b, rng, place * (i + 1) * 576 % PAGE + aside) for i, b in enumerate(func.buffers)}
        for one, other in func.attrs.get("aliases", ()):  # what is updated in place
            found[func.params[other]] = found[func.params[one]]
        self.arrays = [found[b] for b in func.buffers]
        self.inputs = self.arrays[: len(task.func.inputs)]
        self.outputs = self.arrays[len(task.func.inputs) :]

    def run_once(self, built: Built, num_threads: int | None) -> None:
        """Call a candidate. Raises TcompError where its code cannot be loaded."""
        self._function(built, num_threads)()

    def load(self, built: Built, num_threads: int | None, limit_s: float = math.inf) -> Loaded:
        """A candidate that runs on these arrays.

        Args:
            limit_s: of a first call that takes longer, no other follows.

        Raises:
            TcompError: its code cannot be loaded.
        """
        loaded = Loaded(built, self._function(built, num_threads))
        loaded.first = loaded.turn()
        if loaded.first > limit_s:
            return loaded
        if loaded.first < 2 * TURN_S:  # the first call finds nothing in the caches
            loaded.repeat = max(1, min(10_000, int(TURN_S / max(loaded.turn(), 1e-8))))
        return loaded

    def _function(self, built: Built, num_threads: int | None) -> Callable[[], None]:
        library = load_objects([built.code], [built.symbol])
        function = library.kernel(built.symbol, ["args"] * len(self.arrays))
        addresses = [a.ctypes.data for a in self.arrays]
        library.device.prepare(num_threads)
        held = (library, self.arrays)  # as long as anybody may call it

        def run(held: object = held) -> None:
            function(*addresses)

        return run


def _array(b: Buffer, rng: np.random.Generator, offset: int) -> np.ndarray:
    """Normal numbers; small integers, which are places in any table."""
    shape = tuple(as_int(e, -1) for e in b.shape)
    if min(shape, default=0) < 0:
        raise TcompError(f"cannot measure a kernel whose extents are open: {b.name}")
    size, kind = math.prod(shape), b.dtype.numpy
    memory = aligned_empty(size * kind.itemsize + PAGE + UNALIGNED)[offset:]
    found = memory[: size * kind.itemsize].view(kind).reshape(shape)
    whole = b.dtype.is_int or b.dtype.is_bool
    found[...] = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
    return found


def race(default: Loaded | Crowd, other: Loaded | Crowd, rounds: int, give_up: float = 0.0) -> list[float]:
    """Ratios default / other of turns that follow each other, whoever goes first. Pairs during which the thread lost its core are dropped, as
    long as there are not too many.

    Args:
        give_up: end after three rounds none of which had the other this fast, or after one that had it far from it.
    """
    found: list[float] = []
    for number in range(3 * rounds):
        pair = (default, other) if number % 2 else (other, default)
        times = {id(x): x.turn() for x in pair}
        if (default.was_interrupted or other.was_interrupted) and number < 2 * rounds:
            continue
        found.append(times[id(default)] / times[id(other)])
        is_behind = (len(found) == 3 and max(found) < give_up) or (len(found) == 1 and found[0] < FAR * give_up)
        if len(found) == rounds or is_behind:
            break
    return found


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What several places of the arrays say of a candidate: the ratio of the default's time to its own, whether no place is against it, and
    seconds of a call."""

    ratio: Interval
    is_steady: bool
    seconds: float


class Measurer(Protocol):
    """What measures candidates of one task."""

    def ratio(self, built: Built, best: float) -> float:
        """Time of the default divided by the candidate's, roughly. Raises TcompError where it cannot run.

        Args:
            best: the highest ratio so far: what is surely far from it need not be known well.
        """

    def confirm(self, built: Built) -> Confirmed:
        """The same with care."""

    def is_right(self, built: Built) -> bool:
        """Whether results on fresh inputs are as near to those in float64 as the default's."""


class Bench:
    """A `Measurer` of this machine.

    Args:
        default: what candidates are raced against. threads: of parallel loops; None for all. copies: that run at once, each on arrays of its own.

    Raises:
        TcompError: the default cannot be loaded. MemoryError: there is no room for the arrays.
    """

    def __init__(self, task: Task, default: Built, threads: int | None, copies: int = 1) -> None:
        self._task, self._default, self._threads, self._copies = task, default, threads, copies
        self._pool = ThreadPoolExecutor(copies) if copies > 1 else None
        self._places: dict[int, list[Arrays]] = {}
        self._usual = self._at(0, default)
        self._seconds = self._usual.turn()

    def ratio(self, built: Built, best: float) -> float:
        usual = self._seconds
        limit = max(HOPELESS * usual, FIRST_S)
        other = self._at(0, built, limit)
        if other.first > limit:
            return usual / other.first
        rounds, give_up = 3 if usual > LONG_S else ROUNDS, max(GIVE_UP, best - FLATTERY)
        found = float(np.median(race(self._usual, other, rounds, give_up)))
        if found > max(PROMISING, best):
            default, other = (self._at(2, b) for b in (self._default, built))
            found = float(np.median(race(default, other, SECOND_ROUNDS)))
        return found

    def confirm(self, built: Built) -> Confirmed:
        ratios, seconds = [], []
        for place in range(2, 2 + PLACES):
            default, other = (self._at(place, b) for b in (self._default, built))
            ratios.append(race(default, other, PLACE_ROUNDS))
            seconds.append(other.turn())
            del self._places[place]  # of which there are many
        is_steady = min(float(np.median(p)) for p in ratios) > 1
        return Confirmed(interval_of([r for p in ratios for r in p]), is_steady, float(np.median(seconds)))

    def _place(self, place: int) -> list[Arrays]:
        """The arrays at a place, of each copy."""
        found = self._places.get(place)
        if found is None:
            found = [Arrays(self._task, place + 100 * copy, place) for copy in range(self._copies)]
            self._places[place] = found
        return found

    def _at(self, place: int, built: Built, limit_s: float = math.inf) -> Loaded | Crowd:
        """A candidate at a place, as it is to be timed."""
        loaded = [a.load(built, self._threads, limit_s) for a in self._place(place)]
        return loaded[0] if self._pool is None else Crowd(loaded, self._pool)

    def is_right(self, built: Built) -> bool:
        results, module = [], self._task.module
        for b in (self._default, built):
            arrays = Arrays(self._task, 12345)
            fresh = [id(a) for a in arrays.inputs]
            for a in arrays.outputs:
                if id(a) not in fresh:
                    a[...] = 0
            arrays.run_once(b, self._threads)
            results.append(arrays.outputs)
        inputs = Arrays(self._task, 12345).inputs
        exact = results[0] if module is None else evaluate(module, inputs, exact=True, entry=self._task.func.name)
        return all(is_near(d, o, e) for d, o, e in zip(*results, exact, strict=True))


def is_near(default: np.ndarray, other: np.ndarray, exact: np.ndarray, allowed: float = 0.0) -> bool:
    """Whether a result is about as near to the exact one as the default's, or at least as near as is allowed (relative, 2-norm)."""
    if default.dtype.kind in "biu":
        return bool(np.array_equal(default, other))
    allowed = max(allowed, _EXACT[str(default.dtype)], 4 * _error(default, exact))
    return _error(other, exact) <= allowed


def _error(got: np.ndarray, exact: np.ndarray) -> float:
    a, b = got.astype(np.float64), np.asarray(exact, np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    return float(np.linalg.norm(np.nan_to_num(a - b)) / (np.linalg.norm(np.nan_to_num(b)) or 1.0))
