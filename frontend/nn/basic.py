"""Layers without structure of their own: products, activations, containers."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import init, ops, random
from ..autograd import Tensor
from .module import Module, Parameter, Stack


class Identity(Module):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Linear(Module):
    """x @ weight + bias along the last axis, weight of shape (in_features, out_features)."""

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

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}"

    def forward(self, X: Tensor) -> Tensor:
        if X.shape[-1] != self.in_features:
            raise ValueError(f"Linear({self.in_features}, {self.out_features}) got a tensor of shape {X.shape}")
        y = X @ self.weight
        return y if self.bias is None else y + self.bias.reshape((self.out_features,))


class Embedding(Module):
    """A table of vectors, looked up by integers: (...,) -> (..., embedding_dim); its weight starts from N(0, 1)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = Parameter(init.randn(num_embeddings, embedding_dim, dtype=dtype))

    def describe(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"

    def forward(self, x: Tensor) -> Tensor:
        return ops.take(self.weight, x if x.dtype.kind in "iu" else ops.cast(x, "int64"))


class Flatten(Module):
    """(n, ...) -> (n, product)."""

    def forward(self, X: Tensor) -> Tensor:
        return X.reshape((X.shape[0], prod(X.shape[1:])))


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """x where it is positive, else slope * x."""

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.slope)


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class GELU(Module):
    """The Gaussian error linear unit; see `ops.gelu`."""

    def __init__(self, approximate: bool = False) -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x, self.approximate)


class SiLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.silu(x)


class Softmax(Module):
    """Along one axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.softmax(x, self.axis)


class Sequential(Stack):
    """Modules one after another."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]


class Dropout(Module):
    """Zeroes elements with probability p while training, and scales the others by 1 / (1 - p).

    Draws from `frontend.random`, which `init.seed` starts anew.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the probability must be in [0, 1), got {p}")
        self.p = p

    def describe(self) -> str:
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = ops.less(random.uniform(*x.shape), 1 - self.p)
        return ops.where(kept, x / (1 - self.p), 0)


class Residual(Module):
    """x + fn(x)."""

    def __init__(self, fn: Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x
