"""The tuner: tries plans of the kernels that matter, confirms the best, keeps what makes the model faster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass

import numpy as np

from ..errors import TcompError
from ..ops.reference import evaluate
from .build import ALIKE, Built, build
from .database import Database, Key, Record, Trial
from .measure import Arrays, Interval, Loaded, interval_of, race
from .report import TaskReport
from .search import Evolution
from .space import Candidate, differences
from .task import Task

BATCH = 8
"""Candidates that are built at a time."""
ROUNDS, GIVE_UP = 7, 0.9
"""Pairs of turns of a candidate; below so much of the default's speed it is given up after three."""
CONFIRMED, PLACES, PLACE_ROUNDS = 3, 5, 9
"""The best so many are confirmed, at so many places of the arrays, by so many pairs each."""
HOPELESS, FIRST_S = 4.0, 5e-3
"""Times as long as the default that a first call may take; it may always take so many seconds, as its code is not in the caches yet."""
MARGIN = 1.01
"""A plan is accepted if the interval of its ratio lies above this."""
PATIENCE = 240
"""Trials without anything better, after which a kernel is left."""
SEARCH_SHARE = 0.75
"""Of the budget; the rest is for confirming."""
_EXACT = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-13}
"""Relative errors (2-norm) that are always allowed; beyond, four times the default's."""

Progress = Callable[[Sequence["State"], float], None]
"""Called with the tasks, and the share of the budget that is spent."""


@dataclass
class State:
    """A task under way.

    Attributes:
        share: of the model's time. arrays, default: what candidates are raced on and against; None until its first batch.
    """

    task: Task
    key: Key
    share: float
    search: Evolution
    arrays: Arrays | None = None
    default: Loaded | None = None
    refused: int = 0
    seconds: float = 0.0
    accepted: Record | None = None
    failed: str = ""

    @property
    def best(self) -> float:
        """The highest ratio seen."""
        return max((t.ratio or 0.0 for t in self.search.tried.values()), default=1.0)

    @property
    def promise(self) -> float:
        """What another batch may bring, to compare tasks by: the share of time, less where nothing was found for long."""
        is_over = self.failed or self.search.is_done or self.search.stale > PATIENCE
        return 0.0 if is_over else self.share / (1 + self.search.stale / (3 * BATCH))

    def report(self) -> TaskReport:
        measured = sum(t.ratio is not None for t in self.search.tried.values())
        accepted, default = self.accepted, self.task.space.default
        changes = ""
        if accepted is not None and default is not None:
            told = differences(accepted.candidate, default).items()
            changes = accepted.candidate.rule if accepted.candidate.rule != default.rule else ", ".join(f"{n} {b} -> {a}" for n, (a, b) in told)  # fmt: skip
        ratio = None if accepted is None else accepted.ratio
        refused = self.refused
        return TaskReport(self.task.func.name, self.share, self.task.calls, measured, refused, self.best, ratio, changes, self.seconds)  # fmt: skip


