"""Memory for time: results that the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import random
from ..autograd import Tensor, TensorOp
from ..differentiate import gradients
from ..modes import PRECISION, assigned, enable_grad, no_grad


class OptimizationBarrier(TensorOp):
    """The first tensor, no earlier than the second: so that what is computed again is not taken for what was computed before."""

    is_differentiable = False

    def compute(self, a: np.ndarray, token: np.ndarray) -> np.ndarray:
        return a

    def lower(self, g: Any, a: Any, token: Any) -> Any:
        return g.optimization_barrier(a, token)


class Recomputed(TensorOp):
    """The result of a function of which only the inputs are kept: (result, inputs..., parameters...) -> result."""

    is_closed = False

    def __init__(self, f: Callable[..., Tensor], count: int, generator: random.Generator, stream: int) -> None:
        self.f, self.count, self.generator, self.stream = f, count, generator, stream
        self.precision = PRECISION.get()

    def compute(self, result: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        return result

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor | None, ...]:
        _, *given = node.inputs
        inputs, params = given[: self.count], given[self.count :]
        again = []
        for x in inputs:
            copy = OptimizationBarrier()(x.detach(), out_grad.detach())
            copy.requires_grad = x.requires_grad
            again.append(copy)
        replay = random.Generator(OptimizationBarrier()(self.generator.key, out_grad.detach()))
        replay.stream = self.stream
        with enable_grad(), random.using(replay), assigned():  # the same random numbers; no buffer changes twice
            result = self.f(*again)
        wanted = [x for x in (*again, *params) if x.requires_grad]
        found = {id(x): g for x, g in zip(wanted, gradients(result, wanted, [out_grad]))}
        return None, *(found.get(id(x)) for x in (*again, *params))

    def lower(self, g: Any, result: Any, *rest: Any) -> Any:
        return result


def recompute(f: Callable[..., Tensor], *inputs: Tensor, params: Sequence[Tensor] = ()) -> Tensor:
    """f(*inputs), of which the backward pass keeps the inputs alone, and computes the rest again (T. Chen et al., Training Deep
    Nets with Sublinear Memory Cost, 2016).

    Args:
        f: of tensors, with one tensor as result; it may draw random numbers and set buffers.
        params: further tensors that f depends on and that need gradients; first derivatives only.
    """
    generator = random.generator()
    stream = generator.stream
    with no_grad():
        result = f(*inputs)
    return Recomputed(f, len(inputs), generator, stream)(result, *inputs, *params)
