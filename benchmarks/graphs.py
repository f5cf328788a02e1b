"""Well-known networks as graphs with random weights, for benchmarks: what they compute does not matter, their shapes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tcomp


class _Network:
    """Layers over images (n, channels, height, width), their weights random and scaled so that values neither grow nor fade."""

    def __init__(self, batch: int, size: int) -> None:
        self.g = tcomp.GraphBuilder()
        self.rng = np.random.default_rng(0)
        self.x = self.g.input("x", (batch, 3, size, size))
        self.channels = 3

    def weight(self, *shape: int) -> Any:
        fan_in = int(np.prod(shape[1:]))
        return self.g.constant((self.rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))

    def conv(self, x: Any, out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> Any:
        """A convolution with a bias (a normalisation folded into it), and ReLU."""
        w = self.weight(out, self.channels // groups, kernel, kernel)
        y = self.g.op("conv2d", x, w, padding=kernel // 2, stride=stride, groups=groups)
        y = self.g.add(y, self.g.constant((self.rng.standard_normal((out, 1, 1)) * 0.1).astype(np.float32)))
        self.channels = out
        return self.g.relu(y) if act else y

    def head(self, x: Any, classes: int) -> tcomp.IRModule:
        y = self.g.op("global_avg_pool2d", x)
        y = self.g.reshape(y, shape=(y.type.shape[0], self.channels))
        return self.g.build(self.g.matmul(y, self.weight(self.channels, classes)))


def mobilenet_v2(batch: int = 1, size: int = 224) -> tcomp.IRModule:
    """M. Sandler et al., MobileNetV2, 2018."""
    n = _Network(batch, size)
    x = n.conv(n.x, 32, 3, 2)
    for expand, out, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for number in range(repeats):
            before, width = n.channels, n.channels * expand
            y = x if expand == 1 else n.conv(x, width, 1)
            y = n.conv(y, width, 3, stride if number == 0 else 1, groups=width)
            y = n.conv(y, out, 1, act=False)
            x = n.g.add(x, y) if before == out and (number or stride == 1) else y
    return n.head(n.conv(x, 1280, 1), 1000)


def resnet18(batch: int = 1, size: int = 224) -> tcomp.IRModule:
    """K. He et al., Deep Residual Learning, 2015."""
    n = _Network(batch, size)
    x = n.g.op("max_pool2d", n.conv(n.x, 64, 7, 2), kernel=3, stride=2, padding=1)
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for number in range(2):
            before, first = n.channels, stride if number == 0 else 1
            y = n.conv(n.conv(x, width, 3, first), width, 3, act=False)
            if before != width:
                n.channels = before
                x = n.conv(x, width, 1, first, act=False)
            x = n.g.relu(n.g.add(x, y))
    return n.head(x, 1000)


GRAPHS: dict[str, Callable[[int], tcomp.IRModule]] = {"mobilenet_v2": mobilenet_v2, "resnet18": resnet18}
"""Makers, of a batch size."""


def make(name: str, batch: int) -> tuple[tcomp.IRModule, list[np.ndarray]]:
    """One of them, and an input."""
    module = GRAPHS[name](batch)
    return module, [np.random.default_rng(1).random(module.main.params[0].type.shape, np.float32)]
