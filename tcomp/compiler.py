"""compile(): the whole way from a model to an Executable, written down in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .assemble import make_program
from .backends import backend_of
from .codegen.build import Kernel
from .codegen.cache import ObjectCache, fingerprint
from .config import config
from .errors import TcompError, UnsupportedError
from .importers import shapes_of, source_of
from .ir.graph import FuncCall
from .ir.module import IRModule, module_of_kernel
from .ir.primfunc import PrimFunc
from .ir.query import free_vars
from .ir.verify import verify
from .lazy import lazy_module
from .passes import SNAPSHOTS, pipeline, plan_memory
from .runtime.executable import Executable
from .specialized import specialize
from .stages import Stages
from .target import Target

if TYPE_CHECKING:
    from .backends import Backend
    from .schedule.source import ScheduleSource, UserSchedule

# what a model whose kernels are all in the cache does not need
sources = lazy_module("tcomp.schedule.source")
check = lazy_module("tcomp.passes.check")

Progress = Callable[[int, int, str], None]


def compile(
    model: Any,
    inputs: Any = None,
    target: str | Target = "cpu",
    *,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    shapes: Mapping[str, Sequence[Any]] | None = None,
    num_threads: int | None = None,
    schedules: Mapping[str, UserSchedule] | None = None,
    winograd: bool = True,
    check_indices: bool = True,
    denormals: Literal["keep", "flush"] = "keep",
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
        target: "cpu", or a text such as "llvm -mcpu=haswell -num-cores=4", or a Target.
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
        progress: called with (kernels done, kernels in all, name) while kernels are built.

    Returns:
        An Executable; a Specialized, which is called in the same way, where extents of a model from elsewhere stay open.

    Raises:
        TargetError: unknown target. UnsupportedError: the model has something that tcomp cannot compile.
        InternalError: a defect of tcomp; the message says how to replay it.
    """
    if denormals not in ("keep", "flush"):
        raise TcompError(f"denormals={denormals!r}", hint='"keep" or "flush"')
    backend = backend_of(Target.parse(target))
    source = source_of(model, inputs)
    if source is not None:
        again = partial(
            compile, target=target, num_threads=num_threads, schedules=schedules, winograd=winograd,
            check_indices=check_indices, denormals=denormals, progress=progress,
        )  # fmt: skip
        return specialize(source, shapes_of(source, inputs, dims, shapes), again, progress is not None)
    if dims is not None or shapes is not None:
        raise TcompError("dims= and shapes= are for models from elsewhere", hint="GraphBuilder.dim, or example inputs")
    module, own = _as_module(model, inputs)
    cache = ObjectCache()
    seen, lowered = _lower(module, backend, winograd, cache)
    plan = plan_memory(lowered)
    kernels = _make_kernels(lowered, backend, {**own, **(schedules or {})})
    if config().verify >= 2 and not module.main.dims:
        check.check_equivalence(seen, lowered, {name: k.scheduled for name, k in kernels.items()})
    backend.build(list(kernels.values()), cache, _counter(progress, len(kernels)))
    program = make_program(module, lowered, plan, kernels, check_indices, denormals == "flush")
    library = backend.link(program, list(kernels.values()), cache)
    return Executable(program, library, num_threads, Stages(seen, kernels, backend.views))


def workspace_bytes(model: Any, inputs: Any = None, target: str | Target = "cpu", *, winograd: bool = True) -> int:
    """The bytes of the workspace that a compiled model will need, without generating its code; arguments as for `compile`."""
    module, _ = _as_module(model, inputs)
    lowered = _lower(module, backend_of(Target.parse(target)), winograd, ObjectCache())[1]
    return plan_memory(lowered).arena_bytes


def _as_module(model: Any, inputs: Any) -> tuple[IRModule, dict[str, UserSchedule]]:
    """What is to be compiled, and the schedules that it brings along."""
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


def _lower(
    module: IRModule, backend: Backend, winograd: bool, cache: ObjectCache
) -> tuple[dict[str, IRModule], IRModule]:
    """The stages of a module on its way, and its kernels, not yet scheduled."""
    verify(module)
    _refuse_unbounded(module)
    seen = {"traced": module}

    def observe(name: str, now: IRModule) -> None:
        if name in SNAPSHOTS:
            seen[SNAPSHOTS[name]] = now

    return seen, pipeline(backend.layout(winograd), cache, fingerprint()).run(module, observe)


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


def _make_kernels(lowered: IRModule, backend: Backend, schedules: Mapping[str, UserSchedule]) -> dict[str, Kernel]:
    """The kernels of a lowered module, each with the schedule that the user gave for it, else the default one."""
    unknown = schedules.keys() - lowered.kernels.keys()
    if unknown:
        names = ", ".join(lowered.kernels)
        raise TcompError(f"no kernel {sorted(unknown)[0]!r} to schedule", why=f"the kernels are {names}")
    given: ScheduleSource | None = sources.UserSchedules(schedules) if schedules else None
    found = {name: None if given is None else given.find(f, backend.target) for name, f in lowered.kernels.items()}
    return {name: backend.kernel(f, found[name]) for name, f in lowered.kernels.items()}


def _counter(progress: Progress | None, total: int) -> Callable[[Kernel], None] | None:
    if progress is None:
        return None
    done: list[Kernel] = []

    def note(k: Kernel) -> None:
        done.append(k)
        progress(len(done), total, k.func.name)

    return note
