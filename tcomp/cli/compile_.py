"""tcomp compile, verify: models as files that run without Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import TcompError
from ..export.wasm import TARGET as WASM
from ..runtime.artifact import selftest
from . import models

ENDINGS = {"shared": "so", "object": "o", "wasm": "wasm"}


def compile_model(
    model: models.ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to; it is made where it is missing")],
    format: Annotated[
        str,
        typer.Option(
            help="shared: a shared library with a C header; object: an object file and a CMake file; wasm: for browsers and Node.js"
        ),
    ] = "shared",
    name: Annotated[str, typer.Option(help="begins the C names; by default the model's file name")] = "",
    weights: Annotated[str, typer.Option(help="inside the file, or beside it; auto: beside from 64 MiB on")] = "auto",
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    target: models.Target = "cpu",
    as_json: models.AsJson = False,
) -> None:
    """Compile a model to files that run without Python."""
    loaded = models.load_model(model, dims, shapes, [])
    if loaded.values:
        names = ", ".join(loaded.values)
        raise TcompError(f"cannot export {model.name}", why=f"the values of {names} decide extents of its tensors")
    is_wasm = format == "wasm"
    exe = models.compiled(loaded, WASM if is_wasm and target == "cpu" else target, 0)
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


def verify_artifact(
    file: Annotated[Path, typer.Argument(help="a shared library that tcomp exported")],
    as_json: models.AsJson = False,
) -> None:
    """Run the self-test of an exported model: results on stored inputs, beside those stored at export."""
    error = selftest(file)
    if as_json:
        print(json.dumps({"file": str(file), "error": error}))
        return
    print(f"{file}: the results differ by {error:.1e} from those stored at export")
