"""Building graph functions call by call, with types inferred on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..dtype import dtype as as_dtype
from ..errors import ShapeError
from ..ir.expr import Var
from ..ir.graph import Binding, ConstRef, Function, OpCall, Operand, TensorType, Value
from ..ir.module import IRModule
from ..ir.names import unique_name
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
        attrs |= {"dim_max": tuple(self.dims.values())} if self.dims else {}
        bindings, dims = tuple(self.bindings), tuple(self.dims)
        main = Function("main", tuple(self.params), bindings, tuple(results), Attrs.of(attrs), dims)
        return IRModule({"main": main}, dict(self.constants), frozenset({"typed"}))
