"""Peephole rewriting of graph functions, the engine of the algebraic passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dtype import dtype as as_dtype
from ..errors import InternalError
from ..ir.graph import Binding, ConstRef, FuncCall, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.names import unique_name
from ..ir.node import with_fields
from ..ops.registry import infer

Rule = Callable[["Rewriter", OpCall, TensorType], "Operand | None"]
"""(rewriter, call with new operands, result type) -> an operand of equal value, or None to keep the call."""

_MAX_STEPS = 64


class Rewriter:
    """Rebuilds a function binding by binding, offering each call to the rules until none applies.

    Rules look at the new graph: `definition` gives the call behind an operand, `array` the contents of a constant.
    """

    def __init__(self, module: IRModule, rules: Sequence[Rule]) -> None:
        self.module = module
        self.rules = rules
        self.constants = dict(module.constants)
        self.bindings: list[Binding] = []
        self._calls: dict[Value, OpCall] = {}
        self._uses: Counter[Value] = Counter()
        self._array_refs: dict[int, ConstRef] = {}
        self.changed = False

    def run(self) -> IRModule:
        """The module with its entry rewritten; the same module where no rule applied."""
        main = self.module.main
        old_uses: Counter[Operand] = Counter(a for b in main.bindings for a in b.call.args)
        old_uses.update(main.results)
        mapping: dict[Operand, Operand] = {p: p for p in main.params}

        def operand(a: Operand) -> Operand:
            return mapping.get(a, a)

        for b in main.bindings:
            args = tuple(operand(a) for a in b.call.args)
            if isinstance(b.call, FuncCall):
                self.bindings.append(with_fields(b, call=with_fields(b.call, args=args)))
                continue
            new = self._emit(OpCall(b.call.op, args, b.call.attrs), b.result.type, b.result.name)
            mapping[b.result] = new
            if isinstance(new, Value):
                self._uses[new] += old_uses[b.result]
        if not self.changed:
            return self.module
        results = tuple(operand(r) for r in main.results)
        return self.module.with_main(with_fields(main, bindings=tuple(self.bindings), results=results), self.constants)

    def _emit(self, call: OpCall, type_: TensorType, name: str) -> Operand:
        for _ in range(_MAX_STEPS):
            for rule in self.rules:
                new = rule(self, call, type_)
                if new is not None:
                    if new.type.shape != type_.shape or new.type.dtype != type_.dtype:
                        raise InternalError(f"a rule turned a {type_} into a {new.type}", why=f"in {call.op}")
                    self.changed = True
                    return new
            break
        result = Value(name, type_)
        self.bindings.append(Binding((result,), call))
        self._calls[result] = call
        return result

    # what rules may use

    def op(self, name: str, *args: Operand, **attrs: Any) -> Operand:
        """A new call, itself offered to the rules."""
        type_, complete = infer(name, [a.type for a in args], attrs)
        return self._emit(OpCall(name, tuple(args), complete), type_, name)

    def again(self, call: OpCall, *args: Operand, **changes: Any) -> Operand:
        """The same operator on other arguments, or with other attributes."""
        return self.op(call.op, *args, **{**call.attrs, **changes})

    def definition(self, x: Operand, op: str | None = None) -> OpCall | None:
        """The call that defines an operand (if it is of that operator)."""
        call = self._calls.get(x) if isinstance(x, Value) else None
        return call if call is not None and (op is None or call.op == op) else None

    def array(self, x: Operand) -> np.ndarray | None:
        """The contents of a constant operand."""
        return self.constants[x.name] if isinstance(x, ConstRef) else None

    def constant(self, array: Any, name: str = "folded") -> ConstRef:
        """A new constant."""
        values = np.asarray(array)  # views stay views: weights are large
        unique = unique_name(name, set(self.constants))
        self.constants[unique] = values
        return ConstRef(unique, TensorType(values.shape, as_dtype(values.dtype)))

    def is_used_once(self, x: Operand) -> bool:
        """Whether nothing but the call at hand uses a value (as far as the graph so far tells)."""
        main = self.module.main
        return self._uses.get(x, 1) <= 1 and x not in main.results
