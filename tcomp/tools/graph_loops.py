"""Scans, conds and scatters for the fuzzer of graphs: bodies of a few calls that keep values small."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..ir.graph import Cond, Operand, Scan, TensorType, Value
from ..ir.module import IRModule
from ..ops import GraphBuilder
from ..ops.reference import evaluate, run_scan

MOST_ROWS = 6


class Room(Protocol):
    """What grows: a source of choices and a builder."""

    rng: random.Random
    g: GraphBuilder


def results_of_last(g: GraphBuilder, arrays: Sequence[np.ndarray], exact: bool) -> list[np.ndarray]:
    """The results of the scan or cond that was bound last, on arrays for its arguments."""
    b = g.bindings[-1]
    module = g.build(*b.results)
    module = IRModule(module.functions, module.constants, module.facts, module.entry)

    def run(name: str) -> Callable[[list[Any]], list[Any]]:
        return lambda xs: evaluate(module, xs, exact, name)

    with np.errstate(all="ignore"):
        if isinstance(b.call, Scan):
            return run_scan(b, arrays, run(b.call.body))
        assert isinstance(b.call, Cond)
        return run(b.call.then if arrays[0] else b.call.orelse)(list(arrays[1:]))


def random_body(
    rng: random.Random, b: GraphBuilder, values: list[Operand], wanted: Sequence[TensorType]
) -> list[Operand]:
    """Some calls on a builder, and operands of the wanted types that they lead to."""
    for _ in range(rng.randint(1, 5)):
        values.append(_call(rng, b, values))
    found: list[Operand] = []
    for t in wanted:
        fitting = [v for v in values if v.type == t]
        new = rng.choice(fitting[-3:])
        first = fitting[0]
        if rng.random() < 0.4 and new is not first:
            new = b.add(first, new)  # a sum over trips, where the first is carried
        found.append(new)
    return found


def _call(rng: random.Random, b: GraphBuilder, values: Sequence[Operand]) -> Operand:
    """A call whose result is no larger than its operands."""
    x = rng.choice(values[-4:] if rng.random() < 0.6 else values)
    same = [v for v in values if v.type == x.type]
    is_float, n = x.type.dtype.is_float, x.type.ndim
    products = [v for v in values if v.type.dtype == x.type.dtype and v.type.ndim == 2 and n == 2]
    match rng.randrange(7):
        case 0 if is_float:
            return b.tanh(x)
        case 1:
            return b.op(rng.choice(("maximum", "minimum")), x, rng.choice(same))
        case 2 if is_float:
            return b.multiply_scalar(b.add(x, rng.choice(same)), scalar=0.5)
        case 3 if n == 2:
            return b.transpose(x, axes=(1, 0))
        case 4 if products and is_float:
            y = rng.choice(products)
            if x.type.shape[1] == y.type.shape[0]:
                return b.multiply_scalar(b.matmul(x, y), scalar=0.25)
            if x.type.shape[0] == y.type.shape[0]:
                return b.matmul(b.transpose(x, axes=(1, 0)), y)
        case 5 if n:
            return b.op(rng.choice(("sum", "max")), x, axes=(0,), keepdims=rng.random() < 0.5) if x.type.shape[0] else x
        case 6:
            return b.op("relu" if is_float else "maximum", *((x,) if is_float else (x, rng.choice(same))))
    return b.reshape(x, shape=(*x.type.shape, 1)) if n < 3 else x


def add_scan(
    room: Room, carried: Sequence[Operand], scanned: Sequence[Operand], others: Sequence[Operand]
) -> tuple[Value, ...]:
    """A random scan: its results."""
    rng = room.rng

    def body(b: GraphBuilder, held: tuple[Value, ...], rows: tuple[Value, ...]) -> Any:
        values: list[Operand] = [*held, *rows, *others]
        after = random_body(rng, b, values, [h.type for h in held])
        return tuple(after), tuple(rng.sample(values, min(len(values), rng.randrange(1, 3))))

    last, stacked = room.g.scan(body, carried, scanned, reverse=rng.random() < 0.5)
    return (*last, *stacked)


def add_recurrence(
    room: Room, held: Operand, sums: Operand, bias: Operand, rows: Operand, weight: Operand
) -> tuple[Value, ...]:
    """A recurrent layer with sums over its trips, as gradients are: its results.

    Args:
        held: (n, b); sums: (a, b); bias: (b,); rows: (trips, n, a); weight: (a, b).
    """
    rng = room.rng

    def body(b: GraphBuilder, carried: tuple[Value, ...], row: tuple[Value, ...]) -> Any:
        h, total, shift = carried
        (x,) = row
        new = b.tanh(b.add(h, b.multiply_scalar(b.matmul(x, weight), scalar=0.3)))
        left = x if rng.random() < 0.7 else b.multiply_scalar(x, scalar=0.5)
        product = b.matmul(b.transpose(left, axes=(1, 0)), new if rng.random() < 0.7 else h)
        terms = [product, b.tanh(total)] if rng.random() < 0.2 else [product]
        for term in terms:
            total = b.add(total, term) if rng.random() < 0.5 else b.add(term, total)
        keepdims = rng.random() < 0.3
        column = b.sum(new, axes=(0,), keepdims=keepdims)
        shift = b.add(shift, b.reshape(column, shape=shift.type.shape) if keepdims else column)
        return (new, total, shift), (h, new)[: rng.randrange(3)]

    last, stacked = room.g.scan(body, (held, sums, bias), (rows,), reverse=rng.random() < 0.5)
    return (*last, *stacked)


def add_cond(room: Room, pred: Operand, operands: Sequence[Operand]) -> tuple[Value, ...]:
    """A random cond: its results."""
    rng = room.rng
    types = [x.type for x in operands[: rng.randint(1, 2)]]

    def body(b: GraphBuilder) -> Any:
        return tuple(random_body(rng, b, list(operands), types))

    made: tuple[Value, ...] = room.g.cond(pred, body, body)
    return made
