"""Scans with less in their loops: what every trip computes alike, what no result depends on, and sums over trips leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..ir.graph import Binding, Cond, ConstRef, Function, OpCall, Operand, Scan, TensorType, Value
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.stmt import Attrs
from ..ops.registry import get, infer

_COMPUTES = ("anchor", "reduction", "row_reduction")
"""Kinds of operators that are moved out of a loop whatever the size of their result."""


@dataclass(frozen=True)
class SimplifyScans:
    """Move out of loops what can stand outside.

    Constants are known inside of bodies. What depends on captured tensors alone is computed once. A product of a row and a captured
    matrix is one product of all rows. A carried sum of products, as the gradient of a recurrent weight is, becomes one product of
    all trips' operands, where stacking them moves fewer bytes than the sum itself. Tensors that no result depends on are dropped.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        if not any(isinstance(b.call, (Scan, Cond)) for b in main.bindings):
            return module
        functions = dict(module.functions)
        used = {*main.results, *(a for b in main.bindings for a in b.call.args)}
        mapping: dict[Operand, Operand] = {}
        bindings: list[Binding] = []
        for b in main.bindings:
            args = tuple(mapping.get(a, a) for a in b.call.args)
            b = with_fields(b, call=with_fields(b.call, args=args))
            match b.call:
                case Scan():
                    loop = _Loop.of(b, b.call, module.graph(b.call.body))
                    loop.simplify(used)
                    mapping.update(loop.replaced)
                    bindings += loop.written(b, b.call)
                    functions[b.call.body] = loop.body
                case Cond():
                    new, bodies = _with_constants(b, [module.graph(name) for name in b.call.bodies])
                    bindings.append(new)
                    functions.update((f.name, f) for f in bodies)
                case _:
                    bindings.append(b)
        results = tuple(mapping.get(r, r) for r in main.results)
        functions[module.entry] = with_fields(main, bindings=tuple(bindings), results=results)
        return with_fields(module, functions=functions)


def _with_constants(b: Binding, bodies: Sequence[Function]) -> tuple[Binding, list[Function]]:
    """A cond whose bodies know the constants that they are given."""
    assert isinstance(b.call, Cond)
    kept = [i for i, a in enumerate(b.call.inputs) if isinstance(a, Value)]
    made = []
    for f in bodies:
        known: dict[Operand, Operand] = {p: a for p, a in zip(f.params, b.call.inputs) if isinstance(a, ConstRef)}
        params = tuple(f.params[i] for i in kept)
        made.append(_renamed(with_fields(f, params=params), known))
    args = (b.call.args[0], *(b.call.inputs[i] for i in kept))
    return with_fields(b, call=with_fields(b.call, args=args)), made


def _renamed(f: Function, mapping: dict[Operand, Operand]) -> Function:
    """A function that uses other operands."""
    bindings = tuple(_with_args(b, mapping) for b in f.bindings)
    return with_fields(f, bindings=bindings, results=tuple(mapping.get(r, r) for r in f.results))


def _with_args(b: Binding, mapping: dict[Operand, Operand]) -> Binding:
    args = tuple(mapping.get(a, a) for a in b.call.args)
    return b if args == b.call.args else with_fields(b, call=with_fields(b.call, args=args))


@dataclass
class _Carried:
    """A carried tensor: what it is in a trip, after it, before the first and after the last."""

    param: Value
    after: Operand
    init: Operand
    final: Value


