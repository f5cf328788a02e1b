"""Whole models from elsewhere, against the libraries that run them: each in a process of its own, turn by turn.

python -m benchmarks.models [--models resnet50,vit_tiny] [--batch 1,8] [--threads 1,2] [--peers onnxruntime,openvino,torch,torch-compile]
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.cli.bench import relative_error
from tcomp.cli.sides import Side, race

from . import zoo

OUT = Path(__file__).parent / "out"
Run = Callable[[], list[np.ndarray]]


def serve(library: str, name: str, batch: int, threads: int, file: str, arrays: str) -> tuple[Run, dict[str, Any]]:
    """What the process of a library races; how long it took to be ready, and the memory that took (MiB at most, of the process)."""
    with np.load(arrays) as held:
        inputs = list(held.values())
    before = _peak()
    start = time.perf_counter()
    makers = {
        "tcomp": _tcomp,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "torch": _torch,
        "torch-compile": _torch,
    }
    run = makers[library](library, name, batch, threads, file, inputs)
    result = run()
    return run, {
        "ready_s": time.perf_counter() - start,
        "peak_mib": _peak(),
        "before_mib": before,
        "outputs": len(result),
    }


def _peak() -> float:
    """MiB: of this process's own memory; what `getrusage` tells is inherited from the one that started it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def _tcomp(library: str, name: str, batch: int, threads: int, file: str, inputs: Sequence[np.ndarray]) -> Run:
    exe = tcomp.compile(file, list(inputs), num_threads=threads)

    def run() -> list[np.ndarray]:
        found = exe(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    return run


def _onnxruntime(library: str, name: str, batch: int, threads: int, file: str, inputs: Sequence[np.ndarray]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {i.name: x for i, x in zip(session.get_inputs(), inputs)}
    return lambda: session.run(None, feed)


def _openvino(library: str, name: str, batch: int, threads: int, file: str, inputs: Sequence[np.ndarray]) -> Run:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", hints).create_infer_request()
    return lambda: list(request.infer(list(inputs), share_inputs=True).values())


def _torch(library: str, name: str, batch: int, threads: int, file: str, inputs: Sequence[np.ndarray]) -> Run:
    """Images lie channels last, which is the fastest form torch has for them."""
    import torch

    torch.set_num_threads(threads)
    module, _ = zoo.make(name, batch)
    tensors = [torch.from_numpy(x) for x in inputs]
    if tensors[0].ndim == 4:
        module = module.to(memory_format=torch.channels_last)
        tensors = [t.contiguous(memory_format=torch.channels_last) for t in tensors]
    if library == "torch-compile":
        module = torch.compile(module)

    def run() -> list[np.ndarray]:
        with torch.inference_mode():
            return [module(*tensors).numpy()]

    return run


def warm_seconds(file: str, arrays: str, threads: int) -> float:
    """Seconds of tcomp.compile in a new process that finds all kernels in the cache."""
    code = (
        "import sys, time, numpy as np, tcomp\n"
        "inputs = list(np.load(sys.argv[2]).values())\n"
        "start = time.perf_counter()\n"
        "tcomp.compile(sys.argv[1], inputs, num_threads=int(sys.argv[3]))\n"
        "print(time.perf_counter() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, arrays, str(threads)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def run_case(name: str, batch: int, threads: int, peers: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    file, inputs = zoo.exported(name, batch)
    peers = [p for p in peers if name in zoo.MODELS or not p.startswith("torch")]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TCOMP_CACHE_DIR"] = folder  # so that tcomp compiles cold
        arrays = str(Path(folder) / "inputs.npz")
        np.savez(arrays, *inputs)
        sides = [Side(library) for library in ("tcomp", *peers)]
        found = race(sides, ("benchmarks.models", "serve", (name, batch, threads, str(file), arrays)), seconds)
        for side in sides:
            side.close()
        warm = warm_seconds(str(file), arrays, threads)
    ours, weights = found["tcomp"], file.stat().st_size / 2**20
    for library, told in found.items():
        median = statistics.median(told["seconds"])
        rows.append({
            "model": name, "batch": batch, "threads": threads, "library": library, "median_ms": 1e3 * median,
            "best_ms": 1e3 * min(told["seconds"]), "ratio": median / statistics.median(ours["seconds"]),
            "differs": relative_error(told["result"][0], ours["result"][0]), "ready_s": told["ready_s"],
            "memory_of_weights": (told["peak_mib"] - told["before_mib"]) / weights,
            "warm_s": warm if library == "tcomp" else None,
        })  # fmt: skip
    return rows


def main(
    models: str = typer.Option(
        "", help="names of benchmarks.zoo: all by default, those of packages that are not installed left out"
    ),
    batch: str = "1,8",
    threads: str = "1,2",
    peers: str = "onnxruntime,openvino,torch",
    seconds: float = typer.Option(3.0, help="time for each side of a case, about"),
) -> None:
    """Print a table of ratios; write it as JSON to benchmarks/out."""
    names = [n for n in models.split(",") if n] or [*zoo.MODELS, *(n for n in zoo.PACKAGED if zoo.is_installed(n))]
    libraries, rows, console = [p for p in peers.split(",") if p], [], Console(width=150, markup=False)
    console.print(f"{tcomp.Target.parse('cpu')}")
    table = Table(
        "model",
        "batch",
        "threads",
        "tcomp ms",
        *libraries,
        "against fastest",
        "differs",
        "cold s",
        "warm s",
        "memory / weights",
    )
    OUT.mkdir(exist_ok=True)
    for name, size, count in itertools.product(names, map(int, batch.split(",")), map(int, threads.split(","))):
        found = run_case(name, size, count, libraries, seconds)
        rows += found
        by = {r["library"]: r for r in found}
        ours, others = by["tcomp"], [by[p] for p in libraries if p in by]
        best = min((r["ratio"] for r in others), default=math.nan)
        ratios = [f"{by[p]['ratio']:.2f}" if p in by else "" for p in libraries]
        differs = max((r["differs"] for r in others), default=0.0)
        cells = [name, str(size), str(count), f"{ours['median_ms']:.3f}", *ratios, f"{best:.2f}", f"{differs:.0e}",
                 f"{ours['ready_s']:.2f}", f"{ours['warm_s']:.2f}", f"{ours['memory_of_weights']:.1f}"]  # fmt: skip
        table.add_row(*cells)
        print("  ".join(cells), file=sys.stderr, flush=True)
        # After each case: a long run that is stopped has told what it saw.
        (OUT / "models.json").write_text(json.dumps({"cpu": str(tcomp.Target.parse("cpu")), "rows": rows}, indent=1))
    console.print(table)
    cases: dict[tuple[Any, ...], list[float]] = {}
    for r in rows:
        if r["library"] != "tcomp":
            cases.setdefault((r["model"], r["batch"], r["threads"]), []).append(r["ratio"])
    best_of = [min(v) for v in cases.values()]
    if best_of:
        console.print(
            f"fastest / tcomp: geometric mean {statistics.geometric_mean(best_of):.2f}, worst {min(best_of):.2f}, {len(best_of)} cases"
        )


if __name__ == "__main__":
    typer.run(main)
