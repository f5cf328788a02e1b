"""compile(): the front door. Models that were compiled before are loaded; others go through the driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .backends import backend_of
from .config import config
from .errors import TcompError
from .lazy import lazy_module
from .remembered import LaterStages, entry_of
from .runtime.executable import Executable, Exporter, ExportOptions
from .target import Target

if TYPE_CHECKING:
    from .driver import Progress
    from .schedule.source import UserSchedule
    from .tuner.source import TunedSchedules

# what a model that was compiled before does not need
driver = lazy_module("tcomp.driver")
export = lazy_module("tcomp.export")
importers = lazy_module("tcomp.importers")
specialized = lazy_module("tcomp.specialized")
tuned_schedules = lazy_module("tcomp.tuner.source")


def compile(
    model: Any,
    inputs: Any = None,
    target: str | Target | Sequence[str | Target] = "cpu",
    *,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    shapes: Mapping[str, Sequence[Any]] | None = None,
    num_threads: int | None = None,
    schedules: Mapping[str, UserSchedule] | None = None,
    winograd: bool = True,
    check_indices: bool = True,
    denormals: Literal["keep", "flush"] = "keep",
    database: Any = None,
    progress: Progress | None = None,
) -> Any:
    """Compile a model for a target.

    Args:
        model: an IRModule; an object with `__tcomp_trace__(inputs) -> IRModule`, such as a `frontend` Module; a PrimFunc;
            a Schedule, whose kernel is compiled as it stands; the path of an ONNX file, an onnx.ModelProto,
            a torch.nn.Module (with example inputs), or what torch.export made of one.
        inputs: example arrays for a model that is traced.
        dims: of a model from elsewhere: extents by the names that it gives them, a number or (1, bound) for any up to a bound.
        shapes: of such a model: whole shapes by its inputs' names. What stays open is compiled when a call shows it.
        target: "cpu", or a text such as "llvm -mcpu=haswell -num-cores=4", or a Target. Of several CPUs, "llvm -mcpu=haswell,x86-64-v4", the
            best that this machine can run is compiled for here, and `Executable.export` writes code for all.
        num_threads: threads of parallel loops; by default TCOMP_NUM_THREADS, else the cores of this process.
        schedules: functions that schedule kernels, or recorded Traces, by the kernel's name (see `Executable.ir("fused")`), in place
            of the default schedule.
        winograd: whether 3 x 3 convolutions may use Winograd's algorithm where it is predicted to be faster. Its rounding error
            is about five times the direct way's (2e-6 relative to float64 on normal data).
        check_indices: whether each call tests the inputs that serve as places (of `take`, labels of `cross_entropy`): one that is out
            of range is an InputError before anything is written; constants are tested here. Without, places are moved to the
            nearest end, so that they never leave a tensor; so are, always, places that the model itself computes. Negative ones count
            from the end, as in NumPy.
        denormals: "flush" counts denormal numbers (below 1.2e-38 in float32) as zero while the model runs, in all its threads: many
            CPUs take up to a hundred times as long for them. Training steps do so by default.
        database: records of `tcomp.tune`, a path or a Database, whose schedules kernels get in place of the default ones; by default that of
            TCOMP_TUNE_DB, if it is set. "" for none.
        progress: called with (kernels done, kernels in all, name) while kernels are built.

    Returns:
        An Executable; a Specialized, which is called in the same way, where extents of a model from elsewhere stay open.

    Raises:
        TargetError: unknown target. UnsupportedError: the model has something that tcomp cannot compile.
        InternalError: a defect of tcomp; the message says how to replay it.
    """
    if denormals not in ("keep", "flush"):
        raise TcompError(f"denormals={denormals!r}", hint='"keep" or "flush"')
    targets = Target.parse_all(target)
    backend = backend_of(next((t for t in targets if not t.missing_here()), targets[0]))

    tuned = _tuned(database, num_threads)
    how = {"winograd": winograd, "check_indices": check_indices, "denormals": denormals}

    def again(target: str | Target, may_winograd: bool) -> Executable:
        options: Any = {**how, "winograd": winograd and may_winograd}
        found: Executable = compile(
            model, inputs, target, dims=dims, shapes=shapes, schedules=schedules, database=database, **options
        )
        return found

    is_own = not schedules and isinstance(target, str) and "-mcpu" not in target
    exporter = _exporter(model, backend.target, targets, is_own, how, again)

    def compile_made(
        make: Callable[[], Any],
        own: Mapping[str, UserSchedule] | None = None,
        progress: Progress | None = progress,
    ) -> Executable:
        options = driver.Options(
            num_threads,
            {**(own or {}), **(schedules or {})},
            winograd,
            check_indices,
            denormals == "flush",
            progress,
            tuned,
        )
        return driver.compile_module(make, backend, options, exporter)

    def compile_anew() -> tuple[Any, Sequence[str]]:
        """The executable, and the files besides the model's own that it was read from."""
        source = importers.source_of(model, inputs)
        if source is None:
            if dims is not None or shapes is not None:
                raise TcompError(
                    "dims= and shapes= are for models from elsewhere", hint="GraphBuilder.dim, or example inputs"
                )
            module, own = driver.as_module(model, inputs)
            return compile_made(lambda: module, own), ()
        found = importers.shapes_of(source, inputs, dims, shapes)
        return specialized.specialize(source, found, compile_made, progress is not None), source.beside

    options = (backend.target, winograd, check_indices, denormals)
    entry = None if schedules or tuned is not None else entry_of(model, inputs, dims, shapes, options)
    found = None if entry is None else entry.load(backend)
    if found is not None:
        if progress is not None:
            count = len(found[0].kernels)
            progress(count, count, "found compiled")
        stages = LaterStages(lambda: compile_anew()[0].stages)
        return Executable(*found, num_threads, stages, exporter)
    exe, beside = compile_anew()
    if entry is not None and isinstance(exe, Executable):
        entry.save(exe.program, exe.library, beside)
    return exe


def _tuned(database: Any, num_threads: int | None) -> TunedSchedules | None:
    """The records to use, if any."""
    chosen = config().tune_db if database is None else database
    if not chosen:
        return None
    if isinstance(chosen, (str, os.PathLike)):
        chosen = tuned_schedules.opened(str(chosen))
    found: TunedSchedules = tuned_schedules.TunedSchedules(chosen, num_threads)
    return found


def _exporter(
    model: Any,
    target: Target,
    targets: Sequence[Target],
    is_own: bool,
    how: Mapping[str, Any],
    again: Callable[[Target | str, bool], Executable],
) -> Exporter:
    """What exports a model; loaded when first used. Arguments as of TargetExporter."""

    def write(exe: Executable, path: str | os.PathLike[str], options: ExportOptions) -> tuple[Path, ...]:
        source = export.source_of_file(model)
        exporter: Exporter = export.TargetExporter(target, tuple(targets), is_own, source, how, again)
        return exporter(exe, path, options)

    return write


def workspace_bytes(model: Any, inputs: Any = None, target: str | Target = "cpu", *, winograd: bool = True) -> int:
    """The bytes of the workspace that a compiled model will need, without generating its code; arguments as for `compile`."""
    module, _ = driver.as_module(model, inputs)
    lowered = driver.lower(lambda: module, backend_of(Target.parse(target)), winograd)
    return driver.plan_memory(lowered.module).arena_bytes
