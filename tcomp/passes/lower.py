"""Fused graph functions -> PrimFuncs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import te
from ..ir.graph import Function, OpCall, Value
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.primfunc import PrimFunc
from ..ir.stmt import Attrs
from ..ops.registry import as_tuple, get


def lower_function(f: Function) -> PrimFunc:
    """The kernel of a fused group: the operators' tensor expressions, one after another.

    Its attributes tell the work: `flops`, `bytes` read and written at least once, and whether `flops` is `exact`: that of a product
    or a convolution, not a rough one of an elementwise operator.
    """
    tensors: dict[Value, te.Tensor] = {p: te.placeholder(p.type.shape, p.type.dtype, p.name) for p in f.params}
    flops, exact = 0, False
    for b in f.bindings:
        assert isinstance(b.call, OpCall)
        op = get(b.call.op)
        types = b.result.type if len(b.results) == 1 else tuple(r.type for r in b.results)
        made = as_tuple(op.compute([tensors[a] for a in b.call.args], b.call.attrs, types))
        tensors.update(zip(b.results, made))
        exact = exact or op.kind == "anchor"
        flops += op.flops([a.type for a in b.call.args], b.result.type, b.call.attrs)
    moved = sum(v.type.nbytes for v in (*f.params, *f.results))
    attrs = Attrs.of(flops=flops, bytes=moved, exact=exact)
    return te.create_prim_func([*(tensors[p] for p in f.params), *(tensors[r] for r in f.results)], f.name, attrs)


@dataclass(frozen=True)
class LowerToPrimFuncs:
    """Replace each fused group by its kernel."""

    requires: ClassVar[frozenset[str]] = frozenset({"fused"})
    ensures: ClassVar[frozenset[str]] = frozenset({"lowered"})

    def run(self, module: IRModule) -> IRModule:
        functions = {
            name: f if name == module.entry or isinstance(f, PrimFunc) else lower_function(f)
            for name, f in module.functions.items()
        }
        return with_fields(module, functions=functions)
