"""tcomp run: a model on given inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..errors import TcompError
from . import models

Output = Annotated[
    list[str] | None,
    typer.Option("--out", "--output", "-o", help="a .npy file, name=file.npy, or an .npz file for all results"),
]


def run_model(
    model: models.ModelFile,
    input: models.Inputs = None,
    output: Output = None,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    threads: models.Threads = 0,
    seed: models.Seed = 0,
    as_json: models.AsJson = False,
) -> None:
    """Run a model; print what its results look like, and write them to files."""
    loaded = models.load_model(model, dims, shapes, input or [], seed)
    exe = models.compiled(loaded, target, threads)
    results = exe.named(*loaded.arguments)
    _write(output or [], results)
    rows = [
        {"name": k, "dtype": str(a.dtype), "shape": list(a.shape), **models.statistics_of(a)}
        for k, a in results.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("result", "type", "min", "mean", "max", "NaN")
    for r in rows:
        numbers = [f"{r[k]:.6g}" if k in r else "" for k in ("min", "mean", "max", "nan")]
        table.add_row(str(r["name"]), f"{r['dtype']}{r['shape']}", *numbers)
    Console(markup=False).print(table)


def _write(outputs: list[str], results: dict[str, np.ndarray]) -> None:
    """Results to files, each whole or not at all.

    Raises:
        TcompError: no such result, or a file that cannot be written.
    """
    free = list(results)
    for text in outputs:
        name, sign, file = text.rpartition("=")
        path = Path(file if sign else text)
        if path.suffix == ".npz":
            _replace(path, lambda f: np.savez(f, **cast(Any, results)))
            continue
        key = name if sign else (free[0] if free else "")
        if key not in results:
            raise TcompError(f"no result {key!r} to write to {path}", why=f"the model makes {', '.join(results)}")
        free = [k for k in free if k != key]
        _replace(path, partial(np.save, arr=results[key]))


def _replace(path: Path, write: Callable[[Any], None]) -> None:
    scratch = path.with_name(path.name + ".part")
    try:
        with scratch.open("wb") as f:
            write(f)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise TcompError(f"cannot write {path}", why=error.strerror or str(error)) from error