@dataclass
class _Loop:
    """A scan taken apart.

    Attributes:
        scanned, captured: what stands outside for a parameter of the body.
        stacked: (value in the body, result outside).
        before, behind: what has been moved in front of the scan and behind it.
        replaced: results that something else takes the place of.
    """

    function: Function
    length: Any
    is_whole: bool
    carried: list[_Carried]
    scanned: dict[Operand, Operand]
    captured: dict[Operand, Operand]
    stacked: list[tuple[Operand, Value]]
    bindings: list[Binding]
    before: list[Binding] = field(default_factory=list)
    behind: list[Binding] = field(default_factory=list)
    replaced: dict[Operand, Operand] = field(default_factory=dict)

    @staticmethod
    def of(b: Binding, call: Scan, body: Function) -> _Loop:
        n = call.num_carried
        end = n + call.num_scanned
        carried = [_Carried(*row) for row in zip(body.params[:n], body.results, call.args, b.results)]
        return _Loop(
            body,
            call.length,
            not call.has_count,
            carried,
            dict(zip(body.params[n:end], call.scanned)),
            dict(zip(body.params[end:], call.captured)),
            list(zip(body.results[n:], b.results[n:])),
            list(body.bindings),
        )

    @property
    def body(self) -> Function:
        params = (*(c.param for c in self.carried), *self.scanned, *self.captured)
        results = (*(c.after for c in self.carried), *(value for value, _ in self.stacked))
        updates = tuple((i, i) for i in range(len(self.carried)))
        attrs = Attrs.of({**self.function.attrs, "updates": updates})
        return with_fields(self.function, params=params, bindings=tuple(self.bindings), results=results, attrs=attrs)

    def written(self, b: Binding, call: Scan) -> list[Binding]:
        """The bindings that take the place of the scan."""
        count = call.args[-1:] if call.has_count else ()
        args = (*(c.init for c in self.carried), *self.scanned.values(), *self.captured.values(), *count)
        new = with_fields(call, args=args, num_carried=len(self.carried), num_scanned=len(self.scanned))
        results = (*(c.final for c in self.carried), *(outer for _, outer in self.stacked))
        scan = [with_fields(b, results=results, call=new)] if results else []
        return [*self.before, *scan, *self.behind]

    def simplify(self, used: set[Operand]) -> None:
        """Apply everything.

        Args:
            used: operands that the function around the scan reads.
        """
        self.settle()
        self.hoist()
        if self.is_whole and isinstance(self.length, int) and self.function.dims == ():
            self.join_rows()
            self.sink_sums()
            used = used | {a for b in self.behind for a in b.call.args}
        self.drop_unused(used)

    # what is known

    def settle(self) -> None:
        """Constants are known inside; what is carried and never changes is captured; each captured tensor has one parameter."""
        known: dict[Operand, Operand] = {}
        for c in [c for c in self.carried if c.after is c.param and self.is_whole]:
            self.carried.remove(c)
            self.captured[c.param] = c.init
            self.replaced[c.final] = c.init
        first: dict[Operand, Operand] = {}
        for param, outer in list(self.captured.items()):
            if isinstance(outer, ConstRef):
                known[param] = outer
            elif outer in first:
                known[param] = first[outer]
            else:
                first[outer] = param
                continue
            del self.captured[param]
        self.rename(known)

    def rename(self, mapping: dict[Operand, Operand]) -> None:
        if mapping:
            self.bindings = [_with_args(b, mapping) for b in self.bindings]
            self.stacked = [(mapping.get(value, value), outer) for value, outer in self.stacked]
            for c in self.carried:
                c.after = mapping.get(c.after, c.after)

    # out of the loop, to the front

    def hoist(self) -> None:
        """Calls of what is captured. Those that make much out of little stay: they are read while they are made."""
        kept = []
        for b in self.bindings:
            if not isinstance(b.call, OpCall) or not all(self.is_fixed(a) for a in b.call.args) or not _may_leave(b):
                kept.append(b)
                continue
            outer = tuple(Value(r.name, r.type) for r in b.results)
            args = tuple(self.captured.get(a, a) if isinstance(a, Value) else a for a in b.call.args)
            self.before.append(Binding(outer, with_fields(b.call, args=args), b.origin))
            self.captured.update(zip(b.results, outer))
        self.bindings = kept

    def is_fixed(self, a: Operand) -> bool:
        return isinstance(a, ConstRef) or a in self.captured

    def join_rows(self) -> None:
        """Products of a row and a captured matrix."""
        kept = []
        for b in self.bindings:
            call = b.call
            is_product = isinstance(call, OpCall) and call.op == "matmul" and not any(call.attrs["transposed"])
            if not (is_product and call.args[0] in self.scanned and self.is_fixed(call.args[1])):
                kept.append(b)
                continue
            rows, matrix = call.args
            if rows.type.ndim != 2 or matrix.type.ndim != 2:
                kept.append(b)
                continue
            outside = self.captured.get(matrix, matrix) if isinstance(matrix, Value) else matrix
            assert isinstance(rows, Value) and isinstance(call, OpCall)
            self.scanned[b.result] = self.outside(self.before, "matmul", self.scanned[rows], outside, **call.attrs)
        self.bindings = kept

    def outside(self, place: list[Binding], op: str, *args: Operand, **attrs: Any) -> Value:
        """A call in front of the scan or behind it."""
        types, complete = infer(op, [a.type for a in args], attrs)
        result = Value(f"{self.function.name}_{op}", types[0])
        place.append(Binding((result,), OpCall(op, args, complete)))
        return result

    # out of the loop, to the end

    def sink_sums(self) -> None:
        """Terms of carried sums that are sums over trips of what can be stacked: products first, since they stack most."""
        for op in ("matmul", "sum"):
            for c in list(self.carried):
                self.sink_terms(c, op)

    def sink_terms(self, c: _Carried, op: str) -> None:
        made = {r: b for b in self.bindings for r in b.results}
        readers = [b for b in self.bindings if c.param in b.call.args]
        chain = _terms(c.after, c.param, made, self.uses())
        if chain is None or len(readers) != 1 or any(value is c.param for value, _ in self.stacked):
            return
        terms = [t for t in chain if t is not c.param]
        totals = [(t, self.total(made[t], op, c)) for t in terms if t in made and isinstance(made[t].call, OpCall)]
        sunk = {t: total for t, total in totals if total is not None}
        if not sunk:
            return
        rest: list[Operand] = [t for t in terms if t not in sunk]
        result: Operand = c.init if not rest else c.final
        for total in sunk.values():
            result = self.outside(self.behind, "add", result, total)
        if rest:
            after: Operand = c.param
            for t in rest:
                types, attrs = infer("add", [after.type, t.type], {})
                new = Value("sum", types[0])
                self.bindings.append(Binding((new,), OpCall("add", (after, t), attrs)))
                after = new
            c.after = after
        else:
            self.carried.remove(c)
        self.replaced[c.final] = result
        if rest:  # the scan still makes what the sum begins with
            inner = Value(c.final.name, c.final.type)
            self.behind = [_with_args(b, {c.final: inner}) for b in self.behind]
            c.final = inner

    def uses(self) -> dict[Operand, int]:
        """How often each operand is read in the body."""
        found: dict[Operand, int] = {}
        for a in (
            *(a for b in self.bindings for a in b.call.args),
            *(c.after for c in self.carried),
            *(value for value, _ in self.stacked),
        ):
            found[a] = found.get(a, 0) + 1
        return found

    def total(self, b: Binding, op: str, c: _Carried) -> Value | None:
        """The sum of a term over all trips, computed behind the scan; None where that does not pay."""
        call = b.call
        assert isinstance(call, OpCall)
        if call.op != op or b.result.type != c.param.type:
            return None
        if op == "sum":
            axes, keepdims = call.attrs["axes"], call.attrs["keepdims"]
            rows = self.stack(call.args, 0)
            if rows is None:
                return None
            every = (0, *(a % call.args[0].type.ndim + 1 for a in axes)) if axes is not None else None
            found = self.outside(self.behind, "sum", rows[0], axes=every, out_dtype=call.attrs["out_dtype"])
            return self.outside(self.behind, "reshape", found, shape=b.result.type.shape) if keepdims else found
        if any(a.type.ndim != 2 for a in call.args) or any(call.attrs["transposed"]):
            return None
        left, turned = self.untransposed(call.args[0])
        rows = self.stack((left, call.args[1]), 2 * b.result.type.nbytes)
        if rows is None:
            return None
        lefts, rights = rows
        trips, depth, columns = rights.type.shape
        height = b.result.type.shape[0]
        flat = trips * depth
        if turned:  # (trips, depth, height)
            tall = self.outside(self.behind, "reshape", lefts, shape=(flat, height))
            first = self.outside(self.behind, "transpose", tall, axes=(1, 0))
        else:  # (trips, height, depth)
            side = self.outside(self.behind, "transpose", lefts, axes=(1, 0, 2))
            first = self.outside(self.behind, "reshape", side, shape=(height, flat))
        second = self.outside(self.behind, "reshape", rights, shape=(flat, columns))
        return self.outside(self.behind, "matmul", first, second, out_dtype=call.attrs["out_dtype"])

    def untransposed(self, a: Operand) -> tuple[Operand, bool]:
        """What a matrix is the transpose of, and whether it is one."""
        for b in self.bindings:
            if a in b.results and isinstance(b.call, OpCall) and b.call.op == "transpose":
                return b.call.args[0], True
        return a, False

    def stack(self, values: Sequence[Operand], saved: int) -> list[Operand] | None:
        """Values of all trips; None where stacking those that are not yet moves more bytes than it saves in a trip."""
        known: dict[Operand, Operand] = dict(self.stacked)
        known.update(self.scanned)
        new = list(dict.fromkeys(v for v in values if v not in known))
        if any(self.is_fixed(v) for v in new) or sum(2 * v.type.nbytes for v in new) > saved:
            return None
        for v in new:
            rows = Value(f"{v.name}_rows", TensorType((self.length, *v.type.shape), v.type.dtype))
            known[v] = rows
            self.stacked.append((v, rows))
        return [known[v] for v in values]

    # what nobody needs

    def drop_unused(self, used: set[Operand]) -> None:
        """Carried, scanned, captured and stacked tensors, and calls, that no used result depends on."""
        self.stacked = [(value, outer) for value, outer in self.stacked if outer in used or outer in self.replaced]
        made = {r: b for b in self.bindings for r in b.results}
        wanted = [c for c in self.carried if c.final in used or self.is_behind(c.final)]
        live: set[Operand] = set()
        stack: list[Operand] = [value for value, _ in self.stacked] + [c.after for c in wanted]
        by_param = {c.param: c for c in self.carried}
        while stack:
            x = stack.pop()
            if x in live:
                continue
            live.add(x)
            if x in by_param and by_param[x] not in wanted:
                wanted.append(by_param[x])
                stack.append(by_param[x].after)
            if x in made:
                stack.extend(made[x].call.args)
        self.bindings = [b for b in self.bindings if any(r in live for r in b.results)]
        self.carried = [c for c in self.carried if c in wanted]
        self.scanned = {p: outer for p, outer in self.scanned.items() if p in live}
        self.captured = {p: outer for p, outer in self.captured.items() if p in live}

    def is_behind(self, x: Operand) -> bool:
        return any(x in b.call.args for b in self.behind)


def _may_leave(b: Binding) -> bool:
    """Whether a call's results are worth keeping in memory: they take no more of it than what they are made of, or much work."""
    if not isinstance(b.call, OpCall):
        return False
    if get(b.call.op).kind in _COMPUTES:
        return True
    types = [r.type for r in b.results] + [a.type for a in b.call.args]
    if not all(t.is_static for t in types):
        return False
    return sum(r.type.nbytes for r in b.results) <= sum(a.type.nbytes for a in b.call.args)


def _terms(x: Operand, param: Value, made: dict[Value, Binding], uses: dict[Operand, int]) -> list[Operand] | None:
    """The terms of a sum of tensors of one type that has a carried tensor among them; None where there is no such sum."""
    found: list[Operand] = []
    stack: list[Operand] = [x]
    while stack:
        t = stack.pop()
        b = made.get(t) if isinstance(t, Value) else None
        is_sum = b is not None and isinstance(b.call, OpCall) and b.call.op == "add" and uses.get(t, 0) == 1
        if is_sum and b is not None and all(a.type == param.type for a in b.call.args):
            stack.extend(b.call.args)
        else:
            found.append(t)
    return found if found.count(param) == 1 and len(found) > 1 else None
