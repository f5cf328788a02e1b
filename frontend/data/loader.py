"""Dataset and DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor


class Dataset:
    """Examples by number. `transforms` are applied to the first element of each example."""

    def __init__(self, transforms: Sequence[Any] | None = None) -> None:
        self.transforms = transforms

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def apply_transforms(self, x: Any) -> Any:
        for transform in self.transforms or ():
            x = transform(x)
        return x


class DataLoader:
    """Walks through a dataset in batches of Tensors.

    Args:
        batch_size: examples of a batch; the last one may have fewer.
        shuffle: in a new random order each time (NumPy's global generator).
    """

    def __init__(self, dataset: Dataset, batch_size: int | None = 1, shuffle: bool = False) -> None:
        if batch_size is None or batch_size < 1:
            raise ValueError(f"a batch holds at least one example, got batch_size={batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = np.random.permutation(len(self.dataset)) if self.shuffle else np.arange(len(self.dataset))
        for start in range(0, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, index: np.ndarray) -> tuple[Tensor, ...]:
        examples = [self.dataset[int(i)] for i in index]
        columns = zip(*(e if isinstance(e, tuple) else (e,) for e in examples))
        return tuple(Tensor.make_const(np.stack([np.asarray(x) for x in column])) for column in columns)
