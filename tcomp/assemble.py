"""A lowered module, its memory plan and its kernels -> the program that the runtime runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .codegen.build import Kernel, scratch_buffers
from .errors import ShapeError, UnsupportedError
from .ir.arith import simplify
from .ir.expr import Add, Call, Const, Expr, FloorDiv, FloorMod, Max, Min, Mul, Sub, Var
from .ir.graph import ConstRef, FuncCall, Operand, TensorType
from .ir.module import IRModule
from .ir.printer import text
from .ir.query import free_vars
from .passes import MemoryPlan, Slot
from .passes.indices import index_ranges
from .runtime.arguments import IndexCheck, Spec, first_outside
from .runtime.extents import Code, Extent
from .runtime.program import Argument, Copy, Launch, Program, Step


def make_program(
    module: IRModule,
    lowered: IRModule,
    plan: MemoryPlan,
    kernels: Mapping[str, Kernel],
    check_indices: bool,
    flush_denormals: bool,
) -> Program:
    """The program of a model.

    Args:
        module: as the user gave it; lowered: after all passes.

    Raises:
        ShapeError: a constant holds indices that are out of range.
        UnsupportedError: an extent cannot be computed when the model is called.
    """
    main = lowered.main
    dims = main.dims
    is_kernel = all(isinstance(b.call, FuncCall) for b in module.main.bindings)
    names = [r.name for r in main.results] if is_kernel else [f"result{i}" for i in range(len(main.results))]
    return Program(
        tuple(_spec(p.name, p.type, dims) for p in main.params),
        tuple(_spec(name, r.type, dims) for name, r in zip(names, main.results)),
        tuple(v.name for v in dims),
        tuple(lowered.constants[name] for name in plan.constants),
        _steps(lowered, plan, kernels),
        plan.arena_bytes,
        plan.total_bytes,
        module.main.num_calls,
        main.attrs.get("updates", ()),
        _index_checks(module) if check_indices else (),
        tuple(s for k in kernels.values() for s in _scratch(k, dims)) if dims and not main.bounds else (),
        flush_denormals,
        tuple(main.bounds.get(v, 0) for v in dims),
    )


def _steps(lowered: IRModule, plan: MemoryPlan, kernels: Mapping[str, Kernel]) -> tuple[Step, ...]:
    main = lowered.main
    count = len(main.params)
    steps: list[Step] = []

    def argument(x: Operand) -> Argument:
        return _argument(plan.slots[x], count)

    for b in main.bindings:
        if not isinstance(b.call, FuncCall):
            continue  # views share their argument's bytes
        kernel = kernels[b.call.callee]
        pointers = tuple(argument(x) for x in (*b.call.args, *b.results))
        extents = tuple(Argument("dims", main.dims.index(_plain_dim(e, b.call.callee))) for e in b.call.dims)
        work = kernel.func.attrs
        flops, nbytes = work.get("flops", 0), work.get("bytes", 0)
        steps.append(Launch(b.call.callee, kernel.symbol, pointers + extents, flops, nbytes, b.origin))
    for source, i, nbytes in plan.copies:
        size = nbytes if isinstance(nbytes, int) else _extent(simplify(nbytes), main.dims)
        steps.append(Copy(_argument(source, count), Argument("args", count + i), size))
    return tuple(steps)


def _plain_dim(e: Expr, callee: str) -> Var:
    if isinstance(e, Var):
        return e
    raise UnsupportedError(
        f"cannot call {callee} with the extent {text(e)}", why="so far an extent is passed on as it is"
    )


def _argument(slot: Slot, num_inputs: int) -> Argument:
    match slot.place:
        case "input":
            return Argument("args", slot.at)
        case "output":
            return Argument("args", num_inputs + slot.at)
        case "constant":
            return Argument("consts", slot.at)
        case "arena":
            return Argument("arena", slot.at)


def _index_checks(module: IRModule) -> tuple[IndexCheck, ...]:
    """The tests of inputs that are indices; constants are tested now."""
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


# symbolic extents as data


def _spec(name: str, t: TensorType, dims: Sequence[Var]) -> Spec:
    return Spec(name, tuple(e if isinstance(e, int) else _extent(e, dims) for e in t.shape), t.dtype.name)


def _scratch(kernel: Kernel, dims: Sequence[Var]) -> list[tuple[str, Extent]]:
    """The bytes of the buffers whose size is known only when the kernel is called."""
    found = [
        (name, _extent(nbytes, dims))
        for name, nbytes in scratch_buffers(kernel.lowered)
        if free_vars(nbytes) <= set(dims)
    ]
    return [(name, nbytes) for name, nbytes in found if isinstance(nbytes, Extent)]


_ARITHMETIC: dict[type, str] = {Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", Min: "min", Max: "max"}


def _extent(e: Expr, dims: Sequence[Var]) -> int | Extent:
    """An extent as data."""
    return int(e.value) if isinstance(e, Const) else Extent(text(e), _code(e, dims))


def _code(e: Any, dims: Sequence[Var]) -> Code:
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
