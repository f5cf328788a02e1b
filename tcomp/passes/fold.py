"""Constant folding, dead code and common subexpressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..ir.graph import Binding, ConstRef, FuncCall, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ops.reference import evaluate_call
from .rewriter import Rewriter


def fold_constant(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A call whose arguments are all constants is computed now, by the operator's NumPy reference."""
    arrays = [g.array(a) for a in call.args]
    if any(a is None for a in arrays) or type_.nbytes > FoldConstants.max_bytes:
        return None
    with np.errstate(all="ignore"):
        value = np.asarray(evaluate_call(call, arrays)).astype(type_.dtype.numpy, copy=False)
    return g.constant(value, f"{call.args[0].name}_{call.op}")


@dataclass(frozen=True)
class FoldConstants:
    """Compute what depends on constants alone.

    Attributes:
        max_bytes: larger results are left to run time.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int] = 1 << 30

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
    return [a for b in getattr(f, "bindings", ()) for a in b.call.args if isinstance(a, ConstRef)]


@dataclass(frozen=True)
class EliminateCommonSubexpressions:
    """Compute equal calls once."""

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        mapping: dict[Operand, Operand] = {}
        seen: dict[Any, Value] = {}
        kept: list[Binding] = []
        for b in main.bindings:
            args = tuple(mapping.get(a, a) for a in b.call.args)
            if isinstance(b.call, FuncCall):
                kept.append(with_fields(b, call=with_fields(b.call, args=args)))
                continue
            key = (b.call.op, args, b.call.attrs)
            if key in seen:
                mapping[b.result] = seen[key]
                continue
            seen[key] = b.result
            same = all(x is y for x, y in zip(args, b.call.args))
            kept.append(b if same else with_fields(b, call=with_fields(b.call, args=args)))
        if not mapping:
            return module
        results = tuple(mapping.get(r, r) for r in main.results)
        return module.with_main(with_fields(main, bindings=tuple(kept), results=results))
