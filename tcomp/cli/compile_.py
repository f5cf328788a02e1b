"""tcomp compile: models as files that run without Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from ..compiler import compile
from ..errors import TcompError
from ..export.wasm import TARGET as WASM
from ..importers import source_of
from ..progress import terminal_bar
from ..runtime.executable import Executable
from . import models

ENDINGS = {"shared": "so", "object": "o", "c": "c", "wasm": "wasm"}


def compile_model(
    model: models.ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to; it is made where it is missing")],
    format: Annotated[
        str,
        typer.Option(
            help="shared: a shared library with a C header; object: an object file and a CMake file; c: C99 source; wasm: for browsers and Node.js"
        ),
    ] = "shared",
    name: Annotated[str, typer.Option(help="begins the C names; by default the model's file name")] = "",
    weights: Annotated[str, typer.Option(help="inside the file, or beside it; auto: beside from 64 MiB on")] = "auto",
    winograd: Annotated[
        bool | None,
        typer.Option(
            help="weights for Winograd's algorithm, which are larger; by default but for wasm", show_default=False
        ),
    ] = None,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    as_json: models.AsJson = False,
) -> None:
    """Compile a model to files that run without Python."""
    source = source_of(model)
    assert source is not None
    is_wasm = format == "wasm"
    with terminal_bar(f"compiling {model.name}") as note:
        exe = compile(
            str(model), target=WASM if is_wasm and target == "cpu" else target, shapes=models.closed_shapes(source, dims, shapes, {}),
            winograd=not is_wasm if winograd is None else winograd, progress=note,
        )  # fmt: skip
    if not isinstance(exe, Executable):
        raise TcompError(f"cannot export {model.name}", why="the values of some inputs decide extents of its tensors")
    word = name or re.sub(r"\W", "_", model.stem, flags=re.ASCII)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TcompError(f"cannot make the folder {output}", why=error.strerror or str(error)) from error
    files = exe.export(output / f"{word}.{ENDINGS.get(format, 'so')}", format, word, weights)
    if as_json:
        print(json.dumps([{"file": str(f), "bytes": f.stat().st_size} for f in files], indent=1))
        return
    for f in files:
        print(f"{f}  {f.stat().st_size:,} bytes")
