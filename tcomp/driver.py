"""The driver: the whole way from a module to an Executable, written down in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .assemble import Interface, interface_of, make_program
from .codegen.build import Kernel
from .codegen.cache import ObjectCache, fingerprint
from .config import config
from .errors import TcompError, UnsupportedError
from .ir.graph import FuncCall
from .ir.module import IRModule, module_of_kernel
from .ir.node import with_fields
from .ir.primfunc import PrimFunc
from .ir.query import free_vars
from .ir.verify import verify
from .lazy import lazy_module
from .memory import trim
from .passes import SNAPSHOTS, pipeline, plan_memory
from .runtime.executable import Executable, Exporter
from .stages import Stages, without_values

if TYPE_CHECKING:
    from .backends import Backend
    from .passes.pack import LayoutPolicy
    from .schedule.source import Found, ScheduleSource, UserSchedule
    from .target import Target

# what a model whose kernels are all in the cache does not need
sources = lazy_module("tcomp.schedule.source")
check = lazy_module("tcomp.passes.check")

Progress = Callable[[int, int, str], None]


class Records(Protocol):
    """What was found by tuning: a `ScheduleSource` that may also know how weights should lie."""

    def find(self, func: PrimFunc, target: Target) -> Found | None: ...

    def layout(self, usual: LayoutPolicy) -> LayoutPolicy:
        """A policy that answers as another one where there are no records."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller of `compile` decides; see there. tuned: records of schedules, asked where the caller gave none."""

    num_threads: int | None = None
    schedules: Mapping[str, UserSchedule] = field(default_factory=dict)
    winograd: bool = True
    check_indices: bool = True
    flush_denormals: bool = False
    progress: Progress | None = None
    tuned: Records | None = None


@dataclass(frozen=True)
class Lowered:
    """A module on its way.

    Attributes:
        module: its kernels, not yet scheduled. interface: of the module as it was given.
        seen: its stages by name; without their constants' values, but where passes are to be checked.
    """

    module: IRModule
    interface: Interface
    seen: Mapping[str, IRModule]


def compile_module(
    make: Callable[[], IRModule], backend: Backend, options: Options, exporter: Exporter | None = None
) -> Executable:
    """The executable of a module.

    Args:
        exporter: writes it to files later.
        make: gives the module; what it alone holds of its constants is freed as passes replace them.
    """
    cache = ObjectCache()
    done = lower(make, backend, options.winograd, options.check_indices, options.tuned)
    lowered = done.module
    plan = plan_memory(lowered)
    kernels = _make_kernels(lowered, backend, options)
    if config().verify >= 2 and not lowered.main.dims:
        check.check_equivalence(done.seen, lowered, {name: k.scheduled for name, k in kernels.items()})
    backend.build(list(kernels.values()), cache, _counter(options.progress, len(kernels)))
    program = make_program(done.interface, lowered, plan, kernels, options.flush_denormals)
    library = backend.link(program, list(kernels.values()), cache)
    stages = Stages({name: without_values(m) for name, m in done.seen.items()}, kernels, backend.views)
    return Executable(program, library, options.num_threads, stages, exporter)


def as_module(model: Any, inputs: Any) -> tuple[IRModule, dict[str, UserSchedule]]:
    """What is to be compiled, and the schedules that it brings along.

    Raises:
        UnsupportedError: nothing that can be compiled. TcompError: example inputs are missing.
    """
    if isinstance(model, IRModule):
        return model, {}
    if isinstance(model, PrimFunc):
        return module_of_kernel(model), {}
    if isinstance(getattr(model, "func", None), PrimFunc):
        return module_of_kernel(model.func), {model.func.name: model}
    trace = getattr(model, "__tcomp_trace__", None)
    if trace is None:
        raise UnsupportedError(
            f"cannot compile a {type(model).__name__}",
            hint="give an IRModule, a frontend Module, a PrimFunc, a Schedule, or an object with __tcomp_trace__(inputs)",
        )
    if inputs is None:
        raise TcompError("compile needs example inputs to trace this model", hint="compile(model, [x])")
    module = trace(list(inputs) if isinstance(inputs, (list, tuple)) else [inputs])
    if not isinstance(module, IRModule):
        raise UnsupportedError(
            f"__tcomp_trace__ of {type(model).__name__} returned a {type(module).__name__}, no IRModule"
        )
    return module, {}


def lower(
    make: Callable[[], IRModule],
    backend: Backend,
    winograd: bool,
    check_indices: bool = False,
    tuned: Records | None = None,
) -> Lowered:
    """A module with its kernels, not yet scheduled.

    Args:
        tuned: records that may say how weights lie.

    Raises:
        ShapeError: a constant holds indices that are out of range (where they are checked).
    """
    keep = config().verify >= 2
    seen: dict[str, IRModule] = {}

    def observe(name: str, now: IRModule) -> None:
        if name in SNAPSHOTS:
            seen[SNAPSHOTS[name]] = now if keep else without_values(now)

    module = make()
    verify(module)
    _refuse_unbounded(module)
    interface = interface_of(module, check_indices)
    seen["traced"] = module if keep else without_values(module)
    given = [with_fields(module, constants=dict(module.constants))]
    del module  # the passes alone hold it, and let go of it
    layout = backend.layout(winograd)
    if tuned is not None:
        layout = tuned.layout(layout)
    passes = pipeline(layout, ObjectCache(), fingerprint(), lets_go=not keep)
    lowered = passes.run(given.pop(), observe)
    trim()
    return Lowered(lowered, interface, seen)


def _refuse_unbounded(module: IRModule) -> None:
    """Raises UnsupportedError where an operator would have a symbolic extent without a bound: no workspace could be made for it."""
    if all(isinstance(b.call, FuncCall) for b in module.main.bindings):
        return
    for f in module.graphs:
        for v in (v for b in f.bindings for v in (*b.call.args, *b.results)):
            unbounded = [e for s in v.type.shape if not isinstance(s, int) for e in free_vars(s) - f.bounds.keys()]
            if unbounded:
                raise UnsupportedError(
                    f"cannot compile a model with symbolic extents that have no bound: {v.name} is {v.type}",
                    why=f"how much memory it takes depends on {unbounded[0].name}",
                    hint=f'GraphBuilder.dim("{unbounded[0].name}", max=...), or an integer',
                )


def _make_kernels(lowered: IRModule, backend: Backend, options: Options) -> dict[str, Kernel]:
    """The kernels of a lowered module, each with the schedule that the user gave for it, else that of a record, else the default one."""
    schedules = options.schedules
    unknown = schedules.keys() - lowered.kernels.keys()
    if unknown:
        names = ", ".join(lowered.kernels)
        raise TcompError(f"no kernel {sorted(unknown)[0]!r} to schedule", why=f"the kernels are {names}")
    asked: list[ScheduleSource] = [sources.UserSchedules(schedules)] if schedules else []
    asked += [options.tuned] if options.tuned is not None else []

    def found(f: PrimFunc) -> Any:
        return next((given for s in asked if (given := s.find(f, backend.target)) is not None), None)

    return {name: backend.kernel(f, found(f)) for name, f in lowered.kernels.items()}


def _counter(progress: Progress | None, total: int) -> Callable[[Kernel], None] | None:
    if progress is None:
        return None
    done: list[Kernel] = []

    def note(k: Kernel) -> None:
        done.append(k)
        progress(len(done), total, k.func.name)

    return note
