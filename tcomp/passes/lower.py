"""Fused graph functions -> PrimFuncs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

from .. import te
from ..ir.graph import Binding, FuncCall, Function, OpCall, Operand
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.primfunc import PrimFunc
from ..ir.stmt import Attrs
from ..ops.registry import as_tuple, get, symbolic


def lower_function(f: Function) -> PrimFunc:
    """The kernel of a fused group: the operators' tensor expressions, one after another.

    Its attributes tell the work: `flops`, `bytes` read and written at least once, and whether `flops` is `exact`: that of a product
    or a convolution, not a rough one of an elementwise operator. Symbolic extents count with their largest values.
    """
    tensors: dict[Operand, te.Tensor] = {p: te.placeholder(p.type.shape, p.type.dtype, p.name) for p in f.params}
    flops, exact, largest = 0, False, f.bounds
    for b in f.bindings:
        assert isinstance(b.call, OpCall)
        op = get(b.call.op)
        types = b.result.type if len(b.results) == 1 else tuple(r.type for r in b.results)
        with symbolic(b.call.op) if f.dims else nullcontext():
            made = as_tuple(op.compute([tensors[a] for a in b.call.args], b.call.attrs, types))
        tensors.update(zip(b.results, made))
        exact = exact or op.kind == "anchor"
        flops += op.flops([a.type.at(largest) for a in b.call.args], b.result.type.at(largest), b.call.attrs)
    moved = sum(v.type.at(largest).nbytes for v in (*f.params, *f.results))
    attrs = Attrs.of(flops=flops, bytes=moved, exact=exact)
    with symbolic(f.name) if f.dims else nullcontext():
        func = te.create_prim_func([*(tensors[p] for p in f.params), *(tensors[r] for r in f.results)], f.name, attrs)
    bounds = tuple(largest[v] for v in func.dims)
    return with_fields(func, attrs=attrs.with_(dim_max=bounds)) if bounds else func


@dataclass(frozen=True)
class LowerToPrimFuncs:
    """Replace each fused group by its kernel."""

    requires: ClassVar[frozenset[str]] = frozenset({"fused"})
    ensures: ClassVar[frozenset[str]] = frozenset({"lowered"})

    def run(self, module: IRModule) -> IRModule:
        groups = {b.call.callee for b in module.main.bindings if isinstance(b.call, FuncCall)}
        functions = {
            name: lower_function(f) if name in groups and isinstance(f, Function) else f
            for name, f in module.functions.items()
        }
        calls = tuple(self.passes_extents(b, module, functions) for b in module.main.bindings)
        return with_fields(module, functions={**functions, module.entry: with_fields(module.main, bindings=calls)})

    def passes_extents(self, b: Binding, module: IRModule, functions: Mapping[str, Function | PrimFunc]) -> Binding:
        """A call with its symbolic extents in the order in which the kernel has them."""
        if not isinstance(b.call, FuncCall) or not b.call.dims:
            return b
        group, kernel = module.functions[b.call.callee], functions[b.call.callee]
        given = dict(zip(group.dims, b.call.dims))
        return with_fields(b, call=with_fields(b.call, dims=tuple(given[v] for v in kernel.dims)))
