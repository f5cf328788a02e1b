"""compile(): the whole way from a model to an Executable, written down in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .codegen.assembly import assembly_facts
from .codegen.build import Kernel, build_all, cached_object, make_kernel
from .codegen.cache import ObjectCache, fingerprint
from .codegen.steps import Argument, Copy, KernelCall
from .config import config
from .errors import ShapeError, TcompError, UnsupportedError
from .ir.expr import Add, Call, Const, Expr, FloorDiv, FloorMod, Max, Min, Mul, Sub, Var
from .ir.graph import ConstRef, FuncCall, Operand, TensorType
from .ir.module import IRModule
from .ir.primfunc import PrimFunc
from .ir.printer import text
from .ir.query import free_vars
from .ir.verify import verify
from .lazy import lazy_module
from .passes import GRAPH, LOWER, FuseOps, MemoryPlan, PackWeights, Pipeline, Slot, plan_memory
from .passes.indices import index_ranges
from .runtime.arguments import IndexCheck, Spec, first_outside
from .runtime.device.cpu import load_objects
from .runtime.executable import Executable, KernelInfo, Program
from .runtime.extents import Code, Extent
from .target import Target
from .workers import helpers, scheduler, told

if TYPE_CHECKING:
    from .schedule import Schedule
    from .schedule.source import Found, ScheduleSource, UserSchedule

# what a model whose kernels are all in the cache does not need
llvm_entry = lazy_module("tcomp.codegen.llvm.entry")
scheduling = lazy_module("tcomp.schedule")
sources = lazy_module("tcomp.schedule.source")

layouts = lazy_module("tcomp.schedule.rules.cpu.layout")
check = lazy_module("tcomp.passes.check")

Progress = Callable[[int, int, str], None]
STAGES = ("graph", "fused", "loops", "scheduled", "schedule", "llvm", "asm", "explain")


def compile(
    model: Any,
    inputs: Any = None,
    target: str | Target = "cpu",
    *,
    num_threads: int | None = None,
    schedules: Mapping[str, UserSchedule] | None = None,
    winograd: bool = True,
    check_indices: bool = True,
    denormals: Literal["keep", "flush"] = "keep",
    progress: Progress | None = None,
) -> Executable:
    """Compile a model for a target.

    Args:
        model: an IRModule; an object with `__tcomp_trace__(inputs) -> IRModule`, such as a `frontend` Module; a PrimFunc;
            or a Schedule, whose kernel is compiled as it stands.
        inputs: example arrays for a model that is traced.
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

    Raises:
        TargetError: unknown target. UnsupportedError: the model has something that tcomp cannot compile.
        InternalError: a defect of tcomp; the message says how to replay it.
    """
    chosen = Target.parse(target)
    if denormals not in ("keep", "flush"):
        raise TcompError(f"denormals={denormals!r}", hint='"keep" or "flush"')
    if isinstance(model, PrimFunc) or isinstance(getattr(model, "func", None), PrimFunc):
        return _compile_kernel(model, chosen, num_threads, denormals)
    module = _as_module(model, inputs)
    cache = ObjectCache()
    seen, lowered = _lower(module, chosen, winograd, cache)
    plan = plan_memory(lowered.main)
    kernels = _make_kernels(lowered, chosen, schedules or {})
    if config().verify >= 2:
        check.check_equivalence(seen, lowered, {name: k.scheduled for name, k in kernels.items()})
    done: list[str] = []

    def note(k: Kernel) -> None:
        done.append(k.func.name)
        if progress is not None:
            progress(len(done), len(kernels), k.func.name)

    build_all(list(kernels.values()), cache, note, helpers)
    calls, infos = _calls(lowered, plan, kernels)
    objects = dict.fromkeys(k.object_code for k in kernels.values())
    library = load_objects([*objects, _entry_object(calls, chosen, cache, denormals)])
    main = lowered.main
    program = Program(
        tuple(_spec(p.name, p.type) for p in main.params),
        tuple(_spec(f"result{i}", r.type) for i, r in enumerate(main.results)),
        (),
        tuple(lowered.constants[name] for name in plan.constants),
        infos,
        plan.arena_bytes,
        plan.total_bytes,
        module.main.num_calls,
        _stages(seen, lowered, kernels),
        main.attrs.get("updates", ()),
        _index_checks(module) if check_indices else (),
    )
    return Executable(program, library, num_threads, lacking=chosen.missing_here())


def _index_checks(module: IRModule) -> tuple[IndexCheck, ...]:
    """The tests of inputs that are places; constants are tested now."""
    numbers = {p: i for i, p in enumerate(module.main.params)}
    checks = []
    for r in index_ranges(module):
        if isinstance(r.source, ConstRef):
            array = module.constants[r.source.name]
            place = first_outside(array, r.low, r.high)
            if place is not None:
                raise ShapeError(
                    f"constant {r.source.name} holds {array[place]} at {list(place)}",
                    why=f"{r.reader} needs {r.low} <= place <= {r.high} there",
                )
        elif r.source in numbers:
            checks.append(IndexCheck(numbers[r.source], r.low, r.high, r.reader))
    return tuple(checks)


def workspace(model: Any, inputs: Any = None, target: str | Target = "cpu", *, winograd: bool = True) -> int:
    """The bytes of the workspace that a compiled model will need, without generating its code; arguments as for `compile`."""
    lowered = _lower(_as_module(model, inputs), Target.parse(target), winograd, ObjectCache())[1]
    return plan_memory(lowered.main).arena_bytes


def _lower(
    module: IRModule, target: Target, winograd: bool, cache: ObjectCache
) -> tuple[dict[str, IRModule], IRModule]:
    """The stages of a module on its way, and its kernels, not yet scheduled."""
    verify(module)
    _refuse_symbolic(module)
    seen = {"traced": module}
    graph = GRAPH.run(module)
    graph = seen["graph"] = Pipeline((packing(target, winograd),), graph.facts).run(graph)
    fused = seen["fused"] = Pipeline((FuseOps(store=cache, version=fingerprint()),)).run(graph)
    return seen, LOWER.run(fused)


def _refuse_symbolic(module: IRModule) -> None:
    """Raises UnsupportedError where a whole model has an extent that is not known yet."""
    main = module.main
    for v in (*main.params, *(r for b in main.bindings for r in b.results)):
        open_axes = [str(e) for e in v.type.shape if not isinstance(e, int)]
        if open_axes:
            raise UnsupportedError(
                f"cannot compile a model with symbolic extents: {v.name} is {v.type}",
                why=f"{open_axes[0]} is not known when compiling; so far only single kernels (te.create_prim_func) may have such extents",
                hint="give all extents as integers",
            )


def packing(target: Target, winograd: bool = True) -> PackWeights:
    """The pass that lays weights out as the target's rules want them."""
    return PackWeights(layouts.CpuLayout(target, winograd))


