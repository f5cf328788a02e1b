"""Peephole rewriting of graph functions, the engine of the algebraic passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..dtype import dtype as as_dtype
from ..errors import InternalError
from ..ir.graph import Binding, ConstRef, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.names import unique_name
from ..ir.node import with_fields
from ..ops.builder import GraphBuilder
from ..ops.registry import as_tuple, get, infer

Apply = Callable[["Rewriter", OpCall, Any], Any]
"""(rewriter, call with new operands, result type) -> an operand of equal value, or None to keep the call. For a call of several results,
the type and what is returned are tuples."""

DEEPEST = 60
"""Rewrites one inside another: more are rules that undo each other."""


@dataclass(frozen=True)
class Rule:
    """A rewrite, and the calls that it looks at.

    Attributes:
        ops, kinds: by operator or by fusion kind; where neither is given, every call.
        attrs: values that attributes of the call must have.
        symbolic: whether it also holds where extents are symbolic.
    """

    name: str
    apply: Apply
    ops: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    symbolic: bool = False

    def looks_at(self, op: str) -> bool:
        return not (self.ops or self.kinds) or op in self.ops or get(op).kind in self.kinds

    def __call__(self, g: Rewriter, call: OpCall, type_: Any) -> Any:
        if any(call.attrs.get(k) != v for k, v in self.attrs.items()):
            return None
        return self.apply(g, call, type_)


def rule(*ops: str, kinds: Sequence[str] = (), symbolic: bool = False, **attrs: Any) -> Callable[[Apply], Rule]:
    """Decorator: a function is the rewrite of these operators' calls, where their attributes have these values."""
    return lambda f: Rule(f.__name__, f, frozenset(ops), frozenset(kinds), attrs, symbolic)


class Rewriter:
    """Rebuilds a function binding by binding, offering each call to the rules for its operator until none applies.

    Rules look at the new graph: `definition` gives the call behind an operand, `array` the contents of a constant.
    """

    def __init__(self, module: IRModule, rules: Sequence[Rule]) -> None:
        self.module = module
        self.rules = rules
        self.constants = dict(module.constants)
        self.bindings: list[Binding] = []
        self.fired: list[str] = []
        self._by_operator: dict[str, tuple[Rule, ...]] = {}
        self._calls: dict[Value, OpCall] = {}
        self._uses: Counter[Operand] = Counter()
        self._active: list[str] = []
        self._origin = ""

    @property
    def changed(self) -> bool:
        return bool(self.fired)

    def run(self) -> IRModule:
        """The module with its entry rewritten; the same module where no rule applied.

        Raises:
            InternalError: rules undo each other without end; the message names them.
        """
        main = self.module.main
        old_uses: Counter[Operand] = Counter(a for b in main.bindings for a in b.call.args)
        old_uses.update(main.results)
        mapping: dict[Operand, Operand] = {p: p for p in main.params}

        def operand(a: Operand) -> Operand:
            return mapping.get(a, a)

        for b in main.bindings:
            args = tuple(operand(a) for a in b.call.args)
            if not isinstance(b.call, OpCall):
                self.bindings.append(with_fields(b, call=with_fields(b.call, args=args)))
                continue
            self._origin = b.origin
            new = self._emit(OpCall(b.call.op, args, b.call.attrs), tuple(r.type for r in b.results), b.results)
            for old, n in zip(b.results, new):
                mapping[old] = n
                if isinstance(n, Value):
                    self._uses[n] += old_uses[old]
        if not self.changed:
            return self.module
        results = tuple(operand(r) for r in main.results)
        return self.module.with_main(with_fields(main, bindings=tuple(self.bindings), results=results), self.constants)

    def _emit(self, call: OpCall, types: tuple[TensorType, ...], named: Sequence[Value]) -> tuple[Operand, ...]:
        rules = self._by_operator.get(call.op)
        if rules is None:
            rules = self._by_operator[call.op] = tuple(r for r in self.rules if r.looks_at(call.op))
        is_static = all(t.is_static for t in (*types, *(a.type for a in call.args)))
        for rule in rules:
            if not (is_static or rule.symbolic):
                continue
            if len(self._active) > DEEPEST:
                names = ", ".join(dict.fromkeys(self._active[-DEEPEST // 2 :]))
                raise InternalError(f"the rules {names} undo each other", why=f"at a call of {call.op}")
            self._active.append(rule.name)
            fired, made = len(self.fired), len(self.bindings)
            found = rule(self, call, types[0] if len(types) == 1 else types)
            self._active.pop()
            if found is None:  # what it tried leaves nothing behind
                del self.fired[fired:], self.bindings[made:]
                continue
            new = as_tuple(found)
            if [(n.type.shape, n.type.dtype) for n in new] != [(t.shape, t.dtype) for t in types]:
                given, wanted = (", ".join(map(str, ts)) for ts in ([n.type for n in new], types))
                raise InternalError(f"rule {rule.name} turned {wanted} into {given}", why=f"in {call.op}")
            self.fired.append(rule.name)
            return new
        results = tuple(Value(v.name, t) for v, t in zip(named, types))
        self.bindings.append(Binding(results, call, self._origin))
        self._calls.update(dict.fromkeys(results, call))
        return results

    # what rules may use

    def op(self, name: str, *args: Operand, **attrs: Any) -> Any:
        """A new call, itself offered to the rules: its result, or a tuple of several."""
        types, complete = infer(name, [a.type for a in args], attrs)
        new = self._emit(OpCall(name, tuple(args), complete), types, [Value(name, t) for t in types])
        return new[0] if len(new) == 1 else new

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        get(name)
        return lambda *args, **attrs: self.op(name, *args, **attrs)

    def scan(
        self, body: Callable[..., Any], init: Sequence[Operand] = (), xs: Sequence[Operand] = (), **how: Any
    ) -> Any:
        """A loop, as `GraphBuilder.scan` makes it; its body is offered to the rules as well."""
        main, known = self.module.main, self.module.functions
        g = GraphBuilder()
        g.constants, g.dims, g.bodies = self.constants, dict(main.bounds), dict(known)
        results = g.scan(body, init, xs, **how)
        made = {name: g.with_bounds(f) for name, f in g.bodies.items() if name not in known}
        self.module = with_fields(self.module, functions={**known, **made}, constants=self.constants)
        for name in made:
            inner = Rewriter(self.module.entered_at(name), self.rules).run()
            self.module = inner.entered_at(self.module.entry)
        self.constants = dict(self.module.constants)
        self.bindings.extend(with_fields(b, origin=self._origin) for b in g.bindings)
        return results

    def again(self, call: OpCall, *args: Operand, **changes: Any) -> Any:
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

    def uses(self, x: Operand) -> int:
        """How often a value is used, by calls and as a result (as far as the graph so far tells)."""
        return self._uses.get(x, 1)

    def is_used_once(self, x: Operand) -> bool:
        """Whether nothing but the call at hand uses a value (as far as the graph so far tells)."""
        return self.uses(x) <= 1 and x not in self.module.main.results
