"""Module, and the layers that are not about images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from .. import init, ops
from ..autograd import Tensor
from ..trace import trace


class Parameter(Tensor):
    """A tensor that training changes."""


def _members(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, object) of the modules and tensors in a value."""
    if isinstance(value, (Module, Tensor)):
        yield prefix, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _members(v, f"{prefix}.{k}")
    elif isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            yield from _members(v, f"{prefix}.{i}")


class Module:
    """A layer or model: attributes that are Parameters or Modules (or lists, tuples, dicts of them) belong to it."""

    def __init__(self) -> None:
        self.training = True

    def _own(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.__dict__.items():
            yield from _members(value, name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        seen: set[int] = set()
        stack: list[Module] = [self]
        while stack:
            m = stack.pop()
            if id(m) not in seen:
                seen.add(id(m))
                yield m
                stack.extend(reversed([v for _, v in m._own() if isinstance(v, Module)]))

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all parameters and running statistics."""
        for name, value in self._own():
            if isinstance(value, Tensor):
                yield prefix + name, value
            else:
                yield from value.named_tensors(f"{prefix}{name}.")

    def parameters(self) -> list[Tensor]:
        """The parameters, each once."""
        found = {id(t): t for _, t in self.named_tensors() if isinstance(t, Parameter)}
        return list(found.values())

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and running statistics, by name."""
        return {name: t.numpy().copy() for name, t in self.named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set parameters and running statistics.

        Raises:
            KeyError: a name is missing or unknown. ValueError: a shape differs. Nothing is changed then.
        """
        own = dict(self.named_tensors())
        missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
        if missing or unknown:
            raise KeyError(f"state_dict does not fit: missing {sorted(missing)}, unknown {sorted(unknown)}")
        arrays = {name: np.asarray(value) for name, value in state.items()}
        for name, t in own.items():
            if arrays[name].shape != t.shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}, expected {t.shape}")
        for name, t in own.items():
            t.cached_data = arrays[name].astype(t.dtype).copy()

    def train(self) -> Module:
        """Switch dropout and batch statistics on."""
        for m in self.modules():
            m.training = True
        return self

    def eval(self) -> Module:
        """Switch dropout and batch statistics off."""
        for m in self.modules():
            m.training = False
        return self

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)

    def __tcomp_trace__(self, inputs: list[Any]) -> Any:
        """How `tcomp.compile` meets a model: the module's IRModule, for inputs like the given ones."""
        return trace(self, inputs)


class Identity(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Linear(Module):
    """x @ weight + bias, weight of shape (in_features, out_features)."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(init.kaiming_uniform(in_features, out_features, dtype=dtype))
        self.bias = (
            Parameter(init.kaiming_uniform(out_features, 1, dtype=dtype).reshape((1, out_features))) if bias else None
        )

    def forward(self, X: Tensor) -> Tensor:
        y = X @ self.weight
        return y if self.bias is None else y + self.bias.broadcast_to(y.shape)


class Flatten(Module):
    """(n, ...) -> (n, product)."""

    def forward(self, X: Tensor) -> Tensor:
        return X.reshape((X.shape[0], prod(X.shape[1:])))


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Sequential(Module):
    """Modules one after another."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        self.layers = modules

    def forward(self, x: Tensor) -> Tensor:
        for module in self.layers:
            x = module(x)
        return x


class SoftmaxLoss(Module):
    """The mean cross entropy of logits (n, classes) and integer labels (n,)."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        n, classes = logits.shape
        chosen = ops.summation(logits * init.one_hot(classes, y, dtype=logits.dtype))
        return (ops.summation(ops.logsumexp(logits, axes=(1,))) - chosen) / n


class BatchNorm1d(Module):
    """Batch normalisation of (n, dim), with running statistics for evaluation (S. Ioffe and C. Szegedy, 2015)."""

    def __init__(
        self, dim: int, eps: float = 1e-5, momentum: float = 0.1, device: Any = None, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.momentum = momentum
        self.weight = Parameter(init.ones(dim, dtype=dtype))
        self.bias = Parameter(init.zeros(dim, dtype=dtype))
        self.running_mean = init.zeros(dim, dtype=dtype)
        self.running_var = init.ones(dim, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return ops.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, 1, self.eps)
        n = x.shape[0]
        mean = x.sum((0,)) / n
        centred = x - mean.reshape((1, self.dim)).broadcast_to(x.shape)
        var = (centred * centred).sum((0,)) / n
        keep = 1 - self.momentum
        self.running_mean.data = (self.running_mean * keep + mean * self.momentum).data
        self.running_var.data = (self.running_var * keep + var * self.momentum).data
        spread = ops.sqrt(var + self.eps).reshape((1, self.dim)).broadcast_to(x.shape)
        scaled = centred / spread
        return self.weight.broadcast_to(x.shape) * scaled + self.bias.broadcast_to(x.shape)


class LayerNorm1d(Module):
    """Normalisation of each row of (n, dim) (J. L. Ba et al., 2016)."""

    def __init__(self, dim: int, eps: float = 1e-5, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.weight = Parameter(init.ones(dim, dtype=dtype))
        self.bias = Parameter(init.zeros(dim, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        rows = (x.shape[0], 1)
        mean = (x.sum((1,)) / self.dim).reshape(rows).broadcast_to(x.shape)
        centred = x - mean
        var = ((centred * centred).sum((1,)) / self.dim).reshape(rows).broadcast_to(x.shape)
        return self.weight.broadcast_to(x.shape) * (centred / ops.sqrt(var + self.eps)) + self.bias.broadcast_to(
            x.shape
        )


class Dropout(Module):
    """Zeroes elements with probability p while training, and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the probability must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * init.randb(*x.shape, p=1 - self.p, dtype=x.dtype) / (1 - self.p)


class Residual(Module):
    """x + fn(x)."""

    def __init__(self, fn: Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x
