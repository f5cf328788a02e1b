"""Dataset and DataLoader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


def collate(examples: Sequence[Any]) -> tuple[Tensor, ...]:
    """Examples, tuples of arrays or numbers, stacked to a tuple of tensors."""
    columns = zip(*(e if isinstance(e, tuple) else (e,) for e in examples))
    return tuple(Tensor.make_const(np.stack([np.asarray(x) for x in column])) for column in columns)


class DataLoader:
    """Walks through a dataset in batches of Tensors.

    Args:
        batch_size: examples of a batch.
        shuffle: in a new random order each time (NumPy's global generator).
        drop_last: leave out a last batch with fewer examples.
        seed: shuffle by this number and the epoch alone, so that a resumed run goes on in the same order.
        num_workers: threads that make batches ahead, in order; with 0 each is made when it is asked for. Transforms that
            draw random numbers then do so in no fixed order.
        collate_fn: from a list of examples to a batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | None = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Sequence[Any]], Any] = collate,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if batch_size is None or batch_size < 1:
            raise ValueError(f"a batch holds at least one example, got batch_size={batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers is not negative, got {num_workers}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.num_workers = num_workers
        self.collate_fn = collate_fn

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[Any]:
        walk = self.batches(self.epoch)
        self.epoch += 1
        return walk

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from some number on."""
        order = np.arange(len(self.dataset))
        if self.shuffle:
            draw = np.random if self.seed is None else np.random.default_rng([self.seed, epoch])
            order = draw.permutation(len(self.dataset))
        parts = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(start, len(self))]
        return self._ahead(parts) if self.num_workers else map(self._batch, parts)

    def _batch(self, index: np.ndarray) -> Any:
        return self.collate_fn([self.dataset[int(i)] for i in index])

    def _ahead(self, parts: list[np.ndarray]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(self.num_workers) as pool:
            try:
                for part in parts:
                    waiting.append(pool.submit(self._batch, part))
                    if len(waiting) > 2 * self.num_workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # the walk may end before its end
                for future in waiting:
                    future.cancel()
