"""Operators, one file a family. Importing this package fills the table."""

from . import attention, conv, elementwise, matmul, movement, normalize, packed, reduce, winograd
from .builder import GraphBuilder
from .registry import OPERATORS, Operator, get, infer

__all__ = [
    "OPERATORS",
    "GraphBuilder",
    "Operator",
    "attention",
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
