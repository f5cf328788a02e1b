"""ONNX files beside onnxruntime: whether both agree, whose error is smaller, who is faster; each library in a process of its own.

python -m benchmarks.files FILE... [--threads 1] [--shapes "name.onnx:x=1x3x48x320"]
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp import evaluate
from tcomp.cli import models
from tcomp.cli.bench import relative_error
from tcomp.cli.sides import Side, race
from tcomp.errors import TcompError

OUT = Path(__file__).parent / "out"


def run_file(file: Path, shapes: str, threads: int, seconds: float, sides: list[Side]) -> dict[str, Any]:
    """Differences and times of one file on random inputs."""
    loaded = models.load_model(file, "", shapes, [])
    exact = evaluate(loaded.module, loaded.arguments, exact=True)
    with tempfile.TemporaryDirectory() as folder:
        arrays = str(Path(folder) / "inputs.npz")
        np.savez(arrays, **loaded.inputs)
        found = race(sides, ("tcomp.cli.bench", "serve", (str(file), arrays, threads, sorted(loaded.values))), seconds)
    ours, other = found["tcomp"], found["onnxruntime"]
    pairs = [(g, w) for g, w in zip(ours["result"], other["result"]) if isinstance(w, np.ndarray)]
    return {
        "file": file.name, "differ": max((relative_error(g, w) for g, w in pairs), default=0.0),
        "error": max(relative_error(g, w) for g, w in zip(ours["result"], exact)),
        "their_modes": modes_differ(file, loaded.inputs, [w for _, w in pairs]),
        "their_error": max((relative_error(g, w) for g, w in zip(other["result"], exact) if isinstance(g, np.ndarray)), default=0.0),
        "ms": 1e3 * statistics.median(ours["seconds"]), "their_ms": 1e3 * statistics.median(other["seconds"]),
    }  # fmt: skip


def modes_differ(file: Path, inputs: dict[str, np.ndarray], usual: list[np.ndarray]) -> float:
    """How far onnxruntime's results are from its own without graph optimizations: as near should others be, of 8-bit models too."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    plain = [w for w in session.run(None, inputs) if isinstance(w, np.ndarray)]
    return max((relative_error(u, p) for u, p in zip(usual, plain)), default=0.0)


def main(
    files: Annotated[list[Path], typer.Argument(help="ONNX files")],
    threads: int = 1,
    shapes: Annotated[list[str] | None, typer.Option(help="of one file: name.onnx:x=1x3x48x320")] = None,
    seconds: float = 1.0,
) -> None:
    """Print a table; write it as JSON to benchmarks/out."""
    given = dict(s.split(":", 1) for s in shapes or [])
    sides = [Side("tcomp"), Side("onnxruntime")]
    rows = []
    table = Table(
        "file",
        "differ",
        "its modes differ",
        "error",
        "onnxruntime's error",
        "tcomp ms",
        "onnxruntime ms",
        "tcomp is faster by",
    )
    for file in files:
        try:
            r = run_file(file, given.get(file.name, ""), threads, seconds, sides)
        except (TcompError, KeyError) as error:
            table.add_row(file.name, f"{type(error).__name__}: {str(error).splitlines()[0]}"[:60])
            continue
        rows.append(r)
        table.add_row(r["file"], f"{r['differ']:.1e}", f"{r['their_modes']:.1e}", f"{r['error']:.1e}", f"{r['their_error']:.1e}", f"{r['ms']:.3f}",
                      f"{r['their_ms']:.3f}", f"{r['their_ms'] / r['ms']:.2f}")  # fmt: skip
    for side in sides:
        side.close()
    console = Console(width=150)
    console.print(f"{tcomp.Target.parse('cpu')}, {threads} threads")
    console.print(table)
    if rows:
        mean = statistics.geometric_mean([r["their_ms"] / r["ms"] for r in rows])
        console.print(f"geometric mean {mean:.2f}, {len(rows)} files")
    OUT.mkdir(exist_ok=True)
    (OUT / "files.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
