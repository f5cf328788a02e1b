"""Small models of the frontend, compiled, against the same models in other frameworks.

python -m benchmarks.small --model digits_cnn [--batch 1,64] [--peers torch,numpy] [--threads N]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import frontend as ndl
import tcomp
from frontend import nn
from frontend.models import digits_cnn, mlp

from .compare import interleaved
from .torch_models import as_torch

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits_cnn": (digits_cnn, (1, 8, 8)),
    "mlp": (lambda: mlp(784, 1024, 10), (784,)),
}
"""Makers, and the shape of one example."""


def peer(name: str, model: nn.Module, x: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """A function that runs the model in another framework."""
    if name == "numpy":
        return lambda: model(ndl.Tensor.make_const(x)).numpy()
    if name in ("torch", "torch-compile"):
        import torch

        torch.set_num_threads(threads)
        module, tensor = as_torch(model).eval(), torch.from_numpy(x)
        if name == "torch-compile":
            module = torch.compile(module)

        def run() -> np.ndarray:
            with torch.inference_mode():
                return module(tensor).numpy()

        return run
    raise typer.BadParameter(f"unknown peer {name!r}: numpy, torch or torch-compile")


def settled_model(name: str) -> nn.Module:
    """A model with running statistics of its own, in evaluation mode."""
    make, shape = MODELS[name]
    np.random.seed(0)
    model = make().train()
    model(ndl.Tensor(np.random.rand(32, *shape).astype("float32")))
    return model.eval()


def main(
    model: str = "digits_cnn",
    batch: str = "1,64",
    peers: str = "torch",
    threads: int = 0,
    rounds: int = 40,
) -> None:
    """Print a table of medians and ratios; write it as JSON to benchmarks/out."""
    if model not in MODELS:
        raise typer.BadParameter(f"unknown model {model!r}: {', '.join(MODELS)}")
    count = threads or tcomp.Target.parse("cpu").num_cores
    network, rows = settled_model(model), []
    for size in map(int, batch.split(",")):
        x = np.random.default_rng(1).random((size, *MODELS[model][1]), np.float32)
        reference = tcomp.evaluate(ndl.trace(network, [x]), [x], exact=True)[0]
        exe = tcomp.compile(network, [x], num_threads=count)
        sides = {"tcomp": lambda exe=exe, x=x: exe(x)}
        sides |= {p: peer(p, network, x, count) for p in peers.split(",") if p}
        results = interleaved(sides, reference, rounds)
        for name, r in results.items():
            rows.append({"model": model, "batch": size, "side": name, "threads": count, "median_ms": 1e3 * r.median,
                         "best_ms": 1e3 * r.best, "error": r.error, "ratio": r.median / results["tcomp"].median})  # fmt: skip
    table = Table("model", "batch", "side", "median ms", "best ms", "error", "tcomp is faster by")
    for r in rows:
        ratio = "" if r["side"] == "tcomp" else f"{r['ratio']:.2f} x"
        table.add_row(
            r["model"],
            str(r["batch"]),
            r["side"],
            f"{r['median_ms']:.4f}",
            f"{r['best_ms']:.4f}",
            f"{r['error']:.1e}",
            ratio,
        )
    console = Console(markup=False)
    console.print(f"{tcomp.Target.parse('cpu')}, {count} threads, {rounds} interleaved rounds")
    console.print(table)
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    (out / f"small_{model}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
