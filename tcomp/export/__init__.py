"""Compiled models as files that run without Python and without the compiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TcompError, UnsupportedError
from ..runtime.executable import Executable, ExportOptions
from ..runtime.manifest import TEXT_ENDING
from ..target import CpuTarget, Target
from ..target.parse import portable
from .artifact import Artifact, check_example, checked_name, example_run, sharing_code, variant_of
from .c import write_c
from .native import write_object, write_shared
from .provenance import source_of_file
from .state import state_of
from .wasm import write_wasm
from .weights import gathered

FORMATS: Mapping[str, Callable[[Artifact, Path], tuple[Path, ...]]] = {
    "shared": write_shared,
    "object": write_object,
    "c": write_c,
    "wasm": write_wasm,
}
"""How each format is written: to a path; returns the paths of all its files."""
BESIDE = (".h", ".cmake", ".mjs", ".safetensors", "_data.c", TEXT_ENDING)
"""Endings of the files that are written with the one that a caller names, behind the model's name."""
SEVERAL = ("shared", "object")
"""Formats that have room for the code of several CPUs."""
INSIDE_BYTES = 64 << 20
"""Weights up to this size are part of the file, unless the caller says otherwise."""
TEXT_BYTES = 1 << 20
"""The same for C source."""


@dataclass(frozen=True, slots=True)
class TargetExporter:
    """Exports what was compiled for a target (an `Exporter`).

    Attributes:
        target: what the executable is compiled for. targets: what the user asked for, the most capable first.
        is_own: whether the user asked for whatever CPU this machine has.
        source, options: what is compiled and how, for the manifest.
        compile_for: compiles the same model for one of them, or for this machine; whether Winograd's algorithm may be used as in this one.
    """

    target: Target
    targets: tuple[Target, ...]
    is_own: bool
    source: Mapping[str, Any]
    options: Mapping[str, Any]
    compile_for: Callable[[Target | str, bool], Executable]

    def __call__(self, exe: Executable, path: str | os.PathLike[str], options: ExportOptions) -> tuple[Path, ...]:
        format = options.format
        if format not in FORMATS:
            raise TcompError(f"cannot export as {format!r}", hint=" or ".join(map(repr, FORMATS)))
        file = Path(path)
        word = checked_name(options.name or file.name.split(".")[0])
        if file.name in (f"{word}{ending}" for ending in BESIDE):
            raise TcompError(f"cannot write the code to {file}", why="a file of that name is written beside it")
        made = self._compiled(exe, format, options.portable)
        variants = [variant_of(e, t) for t, e in made.items()]
        kept = state_of(exe.program, options.state, options.state_names)
        if kept.kept and format == "wasm":
            raise UnsupportedError("cannot export a model that keeps something from run to run as WebAssembly yet")
        inputs, results = example_run(exe if not exe.library.lacking else self.compile_for("cpu", True), kept)
        for e in made.values():
            if e is not exe and not e.library.lacking:
                check_example(e, kept, results)
        found = gathered([(*v.program.constants, kept.block()) for v in variants])
        held = found.beside() if _is_beside(found.nbytes, format, options.weights) else found
        shapes = {s.name: s.shape for s in exe.inputs}
        how = {
            **self.options,
            "format": format,
            "weights": options.weights,
            "shapes": shapes,
            "portable": len(made) > len(self._asked(format)),
        }
        told = {"source": self.source, "options": how}
        return FORMATS[format](Artifact(word, sharing_code(variants), held, kept, inputs, results, told), file)

    def _asked(self, format: str) -> tuple[Target, ...]:
        """The targets that the user asked for, where the format has room for several."""
        return self.targets if format in SEVERAL else (self.target,)

    def _compiled(self, exe: Executable, format: str, asked: bool | None) -> dict[CpuTarget, Executable]:
        """The model for each target to export it for."""
        found = {}
        for t in self._asked(format):
            if not isinstance(t, CpuTarget):
                raise UnsupportedError(f"cannot export what was compiled for {t}", hint='compile for "cpu"')
            found[t] = exe if t == self.target else self.compile_for(t, True)
        more = self._portable(format, asked)
        if more is not None:
            found[more] = self.compile_for(more, False)
        return found

    def _portable(self, format: str, asked: bool | None) -> CpuTarget | None:
        """The portable target to add, if any."""
        least = self.targets[-1]
        if format not in SEVERAL or asked is False or not isinstance(least, CpuTarget) or not (asked or self.is_own):
            return None
        return portable(least)


def _is_beside(nbytes: int, format: str, weights: str) -> bool:
    """Whether weights of so many bytes go into a file of their own."""
    if weights not in ("auto", "inside", "beside"):
        raise TcompError(f"weights={weights!r}", hint='"auto", "inside" or "beside"')
    if format == "wasm":
        if weights == "beside":
            raise UnsupportedError("a WebAssembly module has its weights inside")
        return False
    return weights == "beside" or (weights == "auto" and nbytes > (TEXT_BYTES if format == "c" else INSIDE_BYTES))


__all__ = ["FORMATS", "TargetExporter", "source_of_file"]
