"""RNN, GRU and LSTM, as scans over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import cut, limited
from .movement import reverse_rows
from .node import Node
from .quantization import dynamically, integer_product
from .table import MICROSOFT, converts

_SIMPLE = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _activation(c: Node, name: str, alpha: float | None, beta: float | None) -> Callable[[Any, Operand], Operand]:
    """builder, tensor -> tensor.

    Raises:
        UnsupportedError: an unknown one.
    """
    lower = name.lower()
    simple = {k.lower(): v for k, v in _SIMPLE.items()}
    if lower in simple:
        return lambda g, x: g.op(simple[lower], x)
    a, b = alpha, beta
    match lower:
        case "affine":
            a, b = 1.0 if a is None else a, 0.0 if b is None else b
            return lambda g, x: g.op("add_scalar", g.op("multiply_scalar", x, scalar=a), scalar=b)
        case "leakyrelu":
            return lambda g, x: g.op("leaky_relu", x, slope=0.01 if a is None else a)
        case "hardsigmoid":
            return lambda g, x: g.op("hardsigmoid", x, slope=0.2 if a is None else a, offset=0.5 if b is None else b)
        case "elu":
            return lambda g, x: g.op("elu", x, alpha=1.0 if a is None else a)
        case "scaledtanh":
            a, b = 1.0 if a is None else a, 1.0 if b is None else b
            return lambda g, x: g.op("multiply_scalar", g.op("tanh", g.op("multiply_scalar", x, scalar=b)), scalar=a)
    raise c.refuse(f"activation {name!r} is unknown")


@dataclass
class _Direction:
    """One direction of a layer.

    Attributes:
        x: (time, batch, gates * hidden): the inputs' products, with the biases that are added to them.
        recurrent: (builder, hidden state, first and last gate's row, or all) -> its product with recurrent weights.
        bias: of that product, or None; peepholes: of an LSTM's input, output and forget gates, or None.
    """

    x: Operand
    recurrent: Callable[..., Operand]
    bias: Operand | None
    peepholes: Sequence[Operand] | None
    acts: Sequence[Callable[[Any, Operand], Operand]]
    h: Operand
    c: Operand | None


@converts("RNN", "GRU", "LSTM")
def recurrent(c: Node) -> Any:
    def products(w: Operand, r: Operand, d: int) -> tuple[Any, Any]:
        def inputs(g: Any, x: Operand) -> Operand:
            return g.op("matmul", x, w, transposed=(False, True))

        def state(g: Any, h: Operand, first: int = 0, end: int = 0) -> Operand:
            rows = cut(c, r, [first], [end], [0]) if end else r
            return g.op("matmul", h, rows, transposed=(False, True))

        return inputs, state

    return _layer(c, c.op, products, c[1], c[2], 3)


@converts("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(c: Node) -> Any:
    """Weights in 8 bits, (directions, in, 4 * hidden); what they are multiplied with is quantized on the way."""
    scales = [(c[8], c[9]), (c[10], c[11])]

    def products(w: Operand, r: Operand, d: int) -> tuple[Any, Any]:
        def by(weights: Operand, scale: Operand, zero: Operand) -> Any:
            scale, zero = (_one(c, t, d) for t in (scale, zero))

            def apply(g: Any, x: Operand) -> Operand:
                inner = Node(g, c.op, c.label, c.version, c.inputs, c.attrs, c.num_outputs)
                y, own, point = dynamically(inner, x)
                total = integer_product(inner, y, weights, point, zero)
                factor = g.op("multiply", own, scale)
                return g.op("multiply", g.op("cast", total, dtype="float32"), factor)

            return apply

        return by(w, *scales[0]), by(r, *scales[1])

    return _layer(c, "LSTM", products, c[1], c[2], 3)


def _one(c: Node, t: Operand, d: int) -> Operand:
    """What belongs to one direction."""
    return c.g.op("take", t, c.constant(np.asarray(min(d, t.type.shape[0] - 1))), axis=0)


def _layer(c: Node, kind: str, products: Any, w: Operand, r: Operand, bias_at: int) -> Any:
    """The results of a layer: all steps, the last hidden state, the last cell state."""
    x, g = c[0], c.g
    if c.attr("layout", 0):
        x = c.transpose(x, (1, 0, 2))
    time, batch, _ = x.type.shape
    directions, hidden = w.type.shape[0], c.needed("hidden_size", int)
    way = c.attr("direction", "forward")
    lengths = c[4] if c.has(4) else None
    known = None if lengths is None else g.known(lengths)
    if known is not None and isinstance(time, int) and (known == time).all():
        lengths = None
    results = []
    for d in range(directions):
        backward = way == "reverse" or d == 1
        rows = x
        if backward:
            rows = g.op("flip", x, axes=(0,)) if lengths is None else reverse_rows(c, x, lengths)
        part = _direction(c, kind, products, rows, w, r, d, hidden, bias_at)
        stacked, last = _run(c, kind, part, hidden, lengths)
        if backward:
            stacked = g.op("flip", stacked, axes=(0,)) if lengths is None else reverse_rows(c, stacked, lengths)
        results.append((stacked, *last))
    return _together(c, results, time, batch, hidden)


def _together(c: Node, results: Sequence[Sequence[Operand]], time: Any, batch: Any, hidden: int) -> tuple[Operand, ...]:
    """The directions side by side, in the order of axes that the node asks for."""
    first = bool(c.attr("layout", 0))
    y = [c.reshape(r[0], (time, 1, batch, hidden)) for r in results]
    whole = y[0] if len(y) == 1 else c.g.op("concat", *y, axis=1)
    out = [c.transpose(whole, (2, 0, 1, 3)) if first else whole]
    for i in range(1, len(results[0])):
        last = [c.reshape(r[i], (1, batch, hidden)) for r in results]
        joined = last[0] if len(last) == 1 else c.g.op("concat", *last, axis=0)
        out.append(c.transpose(joined, (1, 0, 2)) if first else joined)
    return tuple(out)


def _direction(
    c: Node, kind: str, products: Any, x: Operand, w: Operand, r: Operand, d: int, hidden: int, bias_at: int
) -> _Direction:
    g, gates = c.g, _GATES[kind]
    inputs, state = products(_one(c, w, d), _one(c, r, d), d)
    names = c.attr("activations", list(_DEFAULTS[kind]) * w.type.shape[0])
    count = len(_DEFAULTS[kind])
    alphas, betas = (list(c.attr(key, [])) for key in ("activation_alpha", "activation_beta"))
    acts = [
        _activation(c, name, *(v[i] if i < len(v) else None for v in (alphas, betas)))
        for i, name in list(enumerate(names))[d * count : (d + 1) * count]
    ]
    time, batch, features = x.type.shape
    rows = inputs(g, c.reshape(x, (time * batch, features)))
    bias = None
    if c.has(bias_at):
        both = _one(c, c[bias_at], d)
        own, other = (cut(c, both, [i * gates * hidden], [(i + 1) * gates * hidden], [0]) for i in range(2))
        rows = g.op("add", rows, own)
        if kind == "GRU" and c.attr("linear_before_reset", 0):
            bias = other
        else:
            rows = g.op("add", rows, other)
    peepholes = None
    if kind == "LSTM" and c.has(7):
        whole = _one(c, c[7], d)
        peepholes = [cut(c, whole, [i * hidden], [(i + 1) * hidden], [0]) for i in range(3)]
    start = [_state(c, i, d, batch, hidden, x) for i in (5, 6)]
    return _Direction(
        c.reshape(rows, (time, batch, gates * hidden)), state, bias, peepholes, acts, start[0],
        start[1] if kind == "LSTM" else None,
    )  # fmt: skip


def _state(c: Node, at: int, d: int, batch: Any, hidden: int, x: Operand) -> Operand:
    """An initial state, zeros where none is given."""
    if not c.has(at):
        return c.zeros((batch, hidden), x.type.dtype)
    given = c[at]
    if c.attr("layout", 0):
        given = c.transpose(given, (1, 0, 2))
    return _one(c, given, d)


def _run(c: Node, kind: str, part: _Direction, hidden: int, lengths: Operand | None) -> tuple[Operand, list[Operand]]:
    """(all hidden states, [the last of each state]) of one direction; steps beyond a sequence's end change nothing and give zeros."""
    step = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}[kind]
    clip = c.attr("clip", 0.0)
    init = [part.h] if part.c is None else [part.h, part.c]
    time = part.x.type.shape[0]
    rows = [part.x]
    if lengths is not None:
        if not isinstance(time, int):
            raise c.refuse("sequences of their own lengths need a known number of steps", "dims= or shapes= fix it")
        steps = c.constant(np.arange(time, dtype=np.int64).reshape(time, 1))
        alive = c.g.op("less", steps, c.reshape(c.cast(lengths, "int64"), (1, -1)))
        rows.append(c.reshape(alive, (time, alive.type.shape[1], 1)))

    def body(g: Any, carried: Any, row: Any) -> Any:
        inner = Node(g, c.op, c.label, c.version, c.inputs, c.attrs, c.num_outputs)
        new = step(inner, part, carried, row[0], hidden, clip)
        shown = new[0]
        if lengths is not None:
            new = [g.op("where", row[1], a, b) for a, b in zip(new, carried)]
            shown = g.op("where", row[1], shown, inner.constant(0, shown))
        return tuple(new), (shown,)

    last, (stacked,) = c.g.scan(body, init, rows)
    return stacked, list(last)


