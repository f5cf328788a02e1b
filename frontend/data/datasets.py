"""Data sets that need no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .loader import Dataset


class NDArrayDataset(Dataset):
    """Arrays of equal length as examples."""

    def __init__(self, *arrays: Any) -> None:
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)


class DigitsDataset(Dataset):
    """The 1,797 handwritten digits (8 x 8) that scikit-learn carries (UCI Optical Recognition of Handwritten Digits).

    An example is (image (1, 8, 8) float32 in [0, 1], label int64). A fixed, stratified fifth is the test set.

    Args:
        train: the training part, else the test part.
        transforms: applied to each image as an 8 x 8 x 1 array.
    """

    def __init__(self, train: bool = True, transforms: Sequence[Any] | None = None) -> None:
        super().__init__(transforms)
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError("the digits need scikit-learn: pip install tcomp[data]") from error
        digits = load_digits()
        test = np.zeros(len(digits.target), bool)
        rng = np.random.default_rng(0)
        for label in range(10):
            where = np.flatnonzero(digits.target == label)
            test[rng.permutation(where)[: len(where) // 5]] = True
        chosen = ~test if train else test
        self.X = (digits.images[chosen] / 16).astype("float32")[:, None]
        self.y = digits.target[chosen].astype("int64")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        x = self.X[index]
        if self.transforms:
            x = self.apply_transforms(x.transpose(1, 2, 0)).transpose(2, 0, 1)
        return x, self.y[index]
