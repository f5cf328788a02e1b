"""Branches and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto

from ...errors import ShapeError
from ...ir.graph import Operand, TensorType
from ..extents import Extents
from ..source import NeedsValues
from .node import Node
from .table import converts


def _graph(c: Node, name: str) -> GraphProto:
    graph: GraphProto = c.needed(name, GraphProto)
    return graph


def _operands(g: Any, values: Any) -> tuple[Operand, ...]:
    return tuple(v.as_operand(g) if isinstance(v, Extents) else v for v in values)


@converts("If")
def if_(c: Node) -> Any:
    """A branch whose condition is known is read in the place of the node; else both are compiled, and must make equal types.

    Where they do not, or one of them does not fit the inputs at hand, the condition must be known: it depends on small inputs then, such
    as a sample rate, which tell how the others look.
    """
    assert c.body is not None
    condition = c.known(0)
    if condition is not None:
        chosen = "then_branch" if bool(np.asarray(condition).reshape(-1)[0]) else "else_branch"
        return tuple(c.body(c.g, _graph(c, chosen), {}))
    pred = c.reshape(c[0], ())

    def read(name: str) -> Any:
        return lambda g: _operands(g, c.body(g, _graph(c, name), {}))

    try:
        return c.g.cond(pred, read("then_branch"), read("else_branch"))
    except ShapeError as error:
        names = c.g.inputs_behind(pred)
        if not names:
            raise
        raise NeedsValues(names, f"a branch of {c.label} does not fit: {error.what}") from error


@converts("Scan")
def scan(c: Node) -> Any:
    assert c.body is not None
    body, count = _graph(c, "body"), c.needed("num_scan_inputs", int)
    if c.version < 9:
        return _old_scan(c, body, count)
    states = len(c.inputs) - count
    outs = c.num_outputs - states
    in_axes, out_axes = c.ints("scan_input_axes") or [0] * count, c.ints("scan_output_axes") or [0] * outs
    in_ways = c.ints("scan_input_directions") or [0] * count
    out_ways = c.ints("scan_output_directions") or [0] * outs
    rows = []
    for i in range(count):
        x = c[states + i]
        axis = c.place(in_axes[i], x.type.ndim)
        x = c.transpose(x, [axis, *(d for d in range(x.type.ndim) if d != axis)])
        rows.append(c.g.op("flip", x, axes=(0,)) if in_ways[i] else x)
    last, stacked = _scanned(c, body, [c[i] for i in range(states)], rows)
    made = []
    for y, axis, way in zip(stacked, out_axes, out_ways):
        y = c.g.op("flip", y, axes=(0,)) if way else y
        at = c.place(axis, y.type.ndim)
        order = list(range(1, y.type.ndim))
        order.insert(at, 0)
        made.append(c.transpose(y, order))
    return (*last, *made)


def _scanned(c: Node, body: GraphProto, init: list[Operand], rows: list[Operand]) -> Any:
    names = [v.name for v in body.input]

    def step(g: Any, carried: Any, row: Any) -> Any:
        made = _operands(g, c.body(g, body, dict(zip(names, (*carried, *row)))))
        return made[: len(init)], made[len(init) :]

    return c.g.scan(step, init, rows)


def _old_scan(c: Node, body: GraphProto, count: int) -> Any:
    """Version 8: a batch axis before all others, and a first input that may tell lengths."""
    if c.has(0):
        raise c.refuse("sequences of their own lengths in version 8")
    states = len(c.inputs) - 1 - count
    ways = c.ints("directions") or [0] * count
    init, rows = [c[1 + i] for i in range(states)], [c[1 + states + i] for i in range(count)]
    batch = (init + rows)[0].type.shape[0]
    if batch != 1:
        raise c.refuse(f"a batch of {batch} in version 8", "1")
    init = [c.reshape(x, x.type.shape[1:]) for x in init]
    rows = [c.reshape(x, x.type.shape[1:]) for x in rows]
    rows = [c.g.op("flip", x, axes=(0,)) if way else x for x, way in zip(rows, ways)]
    last, stacked = _scanned(c, body, init, rows)
    return tuple(c.reshape(y, (1, *y.type.shape)) for y in (*last, *stacked))


@converts("Loop")
def loop(c: Node) -> Any:
    """With a known number of trips, a scan; where a condition may end it earlier, later trips change nothing.

    What stays as it was from trip to trip, and what each trip computes from its number alone, is known while reading only in loops of few
    trips, which are read trip by trip where their tensors change shape.
    """
    assert c.body is not None
    body = _graph(c, "body")
    names = [v.name for v in body.input]
    init = [c[i] for i in range(2, len(c.inputs))]
    most = int(c.value(0).reshape(-1)[0]) if c.has(0) else None
    starts = c.known(1) if c.has(1) else np.asarray(True)
    if most is None:
        return _while_known(c, body, names, init, starts)
    if starts is not None and not bool(np.asarray(starts).reshape(-1)[0]):
        most = 0
    outs = c.num_outputs - len(init)
    if most == 0:
        if outs:
            raise c.refuse("no trip is made, so that its stacked results have no shape")
        return tuple(init)
    if _changes_shape(c, body, names, init):
        return _unrolled(c, body, names, init, most)
    return _as_scan(c, body, names, init, most)


def _trip(c: Node, g: Any, body: GraphProto, names: list[str], number: Any, going: Any, carried: Any) -> Any:
    assert c.body is not None
    return _operands(g, c.body(g, body, dict(zip(names, (number, going, *carried)))))


def _changes_shape(c: Node, body: GraphProto, names: list[str], init: list[Operand]) -> bool:
    """Whether one trip makes carried tensors of other types than it gets."""
    found: list[TensorType] = []

    def look(g: Any, carried: Any, row: Any) -> Any:
        made = _trip(c, g, body, names, row[0], g.constant(np.asarray(True)), carried)
        found.extend(x.type for x in made[1 : 1 + len(init)])
        return carried, ()

    scratch = type(c.g)("scratch", c.g)
    scratch.constants, scratch.dims = c.g.constants, c.g.dims
    scratch.scan(look, init, [scratch.constant(np.zeros(1, np.int64))])
    return found != [x.type for x in init]


def _unrolled(c: Node, body: GraphProto, names: list[str], init: list[Operand], most: int) -> Any:
    """Trip by trip: all conditions must be known."""
    carried: Any = tuple(init)
    rows: list[list[Operand]] = []
    for i in range(min(most, 1 << 10)):
        made = _trip(c, c.g, body, names, c.constant(np.asarray(i, np.int64)), c.constant(np.asarray(True)), carried)
        carried = made[1 : 1 + len(init)]
        rows.append(list(made[1 + len(init) :]))
        going = c.g.known(made[0])
        if going is None:
            raise c.refuse("its tensors change shape from trip to trip, and its condition is computed when it runs")
        if not going.reshape(-1)[0]:
            break
    else:
        if most > 1 << 10:
            raise c.refuse(f"its tensors change shape from trip to trip, over {most} trips")
    stacks = [[c.reshape(x, (1, *x.type.shape)) for x in column] for column in zip(*rows)]
    return (*carried, *(s[0] if len(s) == 1 else c.g.op("concat", *s, axis=0) for s in stacks))


def _while_known(c: Node, body: GraphProto, names: list[str], init: list[Operand], starts: Any) -> Any:
    """No limit of trips: its condition must be known while it is read."""
    if starts is None:
        raise c.refuse("it has no limit of trips, and its condition is computed when it runs")
    if not bool(np.asarray(starts).reshape(-1)[0]):
        return tuple(init)
    return _unrolled(c, body, names, init, (1 << 10) + 1)


def _as_scan(c: Node, body: GraphProto, names: list[str], init: list[Operand], most: int) -> Any:
    first = c.reshape(c[1], ()) if c.has(1) else c.constant(np.asarray(True))
    numbers = c.constant(np.arange(most, dtype=np.int64))
    may_end: list[bool] = []

    def step(g: Any, carried: Any, row: Any) -> Any:
        going, *state = carried
        made = _trip(c, g, body, names, row[0], going, state)
        after, new, rows = made[0], made[1 : 1 + len(init)], made[1 + len(init) :]
        known = g.known(after)
        may_end.append(after is not going and (known is None or not bool(known.reshape(-1)[0])))
        if may_end[-1]:
            new = tuple(g.op("where", going, a, b) for a, b in zip(new, state))
            after = g.op("logical_and", going, g.op("reshape", after, shape=()))
        else:
            after = going
        return (after, *new), rows

    (_, *last), stacked = c.g.scan(step, [first, *init], [numbers])
    if stacked and (may_end[0] or c.g.known(first) is None):
        raise c.refuse("a condition that is computed when it runs decides how many rows its results have")
    return (*last, *stacked)
