"""Small models that the demo, the benchmarks and the tests share."""

from __future__ import annotations

from typing import Any

from . import nn
from .autograd import Tensor


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


def resnet9(width: int = 16, classes: int = 10, size: int = 32) -> nn.Sequential:
    """A residual network of nine layers for images (n, 3, size, size): to (n, classes) logits.

    After CMU 10-414's ResNet9, of which it differs: its convolutions have no bias (the normalisation behind them has one), and the
    last one before the second residual block keeps the size (stride 1, not 2).
    """
    w, side = width, -(-size // 16)
    return nn.Sequential(
        conv_bn(3, w, 7, 4),
        conv_bn(w, 2 * w, 3, 2),
        nn.Residual(nn.Sequential(conv_bn(2 * w, 2 * w), conv_bn(2 * w, 2 * w))),
        conv_bn(2 * w, 4 * w, 3, 2),
        conv_bn(4 * w, 8 * w, 3, 1),
        nn.Residual(nn.Sequential(conv_bn(8 * w, 8 * w), conv_bn(8 * w, 8 * w))),
        nn.Flatten(),
        nn.Linear(8 * w * side * side, 8 * w),
        nn.ReLU(),
        nn.Linear(8 * w, classes),
    )


class LanguageModel(nn.Module):
    """An embedding, a recurrent layer or a transformer, and a linear layer: integers (steps, n) to logits (steps, n, vocabulary).

    Args:
        kind: rnn, lstm, gru or transformer.
        options: of the recurrent layer or the transformer.
    """

    def __init__(
        self, vocabulary: int, width: int, hidden: int, layers: int = 1, kind: str = "lstm", **options: Any
    ) -> None:
        super().__init__()
        kinds = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "transformer": nn.Transformer}
        if kind not in kinds:
            raise ValueError(f"unknown kind {kind!r}: one of {', '.join(kinds)}")
        self.embedding = nn.Embedding(vocabulary, width)
        self.body = kinds[kind](width, hidden, layers, **options)
        self.head = nn.Linear(width if kind == "transformer" else hidden, vocabulary)

    def forward(self, x: Tensor, h: Any = None) -> tuple[Tensor, Any]:
        """The logits, and the state behind the last step."""
        y, state = self.body(self.embedding(x), h)
        return self.head(y), state
