"""tune(): a model's kernels, searched and confirmed, and the model timed both ways."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from .backends import backend_of
from .compiler import compile
from .driver import Lowered, as_module, lower
from .errors import TcompError, UnsupportedError
from .importers import shapes_of, source_of
from .ir.module import IRModule
from .ir.primfunc import PrimFunc
from .runtime.example import example_inputs
from .runtime.executable import Executable
from .runtime.threads import usable_cores
from .schedule import Schedule, Trace
from .target import CpuTarget, Target
from .tuner.build import LocalExecutor
from .tuner.database import Database
from .tuner.measure import Interval, interval_of
from .tuner.report import TuneReport
from .tuner.task import Task, kernel_key
from .tuner.traces import TraceSpace
from .tuner.tuner import Progress, Tuner

MODEL_ROUNDS = 15
"""Pairs of runs of the model, before and after."""
LEAST_SHARE = 0.002
"""Of the model's time, below which a kernel is not tuned."""


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
    num_threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    schedule: Callable[[Schedule], Any] | None = None,
    winograd: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> TuneReport:
    """Make a model's kernels faster than by their default schedules, and keep records of that.

    The search tries other values of the decisions of default plans (see `Executable.explain`). What looks faster is measured again beside the
    default, at several places in memory, checked against float64 (a PrimFunc alone, against its default), and accepted where the interval of the ratio lies above 1 by a margin; at the
    end the whole model is timed both ways, and what was accepted in this run is dropped where the model does not gain.

    Args:
        model, inputs, dims, shapes, winograd: as for `compile`; extents must be fixed.
        target: a CPU that this machine can run.
        budget_s: seconds, about. trials: candidates of a kernel, at most.
        database: a file of records and trials, made where it is missing; by default they are forgotten afterwards. A run on the same file goes
            on from there. `compile(..., database=...)` uses the records.
        executor: builds candidates; processes of this machine by default. Any `concurrent.futures.Executor` whose workers have tcomp, such as
            `dask.distributed.Client.get_executor()`.
        kernels: names of those to tune (`Executable.ir("fused")` shows them); all that take time by default.
        num_threads: of parallel loops; records are for this number.
        schedule: a function that schedules the model's only kernel, or the one that `kernels` names, with sampling steps in it: their decisions
            are tuned, against those that the function makes; the report's `schedules` has the best.
        progress: called with the tasks and the share of the budget that is spent.

    Returns:
        TuneReport; printing it gives a table.

    Raises:
        TargetError, UnsupportedError: as for `compile`; the model has open extents. TcompError: an unknown kernel; a bad database.
        ScheduleError: a step of `schedule` is refused.
    """
    if not budget_s > 0:
        raise TcompError(f"budget_s={budget_s!r}", why="it must be a number of seconds above 0")
    start = time.perf_counter()
    module = _fixed_module(model, inputs, dims, shapes)
    chosen = Target.parse(target)
    if not isinstance(chosen, CpuTarget) or chosen.missing_here():
        raise UnsupportedError(f"cannot tune for {chosen}", why="this machine cannot run its code")
    given = database if isinstance(database, Database) else None
    with (
        nullcontext(given) if given is not None else closing(Database(database)) as records,  # type: ignore[arg-type]
        # as many workers as cores: this process waits meanwhile
        nullcontext(executor) if executor is not None else LocalExecutor(usable_cores()) as builders,
    ):
        options: dict[str, Any] = {"target": chosen, "num_threads": num_threads, "winograd": winograd, "database": ""}
        lowered = lower(lambda: module, backend_of(chosen), winograd)
        own = {} if schedule is None else _own(lowered.module.kernels, kernels, schedule)
        usual = {name: space.schedule(space.default) for name, space in own.items()}
        before = compile(module, **options, schedules=usual)  # whatever TCOMP_TUNE_DB says
        arrays = example_inputs(before.program)
        tasks = _tasks(lowered, chosen, before, arrays, [*own] or kernels, own)
        tuner = Tuner(tasks, records, builders, num_threads, seed)
        left = budget_s - (time.perf_counter() - start)
        tuner.run(max(left, 0.2 * budget_s), trials, progress)
        accepted = {s.task.func.name: s.accepted for s in tuner.states if s.accepted is not None}
        spaces = {s.task.func.name: s.task.space for s in tuner.states}
        schedules = {name: spaces[name].schedule(r.candidate) for name, r in accepted.items()}
        ratio, undone = None, False
        if accepted:
            ratio = compare(before, compile(module, **options, schedules=_of_all(schedules, lowered)), arrays)
            undone = ratio.middle < 1
        for record in accepted.values() if not undone else ():
            records.accept(record)
    reports = tuple(s.report() for s in tuner.states)
    notes = tuple(f"{s.task.func.name}: {s.failed}" for s in tuner.states if s.failed and not s.search.is_done)
    kept = usual | ({} if undone else schedules)
    return TuneReport(reports, ratio, time.perf_counter() - start, undone, notes, kept)


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


def compare(before: Executable, after: Executable, arrays: Sequence[np.ndarray]) -> Interval:
    """The ratio of two executables' times, turn by turn."""
    return interval_of(pairs_of(before, after, arrays))


def pairs_of(
    before: Executable, after: Executable, arrays: Sequence[np.ndarray], rounds: int = MODEL_ROUNDS
) -> list[float]:
    """Ratios of two executables' times in turns that follow each other, whoever goes first."""
    for exe in (before, after):
        exe.time(*arrays, repeat=2, warmup=1)
    ratios = []
    for number in range(rounds):
        pair = (before, after) if number % 2 else (after, before)
        times = {id(exe): exe.time(*arrays, repeat=3, warmup=1).median for exe in pair}
        ratios.append(times[id(before)] / times[id(after)])
    return ratios
