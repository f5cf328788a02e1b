"""Optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .autograd import Tensor


class Optimizer:
    """Changes parameters by their gradients."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = list(params)

    def step(self) -> None:
        """Change each parameter that has a gradient."""
        raise NotImplementedError

    def reset_grad(self) -> None:
        """Forget all gradients."""
        for p in self.params:
            p.grad = None


class SGD(Optimizer):
    """Stochastic gradient descent: u = momentum u + (1 - momentum) g; p = p - lr u."""

    def __init__(
        self, params: Sequence[Tensor], lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.u: dict[int, np.ndarray] = {}

    def step(self) -> None:
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            g = p.grad.numpy() + self.weight_decay * p.numpy()
            self.u[i] = self.momentum * self.u.get(i, 0.0) + (1 - self.momentum) * g
            p.cached_data = (p.numpy() - self.lr * self.u[i]).astype(p.dtype)

    def clip_grad_norm(self, max_norm: float = 0.25) -> None:
        """Scale all gradients so that their common norm is at most `max_norm`."""
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = float(np.sqrt(sum(float((g.numpy() ** 2).sum()) for g in grads)))
        if norm > max_norm:
            for g in grads:
                g.cached_data = g.numpy() * g.dtype.type(max_norm / norm)


class Adam(Optimizer):
    """D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, 2015, with bias correction."""

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params)
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.weight_decay = weight_decay
        self.t = 0
        self.m: dict[int, np.ndarray] = {}
        self.v: dict[int, np.ndarray] = {}

    def step(self) -> None:
        self.t += 1
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            g = p.grad.numpy() + self.weight_decay * p.numpy()
            self.m[i] = self.beta1 * self.m.get(i, 0.0) + (1 - self.beta1) * g
            self.v[i] = self.beta2 * self.v.get(i, 0.0) + (1 - self.beta2) * g * g
            m = self.m[i] / (1 - self.beta1**self.t)
            v = self.v[i] / (1 - self.beta2**self.t)
            p.cached_data = (p.numpy() - self.lr * m / (np.sqrt(v) + self.eps)).astype(p.dtype)
