"""tune(): a model's layouts and kernels, searched and confirmed, and the model timed with and without what was found."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..backends import backend_of
from ..compiler import compile
from ..driver import Lowered, as_module, lower
from ..errors import TcompError, UnsupportedError
from ..importers import shapes_of, source_of
from ..ir.module import IRModule
from ..ir.primfunc import PrimFunc
from ..passes import before_packing
from ..runtime.example import example_inputs
from ..runtime.executable import Executable
from ..runtime.threads import usable_cores
from ..schedule import Schedule, Trace
from ..target import CpuTarget, Target
from ..tuner.build import LocalExecutor
from ..tuner.database import Database
from ..tuner.layouts import layers_of
from ..tuner.measure import Bench, Interval
from ..tuner.report import TuneReport
from ..tuner.source import TunedSchedules
from ..tuner.task import Task, kernel_key
from ..tuner.traces import TraceSpace
from ..tuner.tuner import Progress, State, Tuner
from .elsewhere import ratios_elsewhere
from .layers import LayerState, LayerTuner, only
from .whole import Executables, compare, in_model

LEAST_SHARE = 0.002
"""Of the model's time, below which a kernel is not tuned."""
LAYOUT_SHARE = 0.3
"""Of the budget, for layouts."""
LEAST_GAIN = 0.01
"""Share of the model's time that what was accepted has to save: less cannot be told from noise in the model."""
WORTH = 0.99
"""What was found is kept where the model gains, and the interval of that lies above this."""


