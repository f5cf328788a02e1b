"""Building graph functions call by call, with types inferred on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..dtype import dtype as as_dtype
from ..errors import ShapeError
from ..ir.expr import Expr, Var
from ..ir.graph import Binding, Cond, ConstRef, Function, OpCall, Operand, Scan, TensorType, Value
from ..ir.module import IRModule
from ..ir.names import unique_name
from ..ir.node import with_fields
from ..ir.stmt import Attrs
from .registry import OPERATORS, infer


class GraphBuilder:
    """Collects the bindings of a function.

        g = GraphBuilder()
        x = g.input("x", (1, 784))
        y = g.relu(g.matmul(x, g.constant(weights)))
        module = g.build(y)

    Every operator is a method; its attributes are keyword arguments.

    Args:
        name: of the model, for people; the function that is built is the module's entry, main.
    """

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.params: list[Value] = []
        self.bindings: list[Binding] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[int, tuple[Any, ConstRef]] = {}
        self._origin = ""
        self.dims: dict[Var, int] = {}
        self.bodies: dict[str, Any] = {}

    def input(self, name: str, shape: tuple[Any, ...], dtype: Any = "float32") -> Value:
        """A parameter of the function; extents that calls decide are expressions of `dim`s."""
        if any(p.name == name for p in self.params):
            raise ShapeError(f"two inputs are named {name!r}")
        self.params.append(Value(name, TensorType(tuple(shape), as_dtype(dtype))))
        return self.params[-1]

    def dim(self, name: str, max: int) -> Var:
        """An extent that each call decides, from 0 to `max`: a batch, the length of a sequence. Shapes may compute with it.

        Raises:
            ShapeError: two of one name, or a bound that is no positive integer.
        """
        if any(v.name == name for v in self.dims):
            raise ShapeError(f"two extents are named {name!r}")
        if isinstance(max, bool) or not isinstance(max, int) or not 1 <= max < 1 << 40:
            raise ShapeError(f"extent {name!r} cannot be at most {max!r}", hint="a positive integer")
        v = Var(name)
        self.dims[v] = max
        return v

    def constant(self, array: Any, name: str | None = None) -> ConstRef:
        """A constant tensor; the array is not copied and must not change any more."""
        known = self._known.get(id(array))
        if known is not None:
            return known[1]
        values = np.asarray(array)
        values = values if values.flags.c_contiguous else np.ascontiguousarray(values)
        unique = unique_name(name or f"c{len(self.constants)}", set(self.constants))
        self.constants[unique] = values
        ref = ConstRef(unique, TensorType(values.shape, as_dtype(values.dtype)))
        self._known[id(array)] = (array, ref)
        return ref

    @contextmanager
    def origin(self, name: str) -> Iterator[None]:
        """Calls that are made meanwhile come from this node of the source model: errors, `profile` and `explain` say so."""
        before, self._origin = self._origin, name
        try:
            yield
        except ShapeError as error:
            error.at(name)
            raise
        finally:
            self._origin = before

    def op(self, name: str, *args: Operand, **attrs: Any) -> Any:
        """A call of an operator: its result, a Value, or a tuple of them where it has several.

        Raises:
            UnsupportedError: no such operator. ShapeError: the arguments do not fit.
        """
        types, complete = infer(name, [a.type for a in args], attrs)
        base = f"{name}{len(self.bindings)}"
        names = [base] if len(types) == 1 else [f"{base}_{i}" for i in range(len(types))]
        results = tuple(map(Value, names, types))
        self.bindings.append(Binding(results, OpCall(name, tuple(args), complete), self._origin))
        return results[0] if len(results) == 1 else results

    def scan(
        self,
        body: Callable[[GraphBuilder, tuple[Value, ...], tuple[Value, ...]], Any],
        init: Sequence[Operand] = (),
        xs: Sequence[Operand] = (),
        *,
        length: int | Expr | None = None,
        count: Operand | None = None,
        reverse: bool = False,
    ) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """A loop in the graph, whose body is compiled once.

            def step(b, carried, rows):
                total = b.add(carried[0], rows[0])
                return (total,), (b.relu(total),)

            (last,), (all_sums,) = g.scan(step, [zero], [x])

        Args:
            body: (builder, carried tensors, rows) -> (carried tensors, new rows): calls on that builder; tensors from outside may be used.
            init: the carried tensors of the first trip.
            xs: tensors with one row for each trip, along their first axis.
            length: the number of rows; needed where `xs` is empty.
            count: an int64 tensor without axes: so many trips, those of the first rows; new rows of the others are zeros.
            reverse: begin at the last row.

        Returns:
            The carried tensors after the last trip, and the new rows, stacked along a new first axis.

        Raises:
            ShapeError: the tensors do not have the same number of rows, or the body changes the type of a carried one.
        """
        rows = _common_length(xs, length)
        if count is not None and (count.type.shape, count.type.dtype.name) != ((), "int64"):
            raise ShapeError(f"a count is an int64 tensor without axes, not {count.type}")
        types = [("carried", a.type) for a in init] + [("row", x.type.row) for x in xs]
        inner, params = self._inner(types)
        made = body(inner, params[: len(init)], params[len(init) :])
        if not (isinstance(made, (tuple, list)) and len(made) == 2):
            raise ShapeError("the body of a scan returns (carried tensors, new rows)")
        after, stacked = tuple(made[0]), tuple(made[1])
        if [a.type for a in after] != [a.type for a in init]:
            shown = [", ".join(str(a.type) for a in tensors) for tensors in (init, after)]
            raise ShapeError(f"the body of a scan turns carried ({shown[0]}) into ({shown[1]})", hint="cast or reshape")
        captured = tuple(inner._from_outside((*after, *stacked)))
        own = tuple(Value(x.name, x.type) for x in captured)
        updates = tuple((i, i) for i in range(len(init)))
        f = inner._as_function("scan", (*params, *own), (*after, *stacked), dict(zip(captured, own)), updates)
        args = (*init, *xs, *captured, *(() if count is None else (count,)))
        call = Scan(f, args, len(init), len(xs), rows, reverse, count is not None)
        types_made = [a.type for a in after] + [TensorType((rows, *y.type.shape), y.type.dtype) for y in stacked]
        results = self._bind("scan", types_made, call)
        return results[: len(init)], results[len(init) :]

    def cond(
        self,
        pred: Operand,
        then: Callable[[GraphBuilder], Any],
        orelse: Callable[[GraphBuilder], Any],
    ) -> Any:
        """The results of one of two bodies, which are compiled both, and of which one runs.

            y = g.cond(is_large, lambda b: b.relu(x), lambda b: b.negative(x))

        Args:
            pred: a bool tensor without axes.
            then, orelse: builder -> a tensor, or a tuple of them: calls on that builder; tensors from outside may be used.

        Raises:
            ShapeError: the bodies' results differ in type.
        """
        if (pred.type.shape, pred.type.dtype.name) != ((), "bool"):
            raise ShapeError(f"a condition is a bool tensor without axes, not {pred.type}")
        inner = [self._inner([])[0] for _ in range(2)]
        given = [body(g) for body, g in zip((then, orelse), inner)]
        made = [x if isinstance(x, tuple) else (x,) for x in given]
        types = [[r.type for r in results] for results in made]
        if types[0] != types[1] or not types[0]:
            shown = [", ".join(map(str, t)) for t in types]
            raise ShapeError(
                f"the bodies of a cond make ({shown[0]}) and ({shown[1]})", hint="equal types, one at least"
            )
        outside = dict.fromkeys(x for g, results in zip(inner, made) for x in g._from_outside(results))
        captured = tuple(outside)
        names = []
        for g, results in zip(inner, made):
            own = tuple(Value(f"c{i}", x.type) for i, x in enumerate(captured))
            names.append(g._as_function("cond", own, results, dict(zip(captured, own))))
        results = self._bind("cond", types[0], Cond(names[0], names[1], (pred, *captured)))
        return results if isinstance(given[0], tuple) else results[0]

    def _inner(self, types: Sequence[tuple[str, TensorType]]) -> tuple[GraphBuilder, tuple[Value, ...]]:
        """A builder for a body, and its parameters."""
        inner = self.inner_builder()
        inner.constants, inner._known, inner.dims = self.constants, self._known, self.dims
        inner.bodies, inner._origin = self.bodies, self._origin
        inner.params = [Value(f"{what}{i}", t) for i, (what, t) in enumerate(types)]
        return inner, tuple(inner.params)

    def inner_builder(self) -> GraphBuilder:
        """A new builder of the same kind, for a body."""
        return GraphBuilder(self.name)

    def _from_outside(self, results: Sequence[Operand]) -> list[Value]:
        """The tensors that a body uses and does not make."""
        own = {*self.params, *(r for b in self.bindings for r in b.results)}
        used = [a for b in self.bindings for a in b.call.args] + list(results)
        return list(dict.fromkeys(a for a in used if isinstance(a, Value) and a not in own))

    def _as_function(
        self,
        name: str,
        params: tuple[Value, ...],
        results: tuple[Operand, ...],
        mapping: Mapping[Operand, Operand],
        updates: tuple[tuple[int, int], ...] = (),
    ) -> str:
        """The name of the function that a body becomes, with other values in the place of those from outside."""

        def inside(xs: Sequence[Operand]) -> tuple[Operand, ...]:
            return tuple(mapping.get(x, x) for x in xs)

        bindings = tuple(with_fields(b, call=with_fields(b.call, args=inside(b.call.args))) for b in self.bindings)
        unique = unique_name(f"{name}_body", {"main", *self.bodies})
        attrs = Attrs.of({"updates": updates}) if updates else Attrs()
        self.bodies[unique] = Function(unique, params, bindings, inside(results), attrs, tuple(self.dims))
        return unique

    def _bind(self, name: str, types: Sequence[TensorType], call: Scan | Cond) -> tuple[Value, ...]:
        base = f"{name}{len(self.bindings)}"
        results = tuple(Value(f"{base}_{i}", t) for i, t in enumerate(types))
        self.bindings.append(Binding(results, call, self._origin))
        return results

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in OPERATORS:
            raise AttributeError(f"GraphBuilder has no operator {name!r}")
        return lambda *args, **attrs: self.op(name, *args, **attrs)

    def build(self, *results: Operand, updates: Mapping[Value, int] | None = None) -> IRModule:
        """The module whose entry computes the results.

        Args:
            updates: inputs, and the numbers of the results that take their place: of the same type, written where the input lies.

        Raises:
            ShapeError: an update that is not of its input's type, or of something that is no input.
        """
        pairs = []
        for param, number in (updates or {}).items():
            if param not in self.params or not 0 <= number < len(results):
                raise ShapeError(f"an update pairs an input with a result, not {param.name} with result {number}")
            if results[number].type != param.type:
                raise ShapeError(
                    f"result {number} is a {results[number].type}, it cannot take the place of {param.type}"
                )
            pairs.append((self.params.index(param), number))
        attrs = {"updates": tuple(pairs)} if pairs else {}
        main = Function(
            "main", tuple(self.params), tuple(self.bindings), tuple(results), Attrs.of(attrs), tuple(self.dims)
        )
        bounded = {f.name: self.with_bounds(f) for f in (main, *self.bodies.values())}
        return IRModule(bounded, dict(self.constants), frozenset({"typed"}))

    def with_bounds(self, f: Function) -> Function:
        """A function with the symbolic extents of this builder."""
        if not self.dims:
            return f
        attrs = f.attrs.with_(dim_max=tuple(self.dims.values()))
        return with_fields(f, attrs=attrs, dims=tuple(self.dims))


def _common_length(xs: Sequence[Operand], length: int | Expr | None) -> int | Expr:
    """The number of rows of all scanned tensors.

    Raises:
        ShapeError: there is none, or they differ.
    """
    for x in xs:
        if not x.type.shape:
            raise ShapeError(f"cannot scan {x.name}, a {x.type}", why="it has no axis to walk along")
    given = {x.type.shape[0] for x in xs} | (set() if length is None else {length})
    if len(given) != 1:
        what = "no number of rows is given" if not given else f"numbers of rows differ: {', '.join(map(str, given))}"
        raise ShapeError(f"cannot scan: {what}", hint="scanned tensors with equal first extents, or length=")
    (found,) = given
    if isinstance(found, bool) or not isinstance(found, (int, Expr)) or (isinstance(found, int) and found < 0):
        raise ShapeError(f"a scan cannot have {found!r} rows")
    return found
