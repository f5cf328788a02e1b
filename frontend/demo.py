"""The demo: train a small CNN on real digits, compile it, check it, time it, and look inside.

python -m frontend.demo [--epochs N] [--seed N]
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DataLoader, DigitsDataset, RandomAffine
from frontend.models import digits_cnn


def train_digits(
    model: nn.Module, epochs: int = 80, batch_size: int = 64, seed: int = 0, quiet: bool = False
) -> tuple[train.TrainStep, float]:
    """Train on the digits, turned and shifted a little, with AdamW; returns the compiled step and the seconds that compiling it took."""
    np.random.seed(seed)
    loader = DataLoader(
        DigitsDataset(transforms=[RandomAffine(12, 0.12, 0.7)]), batch_size, shuffle=True, drop_last=True, seed=seed
    )
    optimizer = optim.AdamW(model.parameters(), 6e-3, weight_decay=0.3)
    start = time.perf_counter()
    step = train.compile_step(model.train(), nn.SoftmaxLoss(), optimizer, next(loader.batches(0)), seed=seed)
    seconds = time.perf_counter() - start
    rate = optim.cosine(epochs * len(loader), warmup=len(loader))
    train.fit(step, loader, epochs, lr_scheduler=rate, quiet=quiet)
    model.eval()
    return step, seconds


def step_times(model: nn.Module, step: train.TrainStep) -> tuple[float, float]:
    """The median seconds of forward and backward as NumPy calls, and of a compiled step; the model stays as it is."""
    data, before = DigitsDataset(), model.state_dict()
    x, y = data.X[:64], data.y[:64]
    tensors = (ndl.Tensor(x, requires_grad=False), ndl.Tensor(y, requires_grad=False))
    model.train()
    eager = _median(lambda: nn.SoftmaxLoss()(model(tensors[0]), tensors[1]).backward())
    compiled = _median(lambda: step(x, y))
    model.load_state_dict(before)
    model.eval()
    return eager, compiled


def accuracy(predict: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """The share of rows whose largest logit is the label's."""
    return float((np.argmax(predict(x), axis=1) == y).mean())


def main(epochs: int = 80, seed: int = 0) -> None:
    """Train, compile, check, time."""
    console = Console()
    np.random.seed(seed)
    model = digits_cnn()
    start = time.perf_counter()
    step, compiling = train_digits(model, epochs, seed=seed)
    training = time.perf_counter() - start - compiling
    console.print(
        f"trained {sum(p.size for p in model.parameters()):,} parameters in {training:.1f} s: {step.steps:,} steps, each one native call, "
        f"compiled in {compiling:.1f} s"
    )
    test = DigitsDataset(train=False)
    x, one = test.X, test.X[:1]

    start = time.perf_counter()
    with Progress(transient=True, console=console) as bar:
        task = bar.add_task("compiling", total=None)
        exe = tcomp.compile(
            model, [x], progress=lambda done, total, name: bar.update(task, completed=done, total=total)
        )
    compile_seconds = time.perf_counter() - start
    exe_one = tcomp.compile(model, [one])

    reference = tcomp.evaluate(ndl.trace(model, [x]), [x], exact=True)[0]
    out = exe(x)
    error = float(np.linalg.norm(out - reference) / np.linalg.norm(reference))
    eager_training, compiled_training = step_times(model, step)
    eager_one, eager_all = (_median(lambda b=b: model(ndl.Tensor.make_const(b))) for b in (one, x))
    compiled_one, compiled_all = exe_one.time(one).median, exe.time(x).median

    table = Table("what", "value")
    table.add_row("test accuracy, compiled", f"{100 * accuracy(exe, x, test.y):.2f} %")
    table.add_row("error against float64", f"{error:.2e}")
    table.add_row(
        "training step, batch 64: NumPy eager, without the update / compiled",
        f"{1e3 * eager_training:.2f} ms / {1e3 * compiled_training:.3f} ms",
    )
    table.add_row("latency, batch 1: NumPy eager / compiled", f"{1e3 * eager_one:.3f} ms / {1e3 * compiled_one:.3f} ms")
    table.add_row(
        f"latency, batch {len(x)}: NumPy eager / compiled", f"{1e3 * eager_all:.2f} ms / {1e3 * compiled_all:.3f} ms"
    )
    table.add_row("compile time", f"{compile_seconds:.2f} s")
    table.add_row("operators -> kernels", f"{exe.program.fused_from} -> {exe.num_kernels}")
    table.add_row("memory", str(exe.memory))
    console.print(table)
    name = exe_one.program.kernels[0].name
    console.print(f"\nthe first convolution ({name}), batch 1, as scheduled:\n", highlight=False)
    print(exe_one.ir("scheduled", name))
    if error > 1e-5:
        raise SystemExit(f"the compiled model's error {error:.2e} is above 1e-5")


def _median(f: Callable[[], object], repeat: int = 15) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    typer.run(main)
