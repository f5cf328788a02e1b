"""Constant folding, dead code and common subexpressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..ir.graph import Binding, ConstRef, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ops.reference import evaluate_call
from ..ops.registry import as_tuple
from .rewriter import Rewriter, rule


@rule()
def fold_constant(g: Rewriter, call: OpCall, type_: TensorType) -> Any:
    """A call whose arguments are all constants is computed now, by the operator's NumPy reference."""
    arrays = [g.array(a) for a in call.args]
    types = as_tuple(type_)
    if any(a is None for a in arrays) or sum(t.nbytes for t in types) > FoldConstants.max_bytes:
        return None
    if call.op == "broadcast_to" and call.args[0].type.size == 1 and types[0].nbytes > FoldConstants.max_spread:
        return None
    with np.errstate(all="ignore"):
        values = [np.asarray(v).astype(t.dtype.numpy, copy=False) for v, t in zip(evaluate_call(call, arrays), types)]
    made = tuple(g.constant(v, f"{call.args[0].name}_{call.op}") for v in values)
    return made[0] if len(made) == 1 else made


@dataclass(frozen=True)
class FoldConstants:
    """Compute what depends on constants alone.

    Attributes:
        max_bytes: larger results are left to run time; max_spread: so are copies of one element, which kernels read where it is.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int] = 1 << 30
    max_spread: ClassVar[int] = 1 << 12

    def run(self, module: IRModule) -> IRModule:
        return Rewriter(module, (fold_constant,)).run()


@dataclass(frozen=True)
class EliminateDeadCode:
    """Drop bindings and constants that no result depends on."""

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        live: set[Operand] = set(main.results)
        kept: list[Binding] = []
        for b in reversed(main.bindings):
            if any(r in live for r in b.results):
                kept.append(b)
                live.update(b.call.args)
        constants = {r.name for r in live if isinstance(r, ConstRef)}
        inner = {a.name for f in module.functions.values() if f is not main for a in _constants_of(f)}
        used = {k: v for k, v in module.constants.items() if k in constants or k in inner}
        if len(kept) == len(main.bindings) and len(used) == len(module.constants):
            return module
        return module.with_main(with_fields(main, bindings=tuple(reversed(kept))), used)


def _constants_of(f: Any) -> list[ConstRef]:
    used = [a for b in getattr(f, "bindings", ()) for a in b.call.args]
    return [a for a in (*used, *getattr(f, "results", ())) if isinstance(a, ConstRef)]


@dataclass(frozen=True)
class EliminateCommonSubexpressions:
    """Compute equal calls once."""

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        mapping: dict[Operand, Operand] = {}
        seen: dict[Any, tuple[Value, ...]] = {}
        kept: list[Binding] = []
        for b in main.bindings:
            args = tuple(mapping.get(a, a) for a in b.call.args)
            if not isinstance(b.call, OpCall):
                kept.append(with_fields(b, call=with_fields(b.call, args=args)))
                continue
            key = (b.call.op, args, b.call.attrs)
            if key in seen:
                mapping.update(zip(b.results, seen[key]))
                continue
            seen[key] = b.results
            same = all(x is y for x, y in zip(args, b.call.args))
            kept.append(b if same else with_fields(b, call=with_fields(b.call, args=args)))
        if not mapping:
            return module
        results = tuple(mapping.get(r, r) for r in main.results)
        return module.with_main(with_fields(main, bindings=tuple(kept), results=results))
