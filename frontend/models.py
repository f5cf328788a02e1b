"""Small models that the demo, the benchmarks and the tests share."""

from __future__ import annotations

from . import nn


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv(in_channels, out_channels, kernel_size, stride, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def digits_cnn(width: int = 16) -> nn.Sequential:
    """A residual CNN for 8 x 8 images of ten classes: (n, 1, 8, 8) -> (n, 10) logits."""
    return nn.Sequential(
        conv_bn(1, width),
        nn.Residual(conv_bn(width, width)),
        nn.MaxPool2d(2),
        conv_bn(width, 2 * width),
        nn.Residual(conv_bn(2 * width, 2 * width)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 4, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 10),
    )


def mlp(in_features: int, hidden: int, classes: int, depth: int = 2) -> nn.Sequential:
    """Linear layers with ReLU between them: (n, in_features) -> (n, classes)."""
    layers: list[nn.Module] = []
    size = in_features
    for _ in range(depth):
        layers += [nn.Linear(size, hidden), nn.ReLU()]
        size = hidden
    return nn.Sequential(*layers, nn.Linear(size, classes))
