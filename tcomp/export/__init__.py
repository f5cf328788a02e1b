"""Compiled models as files that run without Python and without the compiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import TcompError, UnsupportedError
from ..runtime.executable import Executable
from ..target import CpuTarget, Target
from .artifact import Artifact, artifact_of
from .native import write_object, write_shared
from .wasm import write_wasm

FORMATS: Mapping[str, Callable[[Artifact, Path], tuple[Path, ...]]] = {
    "shared": write_shared,
    "object": write_object,
    "wasm": write_wasm,
}
"""How each format is written: to a path; returns the paths of all its files."""


@dataclass(frozen=True, slots=True)
class TargetExporter:
    """Exports what was compiled for a target (an `Exporter`).

    Attributes:
        compile_here: compiles the same model for this machine.
    """

    target: Target
    compile_here: Callable[[], Executable]

    def __call__(
        self, exe: Executable, path: str | os.PathLike[str], format: str, name: str | None
    ) -> tuple[Path, ...]:
        if format not in FORMATS:
            raise TcompError(f"cannot export as {format!r}", hint=" or ".join(map(repr, FORMATS)))
        if not isinstance(self.target, CpuTarget):
            raise UnsupportedError(f"cannot export what was compiled for {self.target}", hint='compile for "cpu"')
        file = Path(path)
        runs = exe if not exe.library.lacking else self.compile_here()
        return FORMATS[format](artifact_of(exe, self.target, name or file.name.split(".")[0], runs), file)


__all__ = ["FORMATS", "TargetExporter"]
