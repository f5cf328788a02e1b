"""All families of operators: importing this file fills the table."""

from . import (
    attention,
    control,
    convolution,
    elementwise,
    movement,
    normalization,
    products,
    quantization,
    recurrent,
    reductions,
    resize,
    shapes,
    signal,
    training,
    trees,
    vision,
)

__all__ = [
    "attention",
    "control",
    "convolution",
    "elementwise",
    "movement",
    "normalization",
    "products",
    "quantization",
    "recurrent",
    "reductions",
    "resize",
    "shapes",
    "signal",
    "training",
    "trees",
    "vision",
]
