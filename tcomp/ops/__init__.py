"""Operators, one file a family. Importing this package fills the table."""

from . import conv, elementwise, matmul, movement, normalize, packed, reduce, winograd
from .builder import GraphBuilder
from .registry import OPERATORS, Operator, get, infer

__all__ = [
    "OPERATORS",
    "GraphBuilder",
    "Operator",
    "conv",
    "elementwise",
    "get",
    "infer",
    "matmul",
    "movement",
    "normalize",
    "packed",
    "reduce",
    "winograd",
]