def tune(
    model: Any,
    inputs: Any = None,
    target: str | Target = "cpu",
    *,
    budget_s: float = 60.0,
    trials: int | None = None,
    database: Database | str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    kernels: Sequence[str] | None = None,
    layouts: bool = True,
    objective: Literal["latency", "throughput"] = "latency",
    num_threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    schedule: Callable[[Schedule], Any] | None = None,
    winograd: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> TuneReport:
    """Make a model's kernels faster than by their default schedules, and keep records of that.

    First other layouts of constant weights are tried (how wide panels are; Winograd's algorithm or the direct way), then other values of the
    decisions of the kernels' default plans (see `Executable.explain`). What looks faster is measured again beside the default, at several
    places in memory, checked against float64 (a PrimFunc alone, against its default), and accepted where the interval of the ratio lies
    above 1 by a margin. A kernel that gains alone but not inside the model keeps its default; at the end the whole model is timed both ways,
    and what was accepted in this run is dropped where the model does not gain.

    Args:
        model, inputs, dims, shapes, winograd: as for `compile`; extents must be fixed.
        target: a CPU that this machine can run.
        budget_s: seconds, about. trials: candidates of a kernel, at most.
        database: a file of records and trials, made where it is missing; by default they are forgotten afterwards. A run on the same file goes
            on from there. `compile(..., database=...)` uses the records.
        executor: builds candidates; processes of this machine by default. Any `concurrent.futures.Executor` whose workers have tcomp, such as
            `dask.distributed.Client.get_executor()`.
        kernels: names of those to tune (`Executable.ir("fused")` shows them), and nothing else; all that take time by default.
        layouts: whether layouts are tried, too.
        objective: "latency", the time of a run by itself; "throughput", that of a run by one thread while each other core has one, too. Records
            are then for `compile(target="cpu -num-cores=1", num_threads=1)`.
        num_threads: of parallel loops; records are for this number.
        schedule: a function that schedules the model's only kernel, or the one that `kernels` names, with sampling steps in it: their decisions
            are tuned, against those that the function makes; the report's `schedules` has the best.
        progress: called with the tasks (none yet while layouts are tried) and the share of the budget that is spent.

    Returns:
        TuneReport; printing it gives tables.

    Raises:
        TargetError, UnsupportedError: as for `compile`; the model has open extents. TcompError: an unknown kernel; a bad database; an argument
        that makes no sense. ScheduleError: a step of `schedule` is refused.
    """
    start = time.perf_counter()
    chosen, threads = _asked(target, budget_s, objective, num_threads)
    module = _fixed_module(model, inputs, dims, shapes)
    given = database if isinstance(database, Database) else None
    with (
        nullcontext(given) if given is not None else closing(Database(database)) as records,  # type: ignore[arg-type]
        # as many workers as cores: this process waits meanwhile
        nullcontext(executor) if executor is not None else LocalExecutor(usable_cores()) as builders,
    ):
        copies = usable_cores() if objective == "throughput" else 1
        run = _Run(module, chosen, threads, winograd, copies, records, start, budget_s, progress)
        if layouts and schedule is None and kernels is None:
            run.tune_layouts()
        run.tune_kernels(builders, kernels, schedule, trials, seed)
        return run.finished()


@dataclass
class _Run:
    """A run of the tuner.

    Attributes:
        copies: of the model that run at once. layouts: the accepted ones. own: a user's schedules by kernel, as they are by default;
            schedules: the accepted ones. gain: of the model.
    """

    module: IRModule
    target: CpuTarget
    threads: int | None
    winograd: bool
    copies: int
    records: Database
    start: float
    budget_s: float
    progress: Progress | None
    layers: list[LayerState] = field(default_factory=list)
    layouts: Database = field(default_factory=Database)
    tuner: Tuner | None = None
    own: Mapping[str, Schedule] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    gain: Interval | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.start

    def made(
        self,
        module: IRModule | None = None,
        records: Database | str = "",  # whatever TCOMP_TUNE_DB says
        schedules: Mapping[str, Any] | None = None,
    ) -> Executables:
        """A model, compiled."""
        how: dict[str, Any] = {"target": self.target, "num_threads": self.threads, "winograd": self.winograd}
        given = module if module is not None else self.module
        return [compile(given, **how, database=records, schedules=schedules) for _ in range(self.copies)]

    def tune_layouts(self) -> None:
        """Try layouts, and keep those that were accepted if the model gains."""
        layers = layers_of(before_packing(backend_of(self.target).layout(self.winograd)).run(self.module))
        if not layers:
            return
        (usual, *_) = self.made()
        arrays = example_inputs(usual.program)
        model_s = usual.time(*arrays, repeat=5).median

        def tell() -> None:
            if self.progress is not None:
                self.progress((), min(1.0, self.spent / self.budget_s))

        tuner = LayerTuner(self.made, self.target, self.threads, self.winograd, self.records)
        self.layers = tuner.run(layers, model_s, LAYOUT_SHARE * self.budget_s, tell)
        accepted = [s.accepted for s in self.layers if s.accepted is not None]
        if not accepted:
            return
        if not self._saves_enough(self.layers, "layouts"):
            for state in self.layers:
                state.accepted = None
            return
        found = only(*accepted)
        self.gain, is_gain = self._compared(lambda tuned: self.made(records=found if tuned else ""), arrays)
        if is_gain:
            self.layouts = found
            return
        self.notes.append("the model does not gain by layouts of weights")
        for state in self.layers:
            state.accepted = None

    def tune_kernels(
        self,
        builders: Executor,
        kernels: Sequence[str] | None,
        schedule: Callable[[Schedule], Any] | None,
        trials: int | None,
        seed: int,
    ) -> None:
        """Search kernels, and keep what was accepted if the model gains."""
        source = TunedSchedules(self.layouts, self.threads)
        lowered = lower(lambda: self.module, backend_of(self.target), self.winograd, tuned=source)
        own = {} if schedule is None else _own(lowered.module.kernels, kernels, schedule)
        self.own = {name: space.schedule(space.default) for name, space in own.items()}
        (usual, *_) = self.made(records=self.layouts, schedules=self.own)
        arrays = example_inputs(usual.program)
        tasks = _tasks(lowered, self.target, usual, arrays, [*own] or kernels, own)
        measurer = partial(Bench, copies=self.copies)
        self.tuner = Tuner(tasks, self.records, builders, self.threads, seed, measurer, {"copies": self.copies})
        before, left = self.spent, max(self.budget_s - self.spent, 0.2 * self.budget_s)

        def tell(states: Any, share: float) -> None:
            if self.progress is not None:
                self.progress(states, min(1.0, (before + share * left) / self.budget_s))

        self.tuner.run(left, trials, tell)
        spaces = {s.task.func.name: s.task.space for s in self.tuner.states}
        found = {s.task.func.name: s.accepted for s in self.tuner.states if s.accepted is not None}
        schedules = {name: spaces[name].schedule(r.candidate) for name, r in found.items()}
        if schedules:
            self._keep_what_gains(schedules, lowered, usual, arrays)

    def _keep_what_gains(
        self, found: dict[str, Schedule], lowered: Lowered, usual: Executable, arrays: Sequence[np.ndarray]
    ) -> None:
        """Drop the schedules that do not gain inside the model; the rest, too, if the whole does not."""
        if len(lowered.module.kernels) > 1:
            groups = {name: _alike(lowered, name) for name in found}
            (after, *_) = self.made(records=self.layouts, schedules=_of_all(found, lowered))
            for name, ratio in in_model(usual, after, arrays, groups).items():
                if ratio < 1:
                    del found[name]
                    self.notes.append(f"{name}: its gain does not show inside the model")
        assert self.tuner is not None
        states = [s for s in self.tuner.states if s.task.func.name in found]
        if found and self._saves_enough(states, "schedules"):
            traces = _of_all(found, lowered)
            has_layouts = bool(self.layouts.records())

            def one(tuned: bool) -> Executables:
                return self.made(records=self.layouts, schedules=traces if tuned else self.own)

            def whole(tuned: bool) -> Executables:
                return one(True) if tuned else self.made()

            gain, is_gain = self._compared(one, arrays)
            if is_gain:
                self.schedules = found
                self.gain = compare(whole, arrays) if has_layouts else gain
            else:
                self.notes.append("the model does not gain by schedules of kernels")
                self.gain = self.gain if has_layouts else gain
        for state in self.tuner.states:
            if state.task.func.name not in self.schedules:
                state.accepted = None

    def _compared(self, make: Callable[[bool], Executables], arrays: Sequence[np.ndarray]) -> tuple[Interval, bool]:
        """The ratio of the times of two models, and whether the second one is surely faster, in this process and in new ones."""
        gain = compare(make, arrays, is_decided=_is_decided)
        if not _is_worth(gain):
            return gain, False
        others = ratios_elsewhere(make(False), make(True), self.target, self.threads)
        if min(others) < 1:
            told = ", ".join(f"{r:.3f}" for r in others)
            self.notes.append(f"a gain of {gain} here does not show in other processes: {told}")
        return gain, min(others) >= 1

    def _saves_enough(self, states: Sequence[LayerState | State], what: str) -> bool:
        """Whether what was accepted can make a difference to the model."""
        saved = sum(s.report().gain for s in states)
        if saved < LEAST_GAIN:
            self.notes.append(f"{what} that were faster would save {100 * saved:.1f} % of the model's time, too little to be told from noise")  # fmt: skip
        return saved >= LEAST_GAIN

    def finished(self) -> TuneReport:
        """Keep the records, and tell."""
        assert self.tuner is not None
        states = self.tuner.states
        for record in (*(s.accepted for s in self.layers), *(s.accepted for s in states)):
            if record is not None:
                self.records.accept(record)
        undone = self.gain is not None and not (self.schedules or self.layouts.records())
        notes = [f"{s.task.func.name}: {s.failed}" for s in states if s.failed and not s.search.is_done]
        return TuneReport(
            tuple(s.report() for s in states), self.gain, self.spent, undone, (*self.notes, *notes),
            {**self.own, **self.schedules}, tuple(s.report() for s in self.layers),
        )  # fmt: skip


def _is_worth(gain: Interval) -> bool:
    return gain.middle >= 1 and gain.low > WORTH


def _is_decided(gain: Interval) -> bool:
    """Whether no more runs are needed: surely above 1, and not just worth it at the moment, as one of many looks may be by chance."""
    return gain.middle < 1 or gain.low > 1


def _asked(
    target: str | Target, budget_s: float, objective: str, num_threads: int | None
) -> tuple[CpuTarget, int | None]:
    """The target and the threads to tune for.

    Raises:
        TcompError: arguments that make no sense. UnsupportedError: this machine is not the target.
    """
    if not budget_s > 0:
        raise TcompError(f"budget_s={budget_s!r}", why="it must be a number of seconds above 0")
    if objective not in ("latency", "throughput"):
        raise TcompError(f"objective={objective!r}", hint='"latency" or "throughput"')
    chosen = Target.parse(target)
    if not isinstance(chosen, CpuTarget):
        raise UnsupportedError(f"cannot tune for {chosen}", why="so far CPUs are tuned for")
    if chosen.missing_here():
        raise UnsupportedError(f"cannot tune for {chosen}", why="this machine cannot run its code")
    if objective == "latency":
        return chosen, num_threads
    if num_threads not in (None, 1):
        raise TcompError(f"num_threads={num_threads}", why="for throughput each run has one thread")
    return replace(chosen, num_cores=1), 1


def _own(
    known: Mapping[str, PrimFunc], kernels: Sequence[str] | None, schedule: Callable[[Schedule], Any]
) -> dict[str, TraceSpace]:
    """The space of a user's own schedule, by the name of the kernel."""
    wanted = list(kernels or known)
    if len(wanted) != 1 or wanted[0] not in known:
        raise TcompError(
            "one schedule tunes one kernel", why=f"the kernels are {', '.join(known)}", hint="kernels=[...]"
        )
    return {wanted[0]: TraceSpace(known[wanted[0]], schedule)}


def _of_all(schedules: Mapping[str, Schedule], lowered: Lowered) -> dict[str, Trace]:
    """The steps for all kernels that compute the same as those that were tuned."""
    by_key = {kernel_key(lowered.module.kernels[n]): s.trace for n, s in schedules.items()}
    return {n: by_key[k] for n, f in lowered.module.kernels.items() if (k := kernel_key(f)) in by_key}


def _alike(lowered: Lowered, name: str) -> set[str]:
    """The kernels that compute the same as one of them."""
    kernels = lowered.module.kernels
    key = kernel_key(kernels[name])
    return {n for n, f in kernels.items() if kernel_key(f) == key}


def _fixed_module(model: Any, inputs: Any, dims: Any, shapes: Any) -> IRModule:
    """The module to tune; its extents are fixed."""
    source = source_of(model, inputs)
    if source is None:
        module, own = as_module(model, inputs)
        if own:
            raise UnsupportedError("a Schedule is tuned by hand", hint="give the PrimFunc that it schedules")
    else:
        found = shapes_of(source, inputs, dims, shapes)
        still = [n for n, s in found.items() if s is None or not all(isinstance(e, int) for e in s)]
        if still:
            raise UnsupportedError(f"extents of {', '.join(still)} are open", hint="dims= or shapes=")
        module = source.build({n: tuple(s) for n, s in found.items()}, {})
    if module.main.dims:
        raise UnsupportedError("kernels whose extents are open cannot be tuned yet", hint="fix them")
    return module


def _tasks(
    lowered: Lowered,
    target: CpuTarget,
    exe: Executable,
    arrays: Sequence[np.ndarray],
    kernels: Sequence[str] | None,
    own: Mapping[str, TraceSpace],
) -> list[Task]:
    """The distinct kernels that have something to decide, the longest first."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for row in exe.profile(*arrays, repeat=5).rows:
        spent[row.name] += row.seconds  # type: ignore[assignment]
        calls[row.name] += row.calls
    known = lowered.module.kernels
    unknown = set(kernels or ()) - known.keys()
    if unknown:
        raise TcompError(f"no kernel {sorted(unknown)[0]!r} to tune", why=f"the kernels are {', '.join(known)}")
    total = sum(spent.values()) or 1.0
    found: dict[str, Task] = {}
    graphs = lowered.seen.get("fused")
    for name, func in known.items():
        if (kernels is not None and name not in kernels) or (kernels is None and spent[name] / total < LEAST_SHARE):
            continue
        holder = graphs if graphs is not None and name in graphs.functions else None
        task = Task(func, target, spent[name], calls[name], holder, own.get(name))
        if task.space.default is not None and task.space.size > 1:
            same = found.get(task.key)
            found[task.key] = task if same is None else replace(same, seconds=same.seconds + task.seconds, calls=same.calls + task.calls)  # fmt: skip
    return sorted(found.values(), key=lambda t: -t.seconds)
