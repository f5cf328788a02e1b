"""Operators, one file a family. Importing this package fills the table."""

from . import (
    attention,
    composites,
    conv,
    conv_gradient,
    convolutions,
    elementwise,
    matmul,
    movement,
    normalize,
    packed,
    random,
    reduce,
    scatter,
    transposed,
    winograd,
)
from .builder import GraphBuilder
from .composite import composite
from .registry import OPERATORS, Operator, get, infer

__all__ = [
    "OPERATORS",
    "GraphBuilder",
    "Operator",
    "attention",
    "composite",
    "composites",
    "conv",
    "conv_gradient",
    "convolutions",
    "elementwise",
    "get",
    "infer",
    "matmul",
    "movement",
    "normalize",
    "packed",
    "random",
    "reduce",
    "scatter",
    "transposed",
    "winograd",
]