def _entry_object(steps: list[KernelCall | Copy], target: Target, cache: ObjectCache, denormals: str) -> bytes:
    make_text = lambda: llvm_entry.entry_module(steps, denormals == "flush")
    return cached_object(f"{steps!r}|{denormals}", make_text, target, cache)


def _as_module(model: Any, inputs: Any) -> IRModule:
    if isinstance(model, IRModule):
        return model
    trace = getattr(model, "__tcomp_trace__", None)
    if trace is None:
        raise UnsupportedError(
            f"cannot compile a {type(model).__name__}",
            hint="give an IRModule, a frontend Module, a PrimFunc, or an object with __tcomp_trace__(inputs)",
        )
    if inputs is None:
        raise TcompError("compile needs example inputs to trace this model", hint="compile(model, [x])")
    module = trace(list(inputs) if isinstance(inputs, (list, tuple)) else [inputs])
    if not isinstance(module, IRModule):
        raise UnsupportedError(
            f"__tcomp_trace__ of {type(model).__name__} returned a {type(module).__name__}, no IRModule"
        )
    return module


def _spec(name: str, t: TensorType) -> Spec:
    return Spec(name, t.shape, t.dtype.name)


def _make_kernels(lowered: IRModule, target: Target, schedules: Mapping[str, UserSchedule]) -> dict[str, Kernel]:
    functions = {name: f for name, f in lowered.functions.items() if isinstance(f, PrimFunc)}
    unknown = schedules.keys() - functions.keys()
    if unknown:
        raise TcompError(f"no kernel {sorted(unknown)[0]!r} to schedule", why=f"the kernels are {', '.join(functions)}")
    given: ScheduleSource | None = sources.UserSchedules(schedules) if schedules else None
    kernels = {}
    for name, f in functions.items():
        found = given.find(f, target) if given is not None else None
        kernels[name] = make_kernel(f, target, scheduler(target)) if found is None else _fixed_kernel(f, found, target)
    return kernels


