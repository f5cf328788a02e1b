"""Operators that are made of others: `@composite` on a function that makes calls on a builder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .. import te
from ..errors import ShapeError
from ..ir.graph import Operand, TensorType, Value
from ..ir.stmt import Attrs
from .builder import GraphBuilder
from .common import plain
from .reference import evaluate
from .registry import Operator, as_tuple, get, register

Body = Callable[..., Any]
"""(builder, operands..., attributes by keyword) -> an operand, or a tuple of several. The builder has each operator as a method, and
`constant`."""


def composite(body: Body) -> Body:
    """Decorator: register a function as an operator of its name.

        @composite
        def hardswish(g, x):
            return g.multiply(x, g.hardsigmoid(x))

    Its positional parameters are the arguments, its keyword-only ones the attributes with their defaults. Type rule, reference and
    tensor expression follow from the calls that it makes. 16-bit floats are widened first and the results rounded once. Graphs get rid
    of it before anything else (`ExpandComposites`).
    """
    name = body.__name__
    params = list(inspect.signature(body).parameters.values())[1:]
    arguments = [p for p in params if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_variadic = any(p.kind is p.VAR_POSITIONAL for p in params)
    defaults = {p.name: ... if p.default is p.empty else p.default for p in params if p.kind is p.KEYWORD_ONLY}

    def expand(g: Any, args: Sequence[Operand], attrs: Attrs) -> Any:
        try:
            return _rounded_once(g, body, args, attrs)
        except ShapeError as error:
            error.at(name)
            raise

    def built(types: Sequence[TensorType], attrs: Attrs) -> tuple[GraphBuilder, tuple[Any, ...]]:
        g = GraphBuilder()
        return g, as_tuple(expand(g, [g.input(f"x{i}", t.shape, t.dtype) for i, t in enumerate(types)], attrs))

    def infer(args: Sequence[TensorType], attrs: Attrs) -> Any:
        return _one_or_all([r.type for r in built(args, attrs)[1]])

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: Any) -> Any:
        g, results = built([TensorType(tuple(plain(e) for e in t.shape), t.dtype) for t in args], attrs)
        made: dict[Operand, Any] = dict(zip(g.params, args))
        for b in g.bindings:
            types = _one_or_all([r.type for r in b.results])
            tensors = get(b.call.op).compute([made[a] for a in b.call.args], b.call.attrs, types)
            made.update(zip(b.results, as_tuple(tensors)))
        return _one_or_all([made[r] for r in results])

    def reference(*arrays: Any, **attrs: Any) -> Any:
        g = GraphBuilder()
        results = expand(g, [g.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)], Attrs.of(attrs))
        return _one_or_all(evaluate(g.build(*as_tuple(results)), arrays))

    arity = None if is_variadic else len(arguments)
    register(Operator(name, infer, compute, reference, "composite", arity, defaults, expand=expand))
    return body


def _one_or_all(results: Sequence[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _rounded_once(g: Any, body: Body, args: Sequence[Operand], attrs: Attrs) -> Any:
    """The body's results; those of 16-bit floats are computed in float32."""
    short = next((a.type.dtype for a in args if a.type.dtype.is_float and a.type.dtype.bits == 16), None)
    if short is None:
        return body(g, *args, **attrs)
    wide = short.accumulator.name
    widened = [g.op("cast", a, dtype=wide) if a.type.dtype == short else a for a in args]
    results = as_tuple(body(g, *widened, **attrs))
    return _one_or_all(
        [
            g.op("cast", r, dtype=short.name) if isinstance(r, Value) and r.type.dtype.name == wide else r
            for r in results
        ]
    )
