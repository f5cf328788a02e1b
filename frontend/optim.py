"""Optimizers, learning-rate schedules, and gradient clipping.

An optimizer is a rule from a parameter, its gradient and its state to the new parameter and the new state, written in tensor
operations; so the same rule runs eagerly and inside of a compiled training step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import ops
from .autograd import Tensor
from .differentiate import gradients
from .modes import no_grad

State = tuple[Tensor, ...]


class Optimizer:
    """Changes parameters by their gradients.

    Attributes:
        lr: the learning rate; may be changed at any time.
        t: steps done.
    """

    slots: tuple[str, ...] = ()
    """Names of a parameter's state; each starts from zeros of the parameter's shape."""

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("an optimizer needs at least one parameter")
        self.lr = lr
        self.t = 0
        self.state: dict[int, State] = {}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        """The new parameter and its new state.

        Args:
            hyper: numbers of this step (see `hyperparameters`), as numbers or as tensors without axes.
        """
        raise NotImplementedError

    def hyperparameters(self, t: Any) -> dict[str, Any]:
        """What changes from step to step: numbers that an update reads, for step t (from 1). In an exported step t and the learning rate are
        tensors without axes, and so is what depends on them."""
        return {"lr": self.lr}

    def initial_state(self, p: Tensor) -> State:
        """The state of a parameter before the first step."""
        return tuple(Tensor.make_const(np.zeros(p.shape, p.dtype)) for _ in self.slots)

    def step(self) -> None:
        """Change each parameter that has a gradient."""
        self.t += 1
        hyper = self.hyperparameters(self.t)
        with no_grad():
            for i, p in enumerate(self.params):
                if p.grad is None:
                    continue
                state = self.state[i] if i in self.state else self.initial_state(p)
                new, self.state[i] = self.update(p, p.grad, state, hyper)
                p.data = ops.cast(new, p.dtype)

    def reset_grad(self) -> None:
        """Forget all gradients."""
        for p in self.params:
            p.grad = None

    zero_grad = reset_grad

    def clip_grad_norm(self, max_norm: float = 0.25) -> float:
        """Scale all gradients so that their common norm is at most `max_norm`; the norm before."""
        return clip_grad_norm(self.params, max_norm)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the step count and of all state, by name."""
        found = {"t": np.asarray(self.t, np.int64)}
        for i, state in self.state.items():
            found |= {f"{i}.{name}": s.numpy() for name, s in zip(self.slots, state)}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the step count and all state.

        Raises:
            KeyError: a name is unknown, or one of a parameter's is missing. ValueError: a shape differs. Nothing is changed then.
        """
        known = {f"{i}.{name}" for i in range(len(self.params)) for name in self.slots}
        unknown = state.keys() - known - {"t"}
        if unknown or "t" not in state:
            raise KeyError(
                f"the state is not that of {type(self).__name__}: unknown {sorted(unknown)}, or no step count"
            )
        loaded: dict[int, State] = {}
        for i, p in enumerate(self.params):
            names = [f"{i}.{name}" for name in self.slots]
            if not any(n in state for n in names):
                continue
            missing = [n for n in names if n not in state]
            if missing:
                raise KeyError(f"the state of parameter {i} misses {missing}")
            arrays = [np.array(state[n], p.dtype) for n in names]
            if any(a.shape != p.shape for a in arrays):
                raise ValueError(
                    f"the state of parameter {i} has shapes {[a.shape for a in arrays]}, expected {p.shape}"
                )
            loaded[i] = tuple(map(Tensor.make_const, arrays))
        self.t, self.state = int(state["t"]), loaded


class GradientDescent(Optimizer):
    """p - lr * g."""

    def __init__(self, params: Sequence[Tensor], lr: float = 0.01) -> None:
        super().__init__(params, lr)

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        return p - g * hyper["lr"], ()


class SGD(Optimizer):
    """u = momentum * u + (1 - momentum) * g; p = p - lr * u: a running mean of the gradients.

    Args:
        unbiased: divide u by 1 - momentum^t, since it starts from zero.
        nesterov: step along momentum * u + (1 - momentum) * g, where u is the new mean (I. Sutskever et al., 2013).
        dampening: what of the gradient is left out of u; by default the momentum, as above. 0 gives the form of other libraries.
        weight_decay: times p, added to the gradient.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        unbiased: bool = False,
        nesterov: bool = False,
        dampening: float | None = None,
    ) -> None:
        super().__init__(params, lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.unbiased, self.nesterov = unbiased, nesterov
        self.dampening = momentum if dampening is None else dampening
        self.slots = ("u",) if momentum else ()

    def hyperparameters(self, t: Any) -> dict[str, Any]:
        """The learning rate, divided by the bias of the running mean where that is asked for."""
        scale = 1 - self.momentum**t if self.unbiased else 1.0
        return {"lr": self.lr / scale}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        if self.weight_decay:
            g = g + p * self.weight_decay
        if not self.momentum:
            return p - g * hyper["lr"], ()
        u = state[0] * self.momentum + g * (1 - self.dampening)
        direction = u * self.momentum + g * (1 - self.dampening) if self.nesterov else u
        return p - direction * hyper["lr"], (u,)


class Adam(Optimizer):
    """D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, 2015, with bias correction.

    Args:
        weight_decay: times p, added to the gradient.
    """

    slots = ("m", "v")

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.weight_decay = weight_decay

    def hyperparameters(self, t: Any) -> dict[str, Any]:
        """lr, and the divisors that correct the bias of both means (that of v under its root)."""
        return {"lr": self.lr / (1 - self.beta1**t), "root": 1 / _root(1 - self.beta2**t)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        if self.weight_decay:
            g = g + p * self.weight_decay
        return self._move(p, g, state, hyper)

    def _move(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        m = state[0] * self.beta1 + g * (1 - self.beta1)
        v = state[1] * self.beta2 + g * g * (1 - self.beta2)
        return p - m * hyper["lr"] / (ops.sqrt(v) * hyper["root"] + self.eps), (m, v)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p loses lr * weight_decay * p (I. Loshchilov and F. Hutter, 2019)."""

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, beta1, beta2, eps, weight_decay)

    def hyperparameters(self, t: Any) -> dict[str, Any]:
        """Adam's, and what is left of the weights."""
        return {**super().hyperparameters(t), "keep": 1 - self.lr * self.weight_decay}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        return self._move(p * hyper["keep"], g, state, hyper)


class RMSProp(Optimizer):
    """v = alpha * v + (1 - alpha) * g^2; p = p - lr * g / (sqrt(v) + eps) (T. Tieleman and G. Hinton, lecture 6.5, 2012)."""

    slots = ("v",)

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.alpha, self.eps, self.weight_decay = alpha, eps, weight_decay

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Mapping[str, Any]) -> tuple[Tensor, State]:
        if self.weight_decay:
            g = g + p * self.weight_decay
        v = state[0] * self.alpha + g * g * (1 - self.alpha)
        return p - g * hyper["lr"] / (ops.sqrt(v) + self.eps), (v,)


class Newton:
    """Newton's method for small problems: the step d with H d = g is found by conjugate gradients on Hessian-vector products.

    J. Nocedal and S. Wright, Numerical Optimization, 2nd ed., 2006, algorithm 7.1: the solve stops where it meets negative
    curvature, so that each step goes downhill, and the step is halved until the loss falls enough.

    Args:
        loss: a function without arguments, of the parameters.
        damping: times the identity, added to the Hessian.
        max_iterations: of conjugate gradients, in each step.
    """

    def __init__(
        self, params: Sequence[Tensor], loss: Callable[[], Tensor], damping: float = 0.0, max_iterations: int = 100
    ) -> None:
        self.params, self.loss = list(params), loss
        self.damping, self.max_iterations = damping, max_iterations

    def step(self) -> float:
        """Take a step; the loss before it."""
        value = self.loss()
        grads = gradients(value, self.params)
        g = _flat(grads)
        d = self._solve(grads, g)
        slope, before, length = float(g @ d), value.item(), 1.0
        start = [p.numpy() for p in self.params]
        while True:
            for p, a, part in zip(self.params, start, _parts(d, start)):
                p.data = Tensor.make_const((a - length * part).astype(a.dtype))
            with no_grad():
                after = self.loss().item()
            if after <= before - 1e-4 * length * slope or length < 1e-10:
                return before
            length /= 2

    def _solve(self, grads: Sequence[Tensor], g: np.ndarray) -> np.ndarray:
        shapes = [p.numpy() for p in self.params]
        tolerance = min(0.5, math.sqrt(np.linalg.norm(g))) * np.linalg.norm(g)
        d, r = np.zeros_like(g), g.copy()
        direction = r.copy()
        for i in range(self.max_iterations):
            if np.linalg.norm(r) <= tolerance * 1e-3:
                break
            vs = [Tensor.make_const(v.astype(a.dtype)) for v, a in zip(_parts(direction, shapes), shapes)]
            product = _flat(gradients(list(grads), self.params, vs, create_graph=False)) + self.damping * direction
            curvature = float(direction @ product)
            if curvature <= 0:
                return g if i == 0 else d
            length = float(r @ r) / curvature
            d = d + length * direction
            after = r - length * product
            direction = after + float(after @ after) / float(r @ r) * direction
            r = after
        return d


def _flat(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.concatenate([t.numpy().astype(np.float64).reshape(-1) for t in tensors])


def _parts(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([a.size for a in like])[:-1]
    return [part.reshape(a.shape) for part, a in zip(np.split(flat, ends), like)]


class LossScale:
    """Multiplies the loss, so that small gradients are not lost in a short type's products; a step whose gradients overflow is skipped.

    P. Micikevicius et al., Mixed Precision Training, 2018, section 3.2. float16 needs it; bfloat16 has the range of float32.

        scale.scale(loss).backward()
        scale.step(optimizer)

    Args:
        value: at first.
        growth: a factor after `interval` steps without overflow (None: the value is constant); backoff: a factor after an overflow.

    Attributes:
        value: now. good: steps since it changed.
    """

    def __init__(
        self, value: float = 2.0**16, growth: float = 2.0, backoff: float = 0.5, interval: int | None = 2000
    ) -> None:
        if value <= 0 or growth < 1 or not 0 < backoff <= 1 or (interval is not None and interval < 1):
            raise ValueError(
                f"a loss scale is positive, grows by 1 or more, shrinks by 1 or less, after at least one step; got value={value}, "
                f"growth={growth}, backoff={backoff}, interval={interval}"
            )
        self.value, self.growth, self.backoff, self.interval = value, growth, backoff, interval
        self.good = 0

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return loss * self.value

    def step(self, optimizer: Optimizer) -> bool:
        """Scale the gradients back, and take the step; where one is not finite, skip it. Whether it was taken."""
        grads = [p.grad for p in optimizer.params if p.grad is not None]
        for g in grads:
            g.cached_data = g.numpy() / g.dtype.type(self.value)
        finite = all(np.isfinite(g.numpy()).all() for g in grads)
        if finite:
            optimizer.step()
        self.update(finite)
        return finite

    def update(self, finite: bool) -> None:
        """Change the value after a step."""
        if self.interval is None:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value *= self.backoff
        elif self.good == self.interval:
            self.value, self.good = self.value * self.growth, 0


# gradient clipping


def clip_grad_norm(params: Sequence[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`; the norm before."""
    grads = [p.grad for p in params if p.grad is not None]
    norm = math.sqrt(sum(float(np.square(g.numpy(), dtype=np.float64).sum()) for g in grads))
    if norm > max_norm:
        for g in grads:
            g.cached_data = g.numpy() * g.dtype.type(max_norm / norm)
    return norm


def clip_grad_value(params: Sequence[Tensor], max_value: float) -> None:
    """Move every element of the gradients into [-max_value, max_value]."""
    for p in params:
        if p.grad is not None:
            p.grad.cached_data = np.clip(p.grad.numpy(), -max_value, max_value)


# learning-rate schedules


class LRScheduler:
    """Sets an optimizer's learning rate: lr_at(step) times the rate that it had at first.

    Args:
        factor: from the number of the step (0 before the first) to a factor.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self.optimizer, self.factor, self.base = optimizer, factor, optimizer.lr
        self.steps = 0
        optimizer.lr = self.base * factor(0)

    def step(self) -> float:
        """Go on by one step; the new learning rate."""
        self.steps += 1
        self.optimizer.lr = self.base * self.factor(self.steps)
        return self.optimizer.lr


def step_decay(every: int, gamma: float = 0.1) -> Callable[[int], float]:
    """Times gamma after every so many steps."""
    return lambda step: gamma ** (step // every)


def exponential_decay(gamma: float) -> Callable[[int], float]:
    """Times gamma after each step."""
    return lambda step: gamma**step


def cosine(total: int, warmup: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    """Up along a line for `warmup` steps, then down along half a cosine (I. Loshchilov and F. Hutter, SGDR, 2017) to `floor`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def linear(total: int, warmup: int = 0) -> Callable[[int], float]:
    """Up along a line for `warmup` steps, then down along one to 0."""

    def factor(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else max(0.0, (total - step) / max(1, total - warmup))

    return factor


def _root(x: Any) -> Any:
    return ops.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)
