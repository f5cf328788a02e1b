"""Tensor expressions -> PrimFunc: one block a computation, loops in the order of its axes, reductions innermost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..analysis.bounds import Outside, accesses_outside
from ..errors import ExprError
from ..ir.expr import Add, Buffer, Expr, Load, Max, Min, Mul, Var
from ..ir.names import unique_name
from ..ir.node import rewrite, unique_nodes
from ..ir.primfunc import PrimFunc
from ..ir.printer import excerpt, text
from ..ir.query import MAX_NEST, free_vars, is_const
from ..ir.stmt import EMPTY, Attrs, Block, For, IterVar, Let, Stmt, Store, seq
from .parts import name_parts
from .scatter import COMBINE, Scatter
from .tensor import Computation, Compute, Reduce, Tensor, TensorLoad


def create_prim_func(tensors: Sequence[Tensor], name: str = "main", attrs: Attrs | None = None) -> PrimFunc:
    """A kernel that computes some tensors from others.

    Args:
        tensors: the kernel's parameters: placeholders, then the tensors to compute. Whatever lies between becomes an
            intermediate buffer. Symbolic extents of the shapes become int64 parameters behind the buffers.
        name: of the function.

    Raises:
        ExprError: no tensor to compute, an input follows an output, or a placeholder that is needed is not listed.
    """
    outputs = [t for t in tensors if t.op is not None]
    if not outputs:
        raise ExprError(f"{name}: nothing to compute: every tensor is a placeholder")
    if any(t.op is not None for t in tensors[: len(tensors) - len(outputs)]):
        raise ExprError(f"{name}: placeholders come first, computed tensors after them")
    stages = _stages(outputs)
    buffers = {t: _buffer(t) for t in tensors}
    allocs = []
    for _, results in stages:
        for t in results:
            if t not in buffers:
                buffers[t] = _buffer(t)
                allocs.append(buffers[t])
    _check_inputs(stages, buffers, name)
    names: set[str] = set()
    _check_results(outputs, name)
    body = seq([_stage(op, [buffers[t] for t in results], buffers, names) for op, results in stages]) or EMPTY
    dims = _dims([buffers[t] for t in tensors], allocs)
    func = PrimFunc(name, (*(buffers[t] for t in tensors), *dims), body, len(outputs), tuple(allocs), attrs or Attrs())
    for bad in accesses_outside(func):
        raise _outside(func, bad)
    return func


def _check_results(outputs: Sequence[Tensor], name: str) -> None:
    seen: set[tuple[Computation | None, int]] = set()
    for t in outputs:
        if (t.op, t.index) in seen:
            raise ExprError(
                f"{name}: tensor {t.name} is listed twice",
                why="each result has memory of its own, and is written once",
                hint=f"te.compute a copy of {t.name}",
            )
        seen.add((t.op, t.index))


def _outside(func: PrimFunc, bad: Outside) -> ExprError:
    def end(value: int | None) -> str:
        return "any value" if value is None else str(value)

    index, extent = bad.indices[bad.axis], bad.buffer.shape[bad.axis]
    shown = ", ".join(text(i) for i in bad.indices)
    return ExprError(
        f"{func.name}: {bad.block.name} accesses {bad.buffer.name}[{shown}], which is not inside {bad.buffer.name}",
        why=f"index {text(index)} of axis {bad.axis} may be from {end(bad.low)} to {end(bad.high)}, the extent is {text(extent)}",
        excerpt=excerpt(func, {bad.block: "this block"}),
        hint="guard it with te.if_then_else, or clamp it with te.minimum and te.maximum",
    )


def _buffer(t: Tensor) -> Buffer:
    return Buffer(t.name, t.shape, t.dtype)


def _dims(params: Sequence[Buffer], allocs: Sequence[Buffer]) -> list[Var]:
    found: dict[Var, None] = {}
    for b in (*params, *allocs):
        for e in b.shape:
            for v in sorted(free_vars(e), key=lambda v: v.name):
                found[v] = None
    return list(found)


def _loads(e: Expr) -> list[TensorLoad]:
    return [x for x in unique_nodes(e) if isinstance(x, TensorLoad)]


def _stages(outputs: Sequence[Tensor]) -> list[tuple[Computation, list[Tensor]]]:
    """The computations behind the outputs, producers first, with the tensors that each defines."""
    order: list[Computation] = []
    tensors: dict[Computation, dict[int, Tensor]] = {}
    done: set[Computation] = set()
    stack: list[tuple[Tensor, bool]] = [(t, False) for t in reversed(outputs)]
    while stack:
        t, ready = stack.pop()
        if t.op is None:
            continue
        tensors.setdefault(t.op, {})[t.index] = t
        if ready:
            if t.op not in done:
                done.add(t.op)
                order.append(t.op)
        elif t.op not in done:
            stack.append((t, True))
            stack.extend((load.tensor, False) for body in t.op.sources for load in reversed(_loads(body)))
    result = []
    for op in order:
        known = tensors[op]
        suffix = lambda i, op=op: op.name if len(op.dtypes) == 1 else f"{op.name}_{i}"
        result.append((op, [known.get(i) or Tensor(suffix(i), op.shape, d, op, i) for i, d in enumerate(op.dtypes)]))
    return result


def _check_inputs(stages: list[tuple[Computation, list[Tensor]]], buffers: dict[Tensor, Buffer], name: str) -> None:
    for op, _ in stages:
        for body in op.sources:
            for load in _loads(body):
                if load.tensor not in buffers:
                    raise ExprError(
                        f"{name}: {op.name} reads placeholder {load.tensor.name}, which is no parameter",
                        hint=f"list {load.tensor.name} among the tensors",
                    )


def _stage(op: Computation, out: list[Buffer], buffers: dict[Tensor, Buffer], names: set[str]) -> Stmt:
    """The loop nest of one computation."""
    if isinstance(op, Scatter):
        return _scatter(op, out[0], buffers, names)
    assert isinstance(op, Compute)
    spatial = [(axis, extent, "spatial") for axis, extent in zip(op.axes, op.shape)]
    is_empty = any(is_const(axis.extent, 0) for axis in op.reduce_axes)  # a sum of nothing is its first value
    axes = spatial + [(axis, axis.extent, "reduce") for axis in op.reduce_axes if not is_empty]
    if len(axes) > MAX_NEST:
        raise ExprError(f"{op.name}: {len(axes)} axes, where a kernel may have {MAX_NEST} loops one inside another")
    loops = [Var(axis.name) for axis, _, _ in axes]
    iters = [Var(f"v{axis.name}") for axis, _, _ in axes]
    inner = dict(zip((axis for axis, _, _ in axes), iters))

    def lower(e: Any) -> Any:
        if isinstance(e, TensorLoad):
            return Load(buffers[e.tensor], e.indices)
        return inner.get(e, e) if isinstance(e, Var) else e

    index = tuple(iters[: len(op.axes)])
    init = None
    if op.reduce_axes:
        init, body = _reduction(op, out, index, lower)
        init, body = (None, init) if is_empty else (init, body)
    else:
        named, bodies = name_parts(op.bodies, op.name)
        body = _with_names(named, lower, seq([Store(b, index, rewrite(e, lower)) for b, e in zip(out, bodies)]))
    domain = tuple(IterVar(v, extent, kind, loop) for v, (_, extent, kind), loop in zip(iters, axes, loops))
    return _nest(Block(unique_name(op.name, names), domain, body, init, annotations=op.annotations))


def _nest(block: Block) -> Stmt:
    """A block in its loops."""
    nest: Stmt = block
    for it in reversed(block.iters):
        assert isinstance(it.binding, Var)
        nest = For(it.binding, it.extent, nest)
    return nest


def _scatter(op: Scatter, out: Buffer, buffers: dict[Tensor, Buffer], names: set[str]) -> Stmt:
    """A copy of what it begins with, and the loops that change elements. An axis that is a place by itself leads each of its values to
    elements of its own; others may lead to one element several times, as those of a reduction do."""
    if len(op.axes) > MAX_NEST:
        raise ExprError(f"{op.name}: {len(op.axes)} axes, where a kernel may have {MAX_NEST} loops one inside another")
    point = tuple(Var(f"v{d}") for d in range(out.ndim))
    loops = tuple(Var(f"i{d}") for d in range(out.ndim))
    domain = tuple(IterVar(v, e, "spatial", loop) for v, e, loop in zip(point, out.shape, loops))
    start = Store(out, point, Load(buffers[op.base], point))
    copy = Block(unique_name(f"{op.name}_base", names), domain, start)
    alone = {p for p in op.places if isinstance(p, Var) and sum(p in free_vars(q) for q in op.places) == 1}
    own = {axis: Var(f"v{axis.name}") for axis in op.axes}

    def lower(e: Any) -> Any:
        if isinstance(e, TensorLoad):
            return Load(buffers[e.tensor], e.indices)
        return own.get(e, e) if isinstance(e, Var) else e

    named, (value,) = name_parts((op.value,), op.name)
    places = tuple(rewrite(p, lower) for p in op.places)
    changed = rewrite(value, lower)
    combine = COMBINE.get(op.combine)
    store = Store(out, places, combine(Load(out, places), changed) if combine else changed)
    iters = tuple(
        IterVar(own[axis], extent, "spatial" if axis in alone else "reduce", Var(axis.name))
        for axis, extent in zip(op.axes, op.domain)
    )
    body = _with_names(named, lower, store)
    change = Block(unique_name(op.name, names), iters, body, annotations=op.annotations)
    return seq([_nest(copy), _nest(change)])


def _reduction(op: Compute, out: list[Buffer], index: tuple[Expr, ...], lower: Any) -> tuple[Stmt, Stmt]:
    """The init and the update of a reduction."""
    first = op.bodies[0]
    assert isinstance(first, Reduce)
    named, parts = name_parts(first.sources, op.name)
    sources = tuple(rewrite(e, lower) for e in parts)
    types = tuple(e.dtype for e in sources)
    identity = first.reducer.identity(types)
    order = [b.index for b in op.bodies if isinstance(b, Reduce)]
    if order != list(range(len(sources))):
        raise ExprError(f"compute {op.name}: return all {len(sources)} results of {first.reducer.name}, in order")
    init = seq([Store(out[n], index, identity[i]) for n, i in enumerate(order)])
    held = tuple(Load(b, index) for b in out)
    old = tuple(Var(f"old{i}", t) for i, t in enumerate(types))
    values = tuple(Var(f"new{i}", t) for i, t in enumerate(types))
    combined = first.reducer.combine(old, values)
    if len(out) == 1 and _is_operation(combined[0], old[0], values[0]):
        return init, _with_names(named, lower, Store(out[0], index, first.reducer.combine(held, sources)[0]))
    # names tell accumulators and elements apart, and all results are computed from the old accumulators before one is stored
    results = tuple(Var(f"acc{i}", t) for i, t in enumerate(types)) if len(out) > 1 else ()
    body: Stmt = seq([Store(b, index, e) for b, e in zip(out, results or combined)])
    for v, e in reversed([*zip(old, held), *zip(values, sources), *zip(results, combined)]):
        body = Let(v, e, body)
    return init, _with_names(named, lower, body)


def _is_operation(e: Expr, a: Expr, b: Expr) -> bool:
    return isinstance(e, (Add, Mul, Min, Max)) and (e.a, e.b) in ((a, b), (b, a))


def _with_names(named: Sequence[tuple[Var, Expr]], lower: Any, body: Stmt) -> Stmt:
    for var, value in reversed(named):
        body = Let(var, rewrite(value, lower), body)
    return body
