"""The programs whose kernels `python -m tcomp.tools replay-kernels` compares: every case, random ones, networks, training steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

import frontend as ndl
import tcomp
from frontend.train import compile_step
from tcomp import GraphBuilder
from tcomp.tools.expressions import random_func

from .graphs import GRAPHS
from .shapes import cases_of
from .small import MODELS, settled_model
from .train import TASKS, loss_of


def everything() -> Iterator[tuple[str, Any]]:
    """(name, program): graphs, and kernels of their own."""
    yield from few()
    for layout in ("NHWC", "NCHW"):
        for case in cases_of("conv" if layout == "NCHW" else "", layout, 0, 0):
            yield f"{case.name} {layout}", case.make()[0]


def few() -> Iterator[tuple[str, Any]]:
    """The same without the cases of `benchmarks.kernels`, for a quick look."""
    for case in cases_of("", "NHWC", 40, 7):
        yield f"random {case.name}", case.make()[0]
    for seed in range(60):
        yield f"random kernel {seed}", random_func(seed)
    yield from narrow()
    for name, make in GRAPHS.items():
        yield name, make(1)
    for name, (_, shape) in MODELS.items():
        x = np.ones((4, *shape), np.float32)
        yield name, ndl.trace(settled_model(name), [x])
    for name, task in TASKS.items():
        np.random.seed(0)
        model = task.model()
        batch = task.batch(np.random.default_rng(1))
        step = compile_step(model, loss_of, task.optimizer(model.parameters()), batch)
        yield f"training step of {name}", step.trace(batch)[0]


def narrow() -> Iterator[tuple[str, tcomp.IRModule]]:
    """Products, convolutions and rows of other dtypes."""
    for x, w in (
        *product(("uint8", "int8"), ("int8",)),
        *((t, t) for t in ("float16", "bfloat16", "float64", "int32")),
    ):
        g = GraphBuilder()
        weight = np.random.default_rng(0).integers(-9, 9, (96, 130))
        a = g.input("a", (50, 96), x)
        b = g.constant(weight.astype(tcomp.dtype.dtype(w).numpy))
        kernel = g.constant(weight[:, :64].reshape(3, 1, 32, 64).astype(tcomp.dtype.dtype(w).numpy))
        image = g.input("image", (1, 20, 20, 32), x)
        convolved = g.conv2d(image, kernel, layout="NHWC", kernel_layout="HWIO")
        yield f"narrow {x} {w}", g.build(g.matmul(a, b), convolved, g.max(a, axes=(1,)), g.sum(image, axes=(0, 1, 2)))
