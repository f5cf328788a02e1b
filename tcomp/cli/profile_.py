"""tcomp profile: where the time of a model goes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import models


def profile_model(
    model: models.ModelFile,
    input: models.Inputs = None,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    threads: models.Threads = 0,
    repeat: Annotated[int, typer.Option(help="runs of each kernel")] = 20,
    top: Annotated[int, typer.Option(help="only so many kernels, the slowest first; all in order by default")] = 0,
    seed: models.Seed = 0,
    as_json: models.AsJson = False,
) -> None:
    """Time each kernel of a model on its own."""
    loaded = models.load_model(model, dims, shapes, input or [], seed)
    found = models.compiled(loaded, target, threads).profile(*loaded.arguments, repeat=repeat)
    if top:
        found = found.slowest(top)
    if as_json:
        keys = ("name", "seconds", "flops", "nbytes", "gflops", "gbytes", "origin", "calls")
        print(json.dumps([{k: getattr(r, k) for k in keys} for r in found.rows], indent=1))
        return
    print(found)
