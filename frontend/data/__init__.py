"""Data sets and how to walk through them."""

from .datasets import DigitsDataset, NDArrayDataset
from .loader import DataLoader, Dataset
from .transforms import RandomCrop, RandomFlipHorizontal, Transform

__all__ = [
    "DataLoader",
    "Dataset",
    "DigitsDataset",
    "NDArrayDataset",
    "RandomCrop",
    "RandomFlipHorizontal",
    "Transform",
]
