"""LSTM and GRU layers, as scans over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.graph import Operand
from ..calls import cut
from .node import Node
from .table import converts


@converts("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
def recurrent(
    c: Node, x: Any, states: Any, params: Sequence[Any], has_biases: bool, layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> Any:  # fmt: skip
    if train and dropout:
        raise c.refuse("dropout draws random numbers", "model.eval()")
    kind = c.op.split(".")[0]
    starts = list(states) if kind == "lstm" else [states]
    y = c.transpose(x, (1, 0, 2)) if batch_first else x
    each, ways = (4 if has_biases else 2), (2 if bidirectional else 1)
    if len(params) != each * ways * layers:
        raise c.refuse("projections are not read")
    last: list[list[Operand]] = []
    for layer in range(layers):
        parts = []
        for way in range(ways):
            n = layer * ways + way
            own = params[n * each : (n + 1) * each]
            first = [c.reshape(cut(c, s, [n], [n + 1], [0]), s.type.shape[1:]) for s in starts]
            rows = c.g.op("flip", y, axes=(0,)) if way else y
            stacked, final = _direction(c, kind, rows, own, first)
            parts.append(c.g.op("flip", stacked, axes=(0,)) if way else stacked)
            last.append(final)
        y = parts[0] if ways == 1 else c.g.op("concat", *parts, axis=2)
    ends = [[c.reshape(s, (1, *s.type.shape)) for s in column] for column in zip(*last)]
    joined = [e[0] if len(e) == 1 else c.g.op("concat", *e, axis=0) for e in ends]
    return (c.transpose(y, (1, 0, 2)) if batch_first else y, *joined)


def _direction(
    c: Node, kind: str, x: Operand, params: Sequence[Any], first: list[Operand]
) -> tuple[Operand, list[Operand]]:
    """(all hidden states, the last states) of one layer in one direction."""
    w, r, *biases = params
    time, batch, width = x.type.shape
    hidden = r.type.shape[1]
    flat = c.reshape(x, (time * batch, width))
    rows = c.g.op("linear", flat, w, biases[0]) if biases else c.g.op("linear", flat, w)
    if biases and kind != "gru":
        rows = c.g.op("add", rows, biases[1])
    rows = c.reshape(rows, (time, batch, w.type.shape[0]))

    def step(g: Any, carried: Any, row: Any) -> Any:
        inner = Node(g, c.op)
        piece = lambda t, i: cut(inner, t, [i * hidden], [(i + 1) * hidden], [1])
        h = carried[0]
        product = g.op("matmul", h, r, transposed=(False, True))
        if kind == "gru":
            product = g.op("add", product, biases[1]) if biases else product
            reset, update = (g.op("sigmoid", g.op("add", piece(row[0], i), piece(product, i))) for i in range(2))
            new = g.op("tanh", g.op("add", piece(row[0], 2), g.op("multiply", reset, piece(product, 2))))
            h = g.op("add", new, g.op("multiply", update, g.op("subtract", h, new)))
            return (h,), (h,)
        total = g.op("add", row[0], product)
        if kind != "lstm":
            h = g.op("tanh" if kind == "rnn_tanh" else "relu", total)
            return (h,), (h,)
        i, f, o = (g.op("sigmoid", piece(total, n)) for n in (0, 1, 3))
        cell = g.op("add", g.op("multiply", f, carried[1]), g.op("multiply", i, g.op("tanh", piece(total, 2))))
        h = g.op("multiply", o, g.op("tanh", cell))
        return (h, cell), (h,)

    last, (stacked,) = c.g.scan(step, first, [rows])
    return stacked, list(last)
