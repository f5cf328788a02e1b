"""tcomp bench: a model beside other libraries, each in a process of its own, turn by turn."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..compiler import compile
from ..errors import TcompError
from ..importers import load
from ..ops.reference import evaluate
from ..runtime.threads import usable_cores
from ..target import Target
from . import models
from .sides import Side, race

PEERS = ("onnxruntime", "openvino")
Run = Callable[[], list[np.ndarray]]


def bench_model(
    model: models.ModelFile,
    peers: Annotated[str, typer.Option(help=f"libraries to compare with: {', '.join(PEERS)}")] = "onnxruntime",
    threads: Annotated[
        str, typer.Option(help="threads of each side, one run for each number; all cores by default")
    ] = "",
    input: models.Inputs = None,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    seconds: Annotated[float, typer.Option(help="time for each side, about")] = 2.0,
    seed: models.Seed = 0,
    as_json: models.AsJson = False,
) -> None:
    """Time a model, and print how many times as fast as other libraries it is."""
    chosen = [p for p in peers.split(",") if p]
    unknown = [p for p in chosen if p not in PEERS]
    if unknown:
        raise TcompError(f"unknown library {unknown[0]!r}", hint=f"one of {', '.join(PEERS)}")
    loaded = models.load_model(model, dims, shapes, input or [], seed)
    exact = evaluate(loaded.module, loaded.arguments, exact=True)
    counts = [models.number(t, "--threads") for t in threads.split(",") if t] or [usable_cores()]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "inputs.npz"
        np.savez(arrays, **cast(Any, loaded.inputs))
        for count in counts:
            sides = [Side(name) for name in ("tcomp", *chosen)]
            task = ("tcomp.cli.bench", "serve", (str(model), str(arrays), count, sorted(loaded.values)))
            found = race(sides, task, seconds)
            for side in sides:
                side.close()
            if "tcomp" not in found:
                raise TcompError(f"tcomp cannot run {model}", hint="tcomp run tells why")
            rows += [_row(name, count, told, exact, found["tcomp"]) for name, told in found.items()]
    if as_json:
        print(json.dumps({"cpu": str(Target.parse("cpu")), "rows": rows}, indent=1))
        return
    table = Table("library", "threads", "median ms", "best ms", "error", "load s", "tcomp is faster by")
    for r in rows:
        ratio = "" if r["library"] == "tcomp" else f"{r['ratio']:.2f} x"
        table.add_row(
            r["library"],
            str(r["threads"]),
            f"{r['median_ms']:.4f}",
            f"{r['best_ms']:.4f}",
            f"{r['error']:.1e}",
            f"{r['load_s']:.2f}",
            ratio,
        )
    Console(markup=False).print(f"{Target.parse('cpu')}")
    Console(markup=False).print(table)


def _row(
    name: str, threads: int, told: Mapping[str, Any], exact: list[np.ndarray], ours: Mapping[str, Any]
) -> dict[str, Any]:
    median, mine = (statistics.median(t["seconds"]) for t in (told, ours))
    return {
        "library": name, "threads": threads, "median_ms": 1e3 * median, "best_ms": 1e3 * min(told["seconds"]),
        "error": max(relative_error(g, w) for g, w in zip(told["result"], exact)), "load_s": told["load_s"], "ratio": median / mine,
    }  # fmt: skip


def relative_error(got: Any, want: Any) -> float:
    """||got - want|| / ||want||; of integers, the share that differs."""
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype.kind in "iub":
        return float((got != want).mean()) if got.size else 0.0
    size = np.linalg.norm(want.astype(np.float64).ravel())
    return float(np.linalg.norm((got.astype(np.float64) - want).ravel()) / (size or 1.0))


def serve(library: str, model: str, arrays: str, threads: int, decided: list[str]) -> tuple[Run, dict[str, Any]]:
    """What the process of a library races: the model on the inputs of a file."""
    with np.load(arrays) as file:
        inputs = dict(file)
    start = time.perf_counter()
    makers = {"tcomp": _tcomp, "onnxruntime": _onnxruntime, "openvino": _openvino}
    run = makers[library](model, inputs, threads, decided)
    return run, {"load_s": time.perf_counter() - start}


def _tcomp(model: str, inputs: dict[str, np.ndarray], threads: int, decided: list[str]) -> Run:
    values = {k: inputs[k] for k in decided}
    module = load(model, shapes={k: a.shape for k, a in inputs.items()}, values=values)
    exe = compile(module, num_threads=threads)
    arguments = [inputs[p.name] for p in module.main.params]

    def run() -> list[np.ndarray]:
        found = exe(*arguments)
        return list(found) if isinstance(found, tuple) else [found]

    return run


def _onnxruntime(model: str, inputs: dict[str, np.ndarray], threads: int, decided: list[str]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def _openvino(model: str, inputs: dict[str, np.ndarray], threads: int, decided: list[str]) -> Run:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    read.reshape({k: a.shape for k, a in inputs.items()})
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(read, "CPU", hints).create_infer_request()
    return lambda: list(request.infer(inputs, share_inputs=True).values())
