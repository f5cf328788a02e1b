"""Compiled models as files that run without Python and without the compiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import TcompError, UnsupportedError
from ..runtime.executable import Executable
from ..target import CpuTarget, Target
from .artifact import Artifact, artifact_of
from .native import write_object, write_shared
from .wasm import write_wasm
from .weights import weights_file

FORMATS: Mapping[str, Callable[[Artifact, Path], tuple[Path, ...]]] = {
    "shared": write_shared,
    "object": write_object,
    "wasm": write_wasm,
}
"""How each format is written: to a path; returns the paths of all its files."""
INSIDE_BYTES = 64 << 20
"""Weights up to this size are part of the file, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class TargetExporter:
    """Exports what was compiled for a target (an `Exporter`).

    Attributes:
        compile_here: compiles the same model for this machine.
    """

    target: Target
    compile_here: Callable[[], Executable]

    def __call__(
        self, exe: Executable, path: str | os.PathLike[str], format: str, name: str | None, weights: str
    ) -> tuple[Path, ...]:
        if format not in FORMATS:
            raise TcompError(f"cannot export as {format!r}", hint=" or ".join(map(repr, FORMATS)))
        if not isinstance(self.target, CpuTarget):
            raise UnsupportedError(f"cannot export what was compiled for {self.target}", hint='compile for "cpu"')
        file = Path(path)
        runs = exe if not exe.library.lacking else self.compile_here()
        artifact = artifact_of(exe, self.target, name or file.name.split(".")[0], runs)
        return FORMATS[format](_with_weights(artifact, format, weights), file)


def _with_weights(artifact: Artifact, format: str, weights: str) -> Artifact:
    """The artifact with its weights inside, or in a file beside it: of those that take more than INSIDE_BYTES by default."""
    if weights not in ("auto", "inside", "beside"):
        raise TcompError(f"weights={weights!r}", hint='"auto", "inside" or "beside"')
    constants = artifact.program.constants
    is_large = sum(c.nbytes for c in constants) > INSIDE_BYTES
    if format == "wasm" and weights == "beside":
        raise UnsupportedError("a WebAssembly module has its weights inside")
    if format == "wasm" or weights == "inside" or not (is_large or weights == "beside"):
        return artifact
    data, start = weights_file(constants)
    return replace(artifact, beside=data, beside_start=start)


__all__ = ["FORMATS", "TargetExporter"]