def _fixed_kernel(func: PrimFunc, found: Found, target: Target) -> Kernel:
    return make_kernel(func, target, lambda _: told(found), f"given\n{text(found.schedule.func)}")


def _argument(slot: Slot, num_inputs: int) -> Argument:
    match slot.place:
        case "input":
            return Argument("args", slot.at)
        case "output":
            return Argument("args", num_inputs + slot.at)
        case "constant":
            return Argument("consts", slot.at)
        case _:
            return Argument("arena", slot.at)


def _calls(
    lowered: IRModule, plan: MemoryPlan, kernels: Mapping[str, Kernel]
) -> tuple[list[KernelCall | Copy], tuple[KernelInfo, ...]]:
    """The steps of the entry function, and what profile() tells of each."""
    main = lowered.main
    count = len(main.params)
    steps: list[KernelCall | Copy] = []
    infos: list[KernelInfo] = []

    def argument(x: Operand) -> Argument:
        return _argument(plan.slots[x], count)

    for b in main.bindings:
        if not isinstance(b.call, FuncCall):
            continue  # views share their argument's bytes
        kernel = kernels[b.call.callee]
        arguments = tuple(argument(x) for x in (*b.call.args, *b.results))
        steps.append(KernelCall(kernel.symbol, arguments))
        work = kernel.func.attrs
        infos.append(
            KernelInfo(
                b.call.callee,
                kernel.symbol,
                tuple((a.kind, a.index) for a in arguments),
                work.get("flops", 0),
                work.get("bytes", 0),
            )
        )
    for source, i, nbytes in plan.copies:
        steps.append(Copy(_argument(source, count), Argument("args", count + i), nbytes))
    return steps, tuple(infos)


def _stages(seen: Mapping[str, IRModule], lowered: IRModule, kernels: Mapping[str, Kernel]) -> Callable[..., str]:
    def show(stage: str, kernel: str | None = None) -> str:
        if stage not in STAGES:
            raise TcompError(f"no stage {stage!r}", hint=f"one of {', '.join(STAGES)}")
        if kernel is not None and kernel not in kernels:
            raise TcompError(f"no kernel {kernel!r}", why=f"the kernels are {', '.join(kernels)}")
        if stage in ("graph", "fused"):
            module = seen[stage]
            return text(module.functions[kernel] if kernel and stage == "fused" else module)
        chosen = [kernels[kernel]] if kernel else list(kernels.values())
        views: dict[str, Callable[[Kernel], str]] = {
            "loops": lambda k: text(k.func),
            "scheduled": lambda k: f"# rule: {k.made.rule}\n{text(k.scheduled)}",
            "schedule": lambda k: k.made.schedule,
            "llvm": lambda k: k.llvm_text,
            "asm": lambda k: k.assembly(),
            "explain": _explain,
        }
        return "\n\n".join(views[stage](k) for k in chosen)

    return show