class Tuner:
    """Searches tasks and confirms what it found.

    Args:
        executor: where candidates are built; measuring happens here. threads: of parallel loops; None for all.
    """

    def __init__(
        self, tasks: Sequence[Task], database: Database, executor: Executor, threads: int | None, seed: int = 0
    ) -> None:
        self.database, self.executor, self.threads = database, executor, threads
        total = sum(t.seconds for t in tasks) or 1.0
        self.states = []
        for number, task in enumerate(tasks):
            key = Key.of(task.key, task.target, threads)
            search = Evolution(task.space, np.random.default_rng([seed, number]), database.trials(key))
            self.states.append(State(task, key, task.seconds / total if len(tasks) > 1 else 1.0, search))

    def run(self, budget_s: float, trials: int | None = None, progress: Progress | None = None) -> list[Record]:
        """Search, then confirm; the records that were accepted, in the order of what they bring.

        Args:
            budget_s: seconds. trials: of each task, at most.
        """
        start = time.perf_counter()
        while self.states and (spent := (time.perf_counter() - start) / budget_s) < SEARCH_SHARE:
            state = max(self.states, key=lambda s: s.promise if trials is None or len(s.search.tried) < trials else 0.0)
            if not state.promise or (trials is not None and len(state.search.tried) >= trials):
                break
            self.step(state)
            if progress is not None:
                progress(self.states, spent)
        found = []
        for state in sorted(self.states, key=lambda s: s.share * (1 - 1 / max(s.best, 1.0)), reverse=True):
            if state.best > MARGIN and time.perf_counter() - start < budget_s:
                record = self.confirm(state)
                if record is not None:
                    found.append(record)
            if progress is not None:
                progress(self.states, min(1.0, (time.perf_counter() - start) / budget_s))
        return found

    def step(self, state: State) -> None:
        """Build and measure a batch."""
        start = time.perf_counter()
        if state.default is None:
            self._begin(state)
        if not state.failed:
            wanted = state.search.propose(BATCH)
            if not wanted:
                state.failed = "nothing is left to try"
            for built in self._build(state, wanted):
                self._measure(state, built)
        state.seconds += time.perf_counter() - start

    def _begin(self, state: State) -> None:
        """Arrays, and the default on them."""
        default = state.task.space.default
        assert default is not None
        built = next(iter(self._build(state, [default], again=True)))
        if not built.code:
            state.failed = built.reason
            return
        try:
            state.arrays = Arrays(state.task, 0)
            state.default = state.arrays.load(built, self.threads)
        except (TcompError, MemoryError) as error:
            state.failed = str(error)

    def _build(self, state: State, wanted: Sequence[Candidate], again: bool = False) -> Sequence[Built]:
        """The code of candidates, in the order in which they were asked for; what its process did not survive has none.

        Args:
            again: of those, too, that are scheduled as one that was measured.
        """
        known = frozenset() if again else state.search.programs
        jobs = {self.executor.submit(build, state.task.func, state.task.target, c, known): c for c in wanted}
        found: dict[Candidate, Built] = {}
        for job in as_completed(jobs):
            candidate = jobs[job]
            try:
                found[candidate] = job.result()
            except Exception as error:  # whatever an executor has for a process that is gone
                found[candidate] = Built(candidate, reason=f"{type(error).__name__}: {error}")
        return [found[c] for c in wanted]

    def _measure(self, state: State, built: Built) -> None:
        """Race a candidate against the default, and note the result."""
        assert state.arrays is not None and state.default is not None
        ratio, reason = None, built.reason
        if built.code and built.program in state.search.programs:
            reason = ALIKE  # as another one of its batch
        elif built.code:
            try:
                usual = state.default.turn()
                limit = max(HOPELESS * usual, FIRST_S)
                other = state.arrays.load(built, self.threads, limit)
                if other.first > limit:
                    ratio = usual / other.first
                else:
                    ratio = float(np.median(race(state.default, other, ROUNDS, GIVE_UP)))
            except TcompError as error:
                reason = str(error)
        trial = Trial(built.candidate, built.program, ratio, reason)
        state.refused += ratio is None and reason != ALIKE
        state.search.tell(trial)
        self.database.add(state.key, trial)

    def confirm(self, state: State) -> Record | None:
        """Measure the best candidates again, at other places, check that they are right, and accept the one with the highest lower bound."""
        start = time.perf_counter()
        default = state.task.space.default
        if state.default is None:
            self._begin(state)
        if default is None or state.default is None:
            return None
        chosen = [t.candidate for t in state.search.best(CONFIRMED) if (t.ratio or 0.0) > MARGIN]
        built = self._build(state, [default, *chosen], again=True)
        found: list[tuple[Interval, Built, float]] = []
        for b in built[1:]:
            if not b.code or not built[0].code:
                continue
            ratios, seconds = self._at_places(state, built[0], b)
            interval = interval_of([r for place in ratios for r in place])
            if (
                interval.low > MARGIN
                and min(float(np.median(p)) for p in ratios) > 1
                and self.is_right(state, built[0], b)
            ):
                found.append((interval, b, seconds))
        state.seconds += time.perf_counter() - start
        if not found:
            return None
        ratio, best, seconds = max(found, key=lambda f: f[0].low)
        conditions = {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, "places": PLACES}
        state.accepted = Record(state.key, state.task.func.name, best.candidate, ratio, seconds, conditions)
        return state.accepted

    def _at_places(self, state: State, default: Built, other: Built) -> tuple[list[list[float]], float]:
        """Ratios at each place of the arrays, and seconds of a call."""
        ratios, seconds = [], []
        for place in range(PLACES):
            arrays = Arrays(state.task, place + 1, place)
            first, second = (arrays.load(b, self.threads) for b in (default, other))
            ratios.append(race(first, second, PLACE_ROUNDS))
            seconds.append(second.turn())
        return ratios, float(np.median(seconds))

    def is_right(self, state: State, default: Built, other: Built) -> bool:
        """Whether a candidate's results on fresh inputs are as near to those in float64 as the default's are."""
        arrays = Arrays(state.task, 12345)
        results = []
        for b in (default, other):
            for a in arrays.outputs:
                a[...] = 0
            arrays.load(b, self.threads).run()
            results.append([a.copy() for a in arrays.outputs])
        module, name = state.task.module, state.task.func.name
        exact = results[0] if module is None else evaluate(module, arrays.inputs, exact=True, entry=name)
        return all(_is_near(d, o, e) for d, o, e in zip(*results, exact, strict=True))


def _is_near(default: np.ndarray, other: np.ndarray, exact: np.ndarray) -> bool:
    if default.dtype.kind in "biu":
        return bool(np.array_equal(default, other))
    allowed = max(_EXACT[str(default.dtype)], 4 * _error(default, exact))
    return _error(other, exact) <= allowed


def _error(got: np.ndarray, exact: np.ndarray) -> float:
    a, b = got.astype(np.float64), np.asarray(exact, np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    return float(np.linalg.norm(np.nan_to_num(a - b)) / (np.linalg.norm(np.nan_to_num(b)) or 1.0))
