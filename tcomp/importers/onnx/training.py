"""One step of an optimizer (ai.onnx.preview.training)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Operand
from .node import Node
from .table import converts

TRAINING = "ai.onnx.preview.training"


class _Sums:
    """Arithmetic of operands and numbers."""

    def __init__(self, c: Node, x: Operand) -> None:
        self.c, self.x = c, x

    def _of(self, other: Any) -> Operand:
        return other.x if isinstance(other, _Sums) else self.c.constant(other, self.x)

    def _with(self, op: str, other: Any) -> _Sums:
        return _Sums(self.c, self.c.g.op(op, self.x, self._of(other)))

    def __add__(self, other: Any) -> _Sums:
        return self._with("add", other)

    def __sub__(self, other: Any) -> _Sums:
        return self._with("subtract", other)

    def __mul__(self, other: Any) -> _Sums:
        return self._with("multiply", other)

    def __truediv__(self, other: Any) -> _Sums:
        return self._with("divide", other)

    def sqrt(self) -> _Sums:
        return _Sums(self.c, self.c.g.op("sqrt", self.x))


def _groups(c: Node, kinds: int) -> list[list[_Sums]]:
    """The tensors of each parameter: the inputs hold all of one kind, then all of the next."""
    tensors = [_Sums(c, c[i]) for i in range(2, len(c.inputs))]
    count = len(tensors) // kinds
    return [[tensors[k * count + i] for k in range(kinds)] for i in range(count)]


def _results(columns: list[tuple[_Sums, ...]]) -> tuple[Operand, ...]:
    return tuple(t.x for kind in zip(*columns) for t in kind)


def _step(c: Node) -> tuple[_Sums, Operand]:
    """The learning rate, and the number of the step as a float."""
    return _Sums(c, c.reshape(c[0], ())), c.cast(c.reshape(c[1], ()), c.type_of(0).dtype)


@converts("Adagrad", domain=TRAINING)
def adagrad(c: Node) -> Any:
    rate, t = _step(c)
    decay, eps, norm = c.attr("decay_factor", 0.0), c.attr("epsilon", 0.0), c.attr("norm_coefficient", 0.0)
    r = rate / (_Sums(c, t) * decay + 1.0)
    made = []
    for x, grad, h in _groups(c, 3):
        g = x * norm + grad
        new = h + g * g
        made.append((x - r * g / (new.sqrt() + eps), new))
    return _results(made)


@converts("Adam", domain=TRAINING)
def adam(c: Node) -> Any:
    rate, t = _step(c)
    alpha, beta, eps = c.attr("alpha", 0.9), c.attr("beta", 0.999), c.attr("epsilon", 0.0)
    norm, post = c.attr("norm_coefficient", 0.0), c.attr("norm_coefficient_post", 0.0)
    power = lambda base: _Sums(c, c.g.op("power", c.constant(base, t), t))
    one = _Sums(c, c.constant(1.0, t))
    corrected = rate * (one - power(beta)).sqrt() / (one - power(alpha))
    first = c.g.op("greater", t, c.constant(0, t))
    r = _Sums(c, c.g.op("where", first, corrected.x, rate.x))
    made = []
    for x, grad, v, h in _groups(c, 4):
        g = x * norm + grad
        v_new, h_new = v * alpha + g * (1 - alpha), h * beta + g * g * (1 - beta)
        made.append(((x - r * v_new / (h_new.sqrt() + eps)) * (1 - post), v_new, h_new))
    return _results(made)


@converts("Momentum", domain=TRAINING)
def momentum(c: Node) -> Any:
    rate, t = _step(c)
    alpha, beta, norm = c.attr("alpha", 0.0), c.attr("beta", 0.0), c.attr("norm_coefficient", 0.0)
    nesterov = c.needed("mode", str) == "nesterov"
    later = c.g.op("greater", t, c.constant(np.asarray(0), t))
    factor = _Sums(c, c.g.op("where", later, c.constant(beta, t), c.constant(1.0, t)))
    made = []
    for x, grad, v in _groups(c, 3):
        g = x * norm + grad
        new = v * alpha + g * factor
        made.append((x - rate * (g + new * alpha if nesterov else new), new))
    return _results(made)
