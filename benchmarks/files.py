"""ONNX files beside onnxruntime: whether both agree, whose error is smaller, who is faster; each library in a process of its own.

python -m benchmarks.files FILE... [--threads 1] [--shapes "name.onnx:x=1x3x48x320"]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
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


def run_file(
    file: Path, shapes: str, threads: int, seconds: float, sides: list[Side], draws: int = 1
) -> dict[str, Any]:
    """Differences and times of one file on random inputs.

    Args:
        draws: how often inputs are drawn. A model that rounds to 8 bits on its way needs many: where the last digit of a float decides
            how it is rounded, the results of any two programs differ by a step, and otherwise hardly at all.
    """
    loaded = models.load_model(file, "", shapes, [])
    with tempfile.TemporaryDirectory() as folder:
        arrays = str(Path(folder) / "inputs.npz")
        np.savez(arrays, **loaded.inputs)
        found = race(sides, ("tcomp.cli.bench", "serve", (str(file), arrays, threads, sorted(loaded.values))), seconds)
    apart = [differences(file, models.load_model(file, "", shapes, [], seed)) for seed in range(draws)]
    return {
        "file": file.name, **{key: [d[key] for d in apart] for key in apart[0]},
        "ms": 1e3 * statistics.median(found["tcomp"]["seconds"]), "their_ms": 1e3 * statistics.median(found["onnxruntime"]["seconds"]),
    }  # fmt: skip


def differences(file: Path, loaded: models.Loaded) -> dict[str, float]:
    """How far the results of tcomp, of onnxruntime with and without its graph optimizations, and of float64 are from each other."""
    ours = list(models.compiled(loaded, "cpu", 1, quiet=True).named(*loaded.arguments).values())
    exact = evaluate(loaded.module, loaded.arguments, exact=True)
    usual, plain = (_onnxruntime(file, loaded.inputs, optimized) for optimized in (True, False))

    def largest(got: Sequence[Any], wanted: Sequence[Any]) -> float:
        pairs = [(g, w) for g, w in zip(got, wanted) if isinstance(g, np.ndarray) and isinstance(w, np.ndarray)]
        return max((relative_error(g, w) for g, w in pairs), default=0.0)

    return {
        "differ": largest(ours, usual), "their_modes": largest(plain, usual),
        "error": largest(ours, exact), "their_error": largest(usual, exact),
    }  # fmt: skip


def _onnxruntime(file: Path, inputs: dict[str, np.ndarray], optimized: bool) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, inputs)
    return found


def _told(errors: Sequence[float]) -> str:
    """The median and the largest."""
    return f"{statistics.median(errors):.0e}, {max(errors):.0e}" if len(errors) > 1 else f"{errors[0]:.0e}"


def main(
    files: Annotated[list[Path], typer.Argument(help="ONNX files")],
    threads: int = 1,
    shapes: Annotated[list[str] | None, typer.Option(help="of one file: name.onnx:x=1x3x48x320")] = None,
    seconds: float = 1.0,
    draws: Annotated[
        int, typer.Option(help="random inputs that results are compared on; of several, median and worst are shown")
    ] = 1,
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
            r = run_file(file, given.get(file.name, ""), threads, seconds, sides, draws)
        except (TcompError, KeyError) as error:
            table.add_row(file.name, f"{type(error).__name__}: {str(error).splitlines()[0]}"[:60])
            continue
        rows.append(r)
        told = [_told(r[key]) for key in ("differ", "their_modes", "error", "their_error")]
        table.add_row(r["file"], *told, f"{r['ms']:.3f}", f"{r['their_ms']:.3f}", f"{r['their_ms'] / r['ms']:.2f}")
        print(file.name, *told, f"{r['their_ms'] / r['ms']:.2f}", sep="  ", file=sys.stderr, flush=True)
    for side in sides:
        side.close()
    console = Console(width=150, markup=False)
    console.print(f"{tcomp.Target.parse('cpu')}, {threads} threads")
    console.print(table)
    if rows:
        mean = statistics.geometric_mean([r["their_ms"] / r["ms"] for r in rows])
        console.print(f"geometric mean {mean:.2f}, {len(rows)} files")
    OUT.mkdir(exist_ok=True)
    (OUT / "files.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
