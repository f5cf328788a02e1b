"""Normalisation."""

from __future__ import annotations

from typing import Any

from .. import init, ops
from ..autograd import Tensor
from .module import Module, Parameter


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

    def describe(self) -> str:
        return str(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self._normalise(x, 1)

    def _normalise(self, x: Tensor, axis: int) -> Tensor:
        if x.shape[axis] != self.dim:
            raise ValueError(f"{type(self).__name__}({self.dim}) got a tensor of shape {x.shape}")
        mean, var = self.running_mean, self.running_var
        if self.training:
            others = tuple(d for d in range(x.ndim) if d != axis)
            mean, var = ops.mean(x, others), ops.var(x, others)
            keep = 1 - self.momentum
            for running, new in ((self.running_mean, mean), (self.running_var, var)):
                running.data = (running * keep + ops.cast(new, running.dtype) * self.momentum).data
        return ops.batch_norm(x, self.weight, self.bias, mean, var, axis, self.eps)


class BatchNorm2d(BatchNorm1d):
    """Batch normalisation of each channel of NCHW images (or of NHWC ones)."""

    def __init__(
        self,
        dim: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        device: Any = None,
        dtype: Any = "float32",
        layout: str = "NCHW",
    ) -> None:
        super().__init__(dim, eps, momentum, dtype=dtype)
        self.axis = layout.index("C")

    def forward(self, x: Tensor) -> Tensor:
        return self._normalise(x, self.axis)


class LayerNorm1d(Module):
    """Normalisation of each row of (..., dim) (J. L. Ba et al., 2016)."""

    def __init__(self, dim: int, eps: float = 1e-5, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.weight = Parameter(init.ones(dim, dtype=dtype))
        self.bias = Parameter(init.zeros(dim, dtype=dtype))

    def describe(self) -> str:
        return str(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


LayerNorm = LayerNorm1d


class RMSNorm(Module):
    """Each row of (..., dim) divided by its root mean square (B. Zhang and R. Sennrich, 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.weight = Parameter(init.ones(dim, dtype=dtype))

    def describe(self) -> str:
        return str(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class GroupNorm(Module):
    """Normalisation of groups of channels of (n, channels, ...) (Y. Wu and K. He, 2018)."""

    def __init__(
        self, num_groups: int, channels: int, eps: float = 1e-5, device: Any = None, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        if channels % num_groups:
            raise ValueError(f"{channels} channels do not make {num_groups} groups")
        self.num_groups = num_groups
        self.channels = channels
        self.eps = eps
        self.weight = Parameter(init.ones(channels, dtype=dtype))
        self.bias = Parameter(init.zeros(channels, dtype=dtype))

    def describe(self) -> str:
        return f"{self.num_groups}, {self.channels}"

    def forward(self, x: Tensor) -> Tensor:
        groups = ops.reshape(x, (x.shape[0], self.num_groups, -1))
        centred = groups - ops.mean(groups, -1, True)
        scaled = centred / ops.sqrt(ops.mean(centred * centred, -1, True) + self.eps)
        wide = (self.channels, *[1] * (x.ndim - 2))
        return ops.reshape(scaled, x.shape) * ops.reshape(self.weight, wide) + ops.reshape(self.bias, wide)
