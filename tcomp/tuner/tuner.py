"""The tuner: tries plans of the kernels that matter, confirms the best, keeps what makes the model faster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from typing import Any

from ..errors import TcompError
from .build import ALIKE, Built, build
from .cost_model import RidgeModel
from .database import Database, Key, Record, Trial
from .measure import Bench, Confirmed, Measurer
from .report import TaskReport
from .search import Evolution
from .space import Candidate
from .task import Task

BATCH = 16
"""Candidates that are built at a time."""
CONFIRMED = 3
"""The best so many are confirmed."""
MARGIN = 1.01
"""A plan is accepted if the interval of its ratio lies above this."""
ROUNDS = 4
"""Times that the next best so many are confirmed, where none of those before them gained everywhere."""
SEARCH_SHARE = 0.75
"""Of the budget; the rest is for confirming."""

Progress = Callable[[Sequence["State"], float], None]
"""Called with the tasks, and the share of the budget that is spent."""


@dataclass
class State:
    """A task under way.

    Attributes:
        share: of the model's time. measurer: None until its first batch. curve: (seconds spent, best ratio by then).
    """

    task: Task
    key: Key
    share: float
    search: Evolution
    measurer: Measurer | None = None
    refused: int = 0
    seconds: float = 0.0
    accepted: Record | None = None
    failed: str = ""
    curve: list[tuple[float, float]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The highest ratio seen."""
        return max((t.ratio or 0.0 for t in self.search.tried.values()), default=1.0)

    @property
    def promise(self) -> float:
        """What another batch may bring, to compare tasks by: the share of time, less where nothing was found for long."""
        is_over = self.failed or self.search.is_done
        return 0.0 if is_over else self.share / (1 + self.search.stale / (3 * BATCH))

    def report(self) -> TaskReport:
        measured = sum(t.ratio is not None for t in self.search.tried.values())
        accepted = self.accepted
        return TaskReport(
            self.task.func.name, self.share, self.task.calls, measured, self.refused, self.best,
            accepted=None if accepted is None else accepted.ratio,
            changes="" if accepted is None else self.task.space.told(accepted.candidate),
            seconds=self.seconds, curve=tuple(self.curve), predictions=tuple(self.search.predictions),
        )  # fmt: skip


class Tuner:
    """Searches tasks and confirms what it found.

    Args:
        executor: where candidates are built. threads: of parallel loops; None for all. measurer: makes what measures a task's candidates beside
            its default; by default they run here. conditions: of measuring, which records note.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        database: Database,
        executor: Executor,
        threads: int | None,
        seed: int = 0,
        measurer: Callable[[Task, Built, int | None], Measurer] = Bench,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        self.database, self.executor, self.threads, self._measurer = database, executor, threads, measurer
        total = sum(t.seconds for t in tasks) or 1.0
        self._conditions = dict(conditions or {})
        self.states = []
        for task in tasks:
            key = Key.of(task.key, task.target, threads)
            model = RidgeModel() if task.own is None else None  # a trace has no decisions that all candidates have
            near = [r.candidate for r in database.near(key, task.func.name)]
            search = Evolution(task.space, [seed, int(task.key[:8], 16)], database.trials(key), near, model)
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
            for number in range(ROUNDS):
                if state.best <= MARGIN or state.accepted is not None or time.perf_counter() - start >= budget_s:
                    break
                record = self.confirm(state, number)
                if record is not None:
                    found.append(record)
            if progress is not None:
                progress(self.states, min(1.0, (time.perf_counter() - start) / budget_s))
        return found

    def step(self, state: State) -> None:
        """Build and measure a batch."""
        start = time.perf_counter()
        if state.measurer is None:
            self._begin(state)
        if not state.failed:
            wanted = state.search.propose(BATCH)
            if not wanted:
                state.failed = "nothing is left to try"
            known, trials = set(state.search.programs), []
            for built in self._build(state, wanted):
                trials.append(self._measure(state, built, frozenset(known)))
                known.add(built.program)
            self.database.add(state.key, trials)  # all at once: a run that is killed goes on with a whole batch
            for trial in trials:
                state.refused += trial.ratio is None and trial.reason != ALIKE
                state.search.tell(trial)
        state.seconds += time.perf_counter() - start
        state.curve.append((state.seconds, max(1.0, state.best)))

    def _begin(self, state: State) -> None:
        """What measures, beside the default."""
        default = state.task.space.default
        assert default is not None
        built = next(iter(self._build(state, [default], again=True)))
        if not built.code:
            state.failed = built.reason
            return
        try:
            state.measurer = self._measurer(state.task, built, self.threads)
        except (TcompError, MemoryError) as error:
            state.failed = str(error)

    def _build(self, state: State, wanted: Sequence[Candidate], again: bool = False) -> Sequence[Built]:
        """The code of candidates, in the order in which they were asked for; what its process did not survive has none.

        Args:
            again: of those, too, that are scheduled as one that was measured.
        """
        known = frozenset() if again else state.search.programs
        jobs = {
            self.executor.submit(build, state.task.func, state.task.target, c, known, state.task.key): c for c in wanted
        }
        found: dict[Candidate, Built] = {}
        for job in as_completed(jobs):
            candidate = jobs[job]
            try:
                found[candidate] = job.result()
            except Exception as error:  # whatever an executor has for a process that is gone
                found[candidate] = Built(candidate, reason=f"{type(error).__name__}: {error}")
        return [found[c] for c in wanted]

    def _measure(self, state: State, built: Built, known: frozenset[str]) -> Trial:
        """Race a candidate against the default.

        Args:
            known: programs of candidates before it.
        """
        assert state.measurer is not None
        ratio, reason = None, built.reason
        if built.code and built.program in known:
            reason = ALIKE
        elif built.code:
            try:
                ratio = state.measurer.ratio(built, state.best)
            except TcompError as error:
                reason = str(error)
        return Trial(built.candidate, built.program, ratio, reason)

    def confirm(self, state: State, number: int = 0) -> Record | None:
        """Measure the best candidates again, with care, check that they are right, and accept the one with the highest lower bound.

        Args:
            number: of those so many times behind the best.
        """
        start = time.perf_counter()
        if state.measurer is None:
            self._begin(state)
        if state.measurer is None:
            return None
        best = state.search.best((number + 1) * CONFIRMED)[number * CONFIRMED :]
        chosen = [t.candidate for t in best if (t.ratio or 0.0) > MARGIN]
        found: list[tuple[Confirmed, Built]] = []
        for built in self._build(state, chosen, again=True):
            if built.code:
                seen = state.measurer.confirm(built)
                if seen.is_steady and seen.ratio.low > MARGIN and state.measurer.is_right(built):
                    found.append((seen, built))
        state.seconds += time.perf_counter() - start
        if not found:
            return None
        seen, built = max(found, key=lambda f: f[0].ratio.low)
        conditions = {**self._conditions, "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0}
        trace = state.task.space.schedule(built.candidate).trace.as_json()
        state.accepted = Record(state.key, state.task.func.name, built.candidate, seen.ratio, seen.seconds, conditions, trace)  # fmt: skip
        return state.accepted
