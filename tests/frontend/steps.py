"""Small models, batches for them, and eager training steps, which the tests of compiled steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import frontend as ndl
from frontend import nn, optim

R = np.random.default_rng(21)


def eager_step(
    model: nn.Module, loss: Callable[..., Any], optimizer: optim.Optimizer, batch: list, seed: int = 0
) -> Any:
    """What a compiled step does, operator by operator."""
    ndl.random.seed(seed, optimizer.t + 1)
    optimizer.reset_grad()
    tensors = [ndl.Tensor(b, requires_grad=False) for b in batch]
    out = loss(model(*tensors[:-1]), tensors[-1]) if isinstance(loss, nn.Module) else loss(model, *tensors)
    value, *more = out if isinstance(out, tuple) else (out,)
    value.backward()
    optimizer.step()
    return (value.item(), *(t.numpy() for t in more)) if more else value.item()


def images() -> list[np.ndarray]:
    return [R.standard_normal((6, 3, 8, 8)).astype("float32"), R.integers(0, 5, 6)]


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Residual(nn.Sequential(nn.Conv(8, 8, 3, bias=False), nn.BatchNorm2d(8))), nn.MaxPool2d(2),
        nn.Conv(8, 6, 3, stride=2, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6, 5),
    )  # fmt: skip


def rows() -> list[np.ndarray]:
    return [R.standard_normal((7, 12)).astype("float32"), R.integers(0, 4, 7)]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4))  # fmt: skip


class Language(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 12)
        if kind == "transformer":
            self.body: nn.Module = nn.Transformer(12, 24, 2, num_head=2, dim_head=6, dropout=0.1, sequence_len=9)
        else:
            self.body = getattr(nn, kind)(12, 12, 2)
        self.head = nn.Linear(12, 11)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        return self.head(self.body(self.embedding(x))[0])


def text() -> list[np.ndarray]:
    return [R.integers(0, 11, (6, 3)), R.integers(0, 11, (6, 3))]


def pair(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A model twice. (No layer has a bias before a batch normalisation: its gradient is nothing but rounding, which Adam scales up; that
    of a key's bias, too.)"""
    np.random.seed(1)
    a = make()
    np.random.seed(1)
    return a, make()
