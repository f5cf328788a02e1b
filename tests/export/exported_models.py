"""Small models that the tests of exports share."""

import numpy as np

import frontend as ndl
from frontend import nn


class Words(nn.Module):
    """Rows of a table, through a recurrent layer: index checks, a loop, several kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.last = nn.Embedding(40, 12), nn.LSTM(12, 8), nn.Linear(8, 3)

    def forward(self, ids: ndl.Tensor) -> ndl.Tensor:
        return self.last(self.cell(self.table(ids))[0])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(16, 10)
    ).eval()


MODELS = {
    "cnn": (cnn(), np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype("float32")),
    "words": (Words().eval(), np.random.default_rng(0).integers(0, 40, (7, 2))),
}
