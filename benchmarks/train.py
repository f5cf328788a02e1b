"""Whole training steps, compiled, against the same steps in torch and jax.

python -m benchmarks.train [--model mlp|resnet9|lstm|transformer] [--peers torch,torch-compile,jax] [--threads N]

All sides start from the same weights and take their steps in one process, turn by turn (`benchmarks.compare`); the losses of
the first steps are compared. Denormal numbers count as zero on all sides (jax does so by itself). A ratio is the peer's median
over tcomp's, so above 1 tcomp is faster.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import frontend as ndl
import tcomp
from frontend import nn, optim
from frontend.models import LanguageModel, mlp, resnet9
from frontend.train import compile_step

from .compare import interleaved
from .jax_models import jax_step
from .torch_models import as_torch

PEERS = ("torch", "torch-compile", "jax")
CHECKED = 3
"""Steps whose losses are compared."""


@dataclass(frozen=True)
class Task:
    """A model and what it is trained on.

    Attributes:
        batch: a random batch, from a generator.
        torch_optimizer: the name and the options of the same optimizer there.
    """

    model: Callable[[], nn.Module]
    batch: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    optimizer: Callable[[Any], optim.Optimizer]
    torch_optimizer: tuple[str, dict[str, Any]]


def _adam(p: Any) -> optim.Optimizer:
    return optim.Adam(p, 1e-3)


def _momentum(p: Any) -> optim.Optimizer:
    return optim.SGD(p, 0.01, 0.9, 5e-4, dampening=0)


def _images(*shape: int) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.standard_normal(shape).astype("float32"), rng.integers(0, 10, shape[0]))


def _tokens(steps: int, n: int, vocabulary: int) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.integers(0, vocabulary, (steps, n)), rng.integers(0, vocabulary, (steps, n)))


TASKS = {
    "mlp": Task(lambda: mlp(784, 1024, 10), _images(128, 784), _adam, ("Adam", {"lr": 1e-3})),
    "resnet9": Task(resnet9, _images(32, 3, 32, 32), _momentum, ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4})),
    "lstm": Task(lambda: LanguageModel(1000, 256, 256), _tokens(35, 16, 1000), _adam, ("Adam", {"lr": 1e-3})),
    "transformer": Task(
        lambda: LanguageModel(1000, 256, 1024, 4, "transformer", num_head=8, dim_head=32, sequence_len=64),
        _tokens(64, 16, 1000), _adam, ("Adam", {"lr": 1e-3}),
    ),
}  # fmt: skip


def loss_of(model: nn.Module, x: ndl.Tensor, y: ndl.Tensor) -> ndl.Tensor:
    """The cross entropy of a model's logits."""
    out = model(x)
    return nn.SoftmaxLoss()(out[0] if isinstance(out, tuple) else out, y)


def torch_step(
    name: str, task: Task, model: nn.Module, batch: tuple[np.ndarray, ...], threads: int
) -> Callable[[], float]:
    """A function that takes a step in torch."""
    import torch

    torch.set_flush_denormal(True)  # as our step does; before the threads start, which take it over
    torch.set_num_threads(threads)
    module = as_torch(model)
    kind, options = task.torch_optimizer
    optimizer = getattr(torch.optim, kind)(module.parameters(), **options)
    x, y = (torch.from_numpy(a) for a in batch)
    if x.ndim == 4:
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    def forward(x: Any, y: Any) -> Any:
        out = module(x)
        logits = out[0] if isinstance(out, tuple) else out
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())

    update = optimizer.step
    if name == "torch-compile":
        forward, update = torch.compile(forward), torch.compile(update)

    def step() -> float:
        optimizer.zero_grad()
        loss = forward(x, y)
        loss.backward()
        update()
        return loss.item()

    return step


def run(name: str, peers: list[str], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Time a task on all sides."""
    task = TASKS[name]
    np.random.seed(0)
    model = task.model()
    batch = task.batch(np.random.default_rng(1))
    sides: dict[str, Callable[[], Any]] = {
        p: jax_step(model, batch, task.torch_optimizer) if p == "jax" else torch_step(p, task, model, batch, threads)
        for p in peers
    }
    step = compile_step(model, loss_of, task.optimizer(model.parameters()), batch, num_threads=threads)
    sides = {"tcomp": lambda: step(*batch), **sides}
    losses = {side: [f() for _ in range(CHECKED)] for side, f in sides.items()}
    worst = {side: max(abs(a - b) / abs(b) for a, b in zip(found, losses["tcomp"])) for side, found in losses.items()}
    results = interleaved({side: _as_array(f) for side, f in sides.items()}, np.ones(1), rounds, 0.05)
    ours = results["tcomp"].median
    return [
        {"model": name, "side": side, "threads": threads, "median_ms": 1e3 * r.median, "best_ms": 1e3 * r.best,
         "ratio": r.median / ours, "losses": losses[side], "loss_differs": worst[side]}
        for side, r in results.items()
    ]  # fmt: skip


def _as_array(f: Callable[[], Any]) -> Callable[[], np.ndarray]:
    return lambda: np.asarray([f()])


def main(model: str = "mlp,resnet9,lstm,transformer", peers: str = "torch", threads: int = 0, rounds: int = 15) -> None:
    """Print a table of medians and ratios, and the geometric mean against the fastest peer; write it as JSON to benchmarks/out."""
    chosen = [m for m in model.split(",") if m]
    unknown = [m for m in chosen if m not in TASKS]
    if unknown:
        raise typer.BadParameter(f"unknown model {unknown[0]!r}: {', '.join(TASKS)}")
    cores = tcomp.Target.parse("cpu").num_cores
    count = threads or cores
    sides = [p for p in peers.split(",") if p]
    if unfit := [p for p in sides if p not in PEERS]:
        raise typer.BadParameter(f"unknown peer {unfit[0]!r}: {', '.join(PEERS)}")
    if "jax" in sides and count != cores:
        raise typer.BadParameter(
            f"jax runs on all cores of the process: give --threads {cores}, or a process fewer (taskset)"
        )
    rows = [row for name in chosen for row in run(name, sides, count, rounds)]
    table = Table("model", "side", "median ms", "best ms", "first losses", "differ by", "tcomp is faster by")
    for r in rows:
        ratio = "" if r["side"] == "tcomp" else f"{r['ratio']:.2f} x"
        shown = " ".join(f"{v:.4f}" for v in r["losses"])
        table.add_row(r["model"], r["side"], f"{r['median_ms']:.3f}", f"{r['best_ms']:.3f}", shown, f"{r['loss_differs']:.0e}", ratio)  # fmt: skip
    console = Console(width=140, markup=False)
    console.print(f"{tcomp.Target.parse('cpu')}, {count} threads, {rounds} interleaved rounds")
    console.print(table)
    best = [min(r["ratio"] for r in rows if r["model"] == m and r["side"] != "tcomp") for m in chosen] if sides else []
    if best:
        mean = math.exp(sum(map(math.log, best)) / len(best))
        console.print(f"against the fastest peer: geometric mean {mean:.2f}, worst {min(best):.2f}")
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    (out / "train.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
