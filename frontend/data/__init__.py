"""Data sets and how to walk through them."""

from .datasets import DigitsDataset, NDArrayDataset
from .files import CIFAR10Dataset, MNISTDataset
from .loader import DataLoader, Dataset, collate
from .text import Corpus, Dictionary, batchify, get_batch, python_topics
from .transforms import RandomAffine, RandomCrop, RandomFlipHorizontal, Transform

__all__ = [
    "CIFAR10Dataset",
    "Corpus",
    "DataLoader",
    "Dataset",
    "Dictionary",
    "DigitsDataset",
    "MNISTDataset",
    "NDArrayDataset",
    "RandomAffine",
    "RandomCrop",
    "RandomFlipHorizontal",
    "Transform",
    "batchify",
    "collate",
    "get_batch",
    "python_topics",
]