def _clipped(c: Node, x: Operand, clip: float) -> Operand:
    return limited(c, x, -clip, clip) if clip else x


def _rnn_step(c: Node, p: _Direction, carried: Any, x: Operand, hidden: int, clip: float) -> list[Operand]:
    total = c.g.op("add", x, p.recurrent(c.g, carried[0]))
    return [p.acts[0](c.g, _clipped(c, total, clip))]


def _gru_step(c: Node, p: _Direction, carried: Any, x: Operand, hidden: int, clip: float) -> list[Operand]:
    """K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014; gates z, r, h."""
    g, (h,) = c.g, carried
    f, f_new = p.acts[:2]
    after = bool(c.attr("linear_before_reset", 0))
    product = p.recurrent(g, h) if after else p.recurrent(g, h, 0, 2 * hidden)
    if p.bias is not None:
        product = g.op("add", product, p.bias)

    def piece(t: Operand, i: int) -> Operand:
        return cut(c, t, [i * hidden], [(i + 1) * hidden], [1])

    z, r = (f(g, _clipped(c, g.op("add", piece(x, i), piece(product, i)), clip)) for i in range(2))
    inner = (
        g.op("multiply", r, piece(product, 2))
        if after
        else p.recurrent(g, g.op("multiply", r, h), 2 * hidden, 3 * hidden)
    )
    new = f_new(g, _clipped(c, g.op("add", piece(x, 2), inner), clip))
    one = c.constant(1, z)
    return [g.op("add", g.op("multiply", g.op("subtract", one, z), new), g.op("multiply", z, h))]


def _lstm_step(c: Node, p: _Direction, carried: Any, x: Operand, hidden: int, clip: float) -> list[Operand]:
    """S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997, with forget gates and peepholes; gates i, o, f, c."""
    g, (h, cell) = c.g, carried
    f, f_cell, f_out = p.acts[:3]
    total = g.op("add", x, p.recurrent(g, h))
    i, o, forget, new = (cut(c, total, [n * hidden], [(n + 1) * hidden], [1]) for n in range(4))

    def seen(gate: Operand, n: int, of: Operand) -> Operand:
        if p.peepholes is None:
            return gate
        return g.op("add", gate, g.op("multiply", p.peepholes[n], of))

    i = f(g, _clipped(c, seen(i, 0, cell), clip))
    if c.attr("input_forget", 0):
        keeps = g.op("subtract", c.constant(1, i), i)
    else:
        keeps = f(g, _clipped(c, seen(forget, 2, cell), clip))
    state = g.op("add", g.op("multiply", keeps, cell), g.op("multiply", i, f_cell(g, _clipped(c, new, clip))))
    o = f(g, _clipped(c, seen(o, 1, state), clip))
    return [g.op("multiply", o, f_out(g, state)), state]
