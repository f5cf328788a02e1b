"""How the workspace of a training step falls where layers are computed again, and whether the losses stay the same.

python -m benchmarks.recompute [--model mlp|transformer] [--target TEXT]

Deep stacks of one width; for each number of layers the step is compiled without recomputing and with segments of k layers. Keeping n/k
inputs and k layers' results, the workspace is least near k = sqrt(n) (T. Chen et al., Training Deep Nets with Sublinear Memory Cost,
2016); where a layer's inside takes much more than its input, as in a transformer, near k = 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from frontend import nn, optim
from frontend.models import LanguageModel
from frontend.train import TrainStep, compile_step

from .train import loss_of

STEPS = 3
"""Steps whose losses are compared, bit by bit."""


@dataclass(frozen=True)
class Stack:
    """A deep model.

    Attributes:
        make: from a number of layers; depths: numbers of layers; segments: layers that are computed again at a time.
    """

    make: Callable[[int], nn.Module]
    batch: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    depths: tuple[int, ...]
    segments: tuple[int, ...]


def _mlp(layers: int) -> nn.Module:
    return nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(layers)], nn.Linear(256, 10))


def _transformer(layers: int) -> nn.Module:
    return LanguageModel(100, 128, 512, layers, "transformer", num_head=4, dim_head=32, sequence_len=64, dropout=0.1)


STACKS = {
    "mlp": Stack(
        _mlp, lambda rng: (rng.standard_normal((2048, 256)).astype("float32"), rng.integers(0, 10, 2048)),
        (8, 16, 32, 64), (1, 2, 3, 4, 6, 8, 16),
    ),
    "transformer": Stack(
        _transformer, lambda rng: (rng.integers(0, 100, (64, 16)), rng.integers(0, 100, (64, 16))), (6, 12), (1, 2, 3, 4, 6)
    ),
}  # fmt: skip


def run(stack: Stack, layers: int, every: int | None, target: str) -> tuple[TrainStep, list[float], float]:
    """The step, the losses of the first steps, and the median seconds of some more."""
    np.random.seed(0)
    model, batch = stack.make(layers), stack.batch(np.random.default_rng(1))
    step = compile_step(model, loss_of, optim.SGD(model.parameters(), 0.01), batch, target, recompute=every)
    losses, seconds = [step(*batch) for _ in range(STEPS)], []
    for _ in range(5):
        start = time.perf_counter()
        step(*batch)
        seconds.append(time.perf_counter() - start)
    return step, losses, float(np.median(seconds))


def main(model: str = "mlp,transformer", target: str = "cpu") -> None:
    """Print a table for each model; fails where a loss differs."""
    console, differ = Console(width=110, markup=False), False
    for name in model.split(","):
        if name not in STACKS:
            raise typer.BadParameter(f"unknown model {name!r}: {', '.join(STACKS)}")
        stack = STACKS[name]
        table = Table(
            "layers",
            "layers at a time",
            "workspace MiB",
            "of the whole",
            "ms a step",
            "losses",
            title=f"{name}, {target}",
        )
        for layers in stack.depths:
            whole, expected, _ = first = run(stack, layers, None, target)
            for every in (None, *(k for k in stack.segments if k < layers)):
                step, losses, seconds = first if every is None else run(stack, layers, every, target)
                same = losses == expected
                differ |= not same
                used, most = step.executable.memory.arena, whole.executable.memory.arena
                table.add_row(
                    str(layers), "none" if every is None else str(every), f"{used / 2**20:.1f}", f"{100 * used / most:.0f} %",
                    f"{1e3 * seconds:.1f}", "the same" if same else f"differ: {losses} {expected}",
                )  # fmt: skip
            table.add_section()
        console.print(table)
    if differ:
        raise SystemExit("recomputed layers changed a loss")


if __name__ == "__main__":
    typer.run(main)
