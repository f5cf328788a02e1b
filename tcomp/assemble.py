"""A lowered module, its memory plan and its kernels -> the program that the runtime runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from .codegen.build import Kernel, scratch_buffers
from .codegen.extents import extent_of
from .errors import ShapeError, UnsupportedError
from .ir.arith import simplify
from .ir.expr import Expr, Var
from .ir.graph import Binding, Cond, ConstRef, FuncCall, Function, OpCall, Operand, Scan, TensorType
from .ir.module import IRModule
from .ir.printer import text
from .ir.query import free_vars
from .passes import MemoryPlan, Slot
from .passes.indices import index_ranges
from .passes.plan import Move
from .runtime.arguments import IndexCheck, Spec, first_outside
from .runtime.extents import Extent
from .runtime.program import Argument, Branch, Clear, Copy, Launch, Loop, Program, Step


@dataclass(frozen=True)
class Interface:
    """What a program takes from the model as the user gave it.

    Attributes:
        results: names of the results. num_calls: calls of operators. checks: of inputs that serve as places.
    """

    results: tuple[str, ...]
    num_calls: int
    checks: tuple[IndexCheck, ...]


def interface_of(module: IRModule, check_indices: bool) -> Interface:
    """
    Raises:
        ShapeError: a constant holds indices that are out of range.
    """
    main = module.main
    is_kernel = all(isinstance(b.call, FuncCall) for b in main.bindings)
    numbered = [r.name if is_kernel else f"result{i}" for i, r in enumerate(main.results)]
    return Interface(
        tuple(main.attrs.get("result_names", numbered)),
        sum(f.num_calls for f in module.graphs),
        _index_checks(module) if check_indices else (),
    )


def make_program(
    interface: Interface,
    lowered: IRModule,
    plan: MemoryPlan,
    kernels: Mapping[str, Kernel],
    flush_denormals: bool,
) -> Program:
    """The program of a model.

    Args:
        lowered: the module after all passes.

    Raises:
        UnsupportedError: an extent cannot be computed when the model is called.
    """
    main = lowered.main
    dims = main.dims
    count = len(main.params)
    args = tuple(Argument("args", i) for i in range(count + len(main.results)))
    frame = _Frame(main, plan, args[:count], args[count:])
    return Program(
        tuple(_spec(p.name, p.type, dims) for p in main.params),
        tuple(_spec(name, r.type, dims) for name, r in zip(interface.results, main.results)),
        tuple(v.name for v in dims),
        tuple(lowered.constants[name] for name in plan.constants),
        _Assembler(lowered, kernels).steps(frame),
        plan.arena_bytes,
        plan.total_bytes,
        interface.num_calls,
        main.attrs.get("updates", ()),
        interface.checks,
        tuple(s for k in kernels.values() for s in _scratch(k, dims)) if dims and not main.bounds else (),
        flush_denormals,
        tuple(main.bounds.get(v, 0) for v in dims),
    )


@dataclass(frozen=True)
class _Frame:
    """Where a graph function runs: what stands for its inputs and results, where its region of the arena begins, in how many loops."""

    func: Function
    plan: MemoryPlan
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    region: int = 0
    depth: int = 0

    def argument(self, slot: Slot) -> Argument:
        match slot.place:
            case "input":
                return self.inputs[slot.at]
            case "output":
                return self.outputs[slot.at]
            case "constant":
                return Argument("consts", slot.at)
            case "arena":
                return Argument("arena", self.region + slot.at)
            case _:
                assert_never(slot.place)

    def of(self, x: Operand) -> Argument:
        return self.argument(self.plan.slots[x])

    def nbytes(self, e: int | Expr) -> int | Extent:
        return e if isinstance(e, int) else extent_of(simplify(e), self.func.dims)


class _Assembler:
    """Writes down the steps of a lowered module."""

    def __init__(self, module: IRModule, kernels: Mapping[str, Kernel]) -> None:
        self.module = module
        self.kernels = kernels

    def steps(self, frame: _Frame) -> tuple[Step, ...]:
        """The steps of a function."""

        def moves(group: Sequence[Move]) -> list[Step]:
            return [Copy(frame.argument(a), frame.argument(b), frame.nbytes(n)) for a, b, n in group]

        steps = moves(frame.plan.before)
        for b in frame.func.bindings:
            match b.call:
                case FuncCall():
                    steps.append(self.launch(frame, b, b.call))
                case Scan():
                    steps += self.scan(frame, b, b.call)
                case Cond():
                    then, orelse = (self.body(frame, b, name) for name in b.call.bodies)
                    steps.append(Branch(frame.of(b.call.args[0]), then, orelse))
                case OpCall():
                    pass  # views share their argument's bytes
                case _:
                    assert_never(b.call)
        return (*steps, *moves(frame.plan.after))

    def launch(self, frame: _Frame, b: Binding, call: FuncCall) -> Launch:
        kernel = self.kernels[call.callee]
        pointers = tuple(frame.of(x) for x in (*call.args, *b.results))
        extents = tuple(Argument("dims", frame.func.dims.index(_plain_dim(e, call.callee))) for e in call.dims)
        work = kernel.func.attrs
        flops, nbytes = work.get("flops", 0), work.get("bytes", 0)
        return Launch(call.callee, kernel.symbol, pointers + extents, flops, nbytes, b.origin)

    def body(self, frame: _Frame, b: Binding, name: str) -> tuple[Step, ...]:
        """The steps of a function that a cond runs."""
        assert isinstance(b.call, Cond)
        inputs, outputs = tuple(map(frame.of, b.call.inputs)), tuple(map(frame.of, b.results))
        return self.steps(self.inside(frame, b, name, inputs, outputs, frame.depth))

    def scan(self, frame: _Frame, b: Binding, call: Scan) -> list[Step]:
        """Carried tensors live where the last ones will be found; rows are addresses that move from trip to trip."""
        carried, stacked = b.results[: call.num_carried], b.results[call.num_carried :]

        def row(x: Operand) -> Argument:
            at = frame.of(x)
            return Argument(at.kind, at.index, (*at.strides, (frame.depth, frame.nbytes(x.type.row.nbytes))))

        held = tuple(map(frame.of, carried))
        inputs = (*held, *map(row, call.scanned), *map(frame.of, call.captured))
        inner = self.inside(frame, b, call.body, inputs, (*held, *map(row, stacked)), frame.depth + 1)
        count = frame.of(call.args[-1]) if call.has_count else None
        steps: list[Step] = [
            Copy(frame.of(a), at, frame.nbytes(a.type.nbytes)) for a, at in zip(call.args, held) if frame.of(a) != at
        ]
        if call.has_count:
            steps += [Clear(frame.of(r), frame.nbytes(r.type.nbytes)) for r in stacked]
        return [*steps, Loop(frame.nbytes(call.length), self.steps(inner), call.reverse, count)]

    def inside(
        self,
        frame: _Frame,
        b: Binding,
        name: str,
        inputs: tuple[Argument, ...],
        outputs: tuple[Argument, ...],
        depth: int,
    ) -> _Frame:
        region = frame.region + frame.plan.regions[b]
        return _Frame(self.module.graph(name), frame.plan.bodies[name], inputs, outputs, region, depth)


def _plain_dim(e: Expr, callee: str) -> Var:
    if isinstance(e, Var):
        return e
    raise UnsupportedError(
        f"cannot call {callee} with the extent {text(e)}", why="so far an extent is passed on as it is"
    )


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
    return Spec(name, tuple(e if isinstance(e, int) else extent_of(e, dims) for e in t.shape), t.dtype.name)


def _scratch(kernel: Kernel, dims: Sequence[Var]) -> list[tuple[str, Extent]]:
    """The bytes of the buffers whose size is known only when the kernel is called."""
    found = [
        (name, extent_of(nbytes, dims))
        for name, nbytes in scratch_buffers(kernel.lowered)
        if free_vars(nbytes) <= set(dims)
    ]
    return [(name, nbytes) for name, nbytes in found if isinstance(nbytes, Extent)]