def _explain(k: Kernel) -> str:
    """Which schedule a kernel got, what it costs by arithmetic, and what its assembly looks like."""
    lines = [f"kernel {k.func.name} for {k.target}", f"rule: {k.made.rule}"]
    lines += [f"    {line}" for line in k.made.plan.splitlines()]
    if k.func.dims:
        lines.append(f"extents {', '.join(v.name for v in k.func.dims)} are known only when it runs")
    else:
        cost = scheduling.Schedule(k.scheduled).estimate(target=k.target)
        lines.append(str(cost))
        needed = k.func.attrs.get("flops", 0) if k.func.attrs.get("exact") else 0
        if 0 < needed < cost.flops:
            lines.append(f"{100 * (1 - needed / cost.flops):.1f} % of its operations fill up tiles and borders")
        elif needed > cost.flops:
            lines.append(f"its algorithm saves {100 * (1 - cost.flops / needed):.1f} % of the direct way's operations")
    return "\n".join([*lines, str(assembly_facts(k.assembly()))])


def _compile_kernel(model: PrimFunc | Schedule, target: Target, num_threads: int | None, denormals: str) -> Executable:
    """A single kernel, with symbolic extents passed at run time."""
    if not isinstance(model, PrimFunc):
        func = model.func
        kernel = _fixed_kernel(func, sources.Found(model, "given"), target)
    else:
        func = model
        verify(func)
        kernel = make_kernel(func, target, scheduler(target))
    cache = ObjectCache()
    build_all([kernel], cache)
    arguments = [Argument("args", i) for i in range(len(func.buffers))]
    arguments += [Argument("dims", i) for i in range(len(func.dims))]
    call = KernelCall(kernel.symbol, tuple(arguments))
    library = load_objects([kernel.object_code, _entry_object([call], target, cache, denormals)])
    info = KernelInfo(
        func.name,
        kernel.symbol,
        tuple((a.kind, a.index) for a in arguments),
        func.attrs.get("flops", 0),
        func.attrs.get("bytes", 0),
    )

    def spec(b: Any) -> Spec:
        return Spec(b.name, tuple(_extent(e, func.dims) for e in b.shape), b.dtype.name)

    program = Program(
        tuple(spec(b) for b in func.inputs),
        tuple(spec(b) for b in func.outputs),
        tuple(v.name for v in func.dims),
        (),
        (info,),
        0,
        0,
        1,
        _stages({}, IRModule({}), {func.name: kernel}),
        scratch=_scratch(kernel, func.dims) if func.dims else (),
    )
    return Executable(program, library, num_threads, lacking=target.missing_here())


def _scratch(kernel: Any, dims: Sequence[Var]) -> tuple[tuple[str, Extent], ...]:
    """The bytes of the buffers whose size is known only when the kernel is called."""
    found = [(name, _extent(nbytes, dims)) for name, nbytes in kernel.scratch() if free_vars(nbytes) <= set(dims)]
    return tuple((name, nbytes) for name, nbytes in found if isinstance(nbytes, Extent))


_ARITHMETIC = {Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", Min: "min", Max: "max"}


def _extent(e: Expr, dims: Sequence[Var]) -> int | Extent:
    """An extent as data."""
    return int(e.value) if isinstance(e, Const) else Extent(text(e), _code(e, dims))


def _code(e: Expr, dims: Sequence[Var]) -> Code:
    match e:
        case Const():
            return int(e.value)
        case Var():
            return ("dim", dims.index(e))
        case Call(op="neg", args=(a,)):
            return ("-", 0, _code(a, dims))
        case _ if type(e) in _ARITHMETIC:
            return (_ARITHMETIC[type(e)], _code(e.a, dims), _code(e.b, dims))
    raise UnsupportedError(
        f"cannot compute the extent {text(e)} when the kernel is called", hint="+, -, *, //, %, min, max"
    )
