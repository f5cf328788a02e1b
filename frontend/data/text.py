"""Text as numbers: vocabularies, corpora, and batches of sequences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from ..autograd import Tensor


class Dictionary:
    """Words (or characters) and their numbers, in the order in which they were added."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.word2idx: dict[str, int] = {}
        self.idx2word: list[str] = []
        for word in words:
            self.add_word(word)

    def add_word(self, word: str) -> int:
        """The number of a word; a new one if it is not known yet."""
        if word not in self.word2idx:
            self.word2idx[word] = len(self.idx2word)
            self.idx2word.append(word)
        return self.word2idx[word]

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """The numbers of known words.

        Raises:
            KeyError: a word is not known.
        """
        return np.array([self.word2idx[w] for w in words], np.int64)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The words of numbers."""
        return [self.idx2word[int(n)] for n in numbers]

    def __len__(self) -> int:
        return len(self.idx2word)


class Corpus:
    """Words of train.txt and test.txt in a folder, as the Penn Treebank's files have them; each line ends with <eos>.

    Args:
        max_lines: read no more lines of each file.

    Attributes:
        train, test: lists of numbers.
    """

    def __init__(self, base_dir: str, max_lines: int | None = None) -> None:
        self.dictionary = Dictionary()
        self.train = self.tokenize(Path(base_dir) / "train.txt", max_lines)
        self.test = self.tokenize(Path(base_dir) / "test.txt", max_lines)

    def tokenize(self, path: str | Path, max_lines: int | None = None) -> list[int]:
        """The numbers of a file's words; new ones join the dictionary."""
        found: list[int] = []
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file):
                if max_lines is not None and number >= max_lines:
                    break
                found += [self.dictionary.add_word(word) for word in (*line.split(), "<eos>")]
        return found


def batchify(data: Any, batch_size: int, device: Any = None, dtype: Any = None) -> np.ndarray:
    """A sequence cut into `batch_size` columns, one after another: (steps, batch_size); what is left over at the end goes."""
    values = np.asarray(data, dtype)
    steps = len(values) // batch_size
    if steps < 1:
        raise ValueError(f"{len(values)} elements do not fill {batch_size} columns")
    return np.ascontiguousarray(values[: steps * batch_size].reshape(batch_size, steps).T)


def get_batch(batches: np.ndarray, i: int, bptt: int, device: Any = None, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Rows i to i + bptt of `batchify`'s result (fewer at its end), and, flat, the rows that follow each."""
    steps = min(bptt, len(batches) - 1 - i)
    if steps < 1:
        raise IndexError(f"row {i} has no row behind it: there are {len(batches)}")
    data, target = batches[i : i + steps], batches[i + 1 : i + 1 + steps]
    return Tensor.make_const(np.array(data, dtype)), Tensor.make_const(np.array(target.reshape(-1), dtype))


def python_topics() -> str:
    """The help texts on Python's language that every Python carries (`pydoc_data.topics`), about half a million characters."""
    return "\n\n".join(text for _, text in sorted(topics.items()))
