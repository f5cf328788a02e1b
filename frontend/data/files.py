"""Readers of data sets that the user has on disk: MNIST, CIFAR-10."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .loader import Dataset


def read_idx(path: str | Path) -> np.ndarray:
    """An array of bytes from a file in MNIST's idx format, gzipped or not.

    Raises:
        ValueError: the file is something else, or is cut short.
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no idx file of bytes")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if not shape or len(raw) - start != int(np.prod(shape)):
        raise ValueError(f"{path} holds {len(raw) - start} bytes, its header says {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


class MNISTDataset(Dataset):
    """Images (28, 28, 1) in [0, 1] and labels, from the two files of MNIST (or of one in its format)."""

    def __init__(self, image_filename: str, label_filename: str, transforms: Sequence[Any] | None = None) -> None:
        super().__init__(transforms)
        self.images = (read_idx(image_filename)[..., None] / 255).astype("float32")
        self.labels = read_idx(label_filename)
        if len(self.images) != len(self.labels):
            raise ValueError(f"there are {len(self.images)} images, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        x = self.images[index]
        return (self.apply_transforms(x) if self.transforms else x), self.labels[index]


class CIFAR10Dataset(Dataset):
    """Images (3, 32, 32) in [0, 1] and labels, from the folder cifar-10-batches-py.

    Args:
        train: the five training files, else the test file.
        p: the chance that the default transforms, which are none, are applied (kept for code that names it).
        transforms: applied to images (32, 32, 3).
    """

    def __init__(
        self, base_folder: str, train: bool, p: float | None = 0.5, transforms: Sequence[Any] | None = None
    ) -> None:
        super().__init__(transforms)
        names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        images, labels = [], []
        for name in names:
            with open(Path(base_folder) / name, "rb") as file:
                part = _Plain(file, encoding="bytes").load()
            images.append(np.asarray(part[b"data"]).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(part[b"labels"]))
        self.X = (np.concatenate(images) / 255).astype("float32")
        self.y = np.concatenate(labels)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        x = self.X[index]
        if self.transforms:
            x = np.ascontiguousarray(self.apply_transforms(x.transpose(1, 2, 0)).transpose(2, 0, 1))
        return x, self.y[index]


class _Plain(pickle.Unpickler):
    """Reads arrays and plain values, and refuses everything else: a pickle may name any function to call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in {
            ("numpy", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the file names {module}.{name}, which has no place in a data set")
