"""A shared library: code, weights, example and manifest in one file, and a header beside it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import TcompError
from ..lazy import lazy_module
from ..runtime.artifact import SECTION
from ..runtime.threads import runtime_source
from .artifact import Artifact, blob
from .interface import header, source
from .toolchain import Toolchain, host_toolchain

machines = lazy_module("tcomp.codegen.llvm.machine")

_DATA = """
    .section .rodata.{name},"a",%progbits
    .balign 64
    .globl {name}_weights
{name}_weights:
    .incbin "weights.bin"
    .balign 64
    .globl {name}_golden
{name}_golden:
    .incbin "golden.bin"
    .section {section},"a",%progbits
    .incbin "manifest.json"
    .section .note.GNU-stack,"",%progbits
"""


def write_shared(artifact: Artifact, path: Path, toolchain: Toolchain | None = None) -> tuple[Path, Path]:
    """Write a shared library, and its header beside it; both, or nothing. Returns their paths.

    Args:
        path: of the library, such as model.so; the header is NAME.h in the same folder.

    Raises:
        TcompError: there is no C compiler, or it failed; the files cannot be written.
    """
    chain = toolchain or host_toolchain()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        objects = _write_parts(artifact, folder)
        arguments = [
            "-std=gnu99",
            "-O2",
            "-g0",
            "-fPIC",
            "-fvisibility=hidden",
            "-shared",
            "-o",
            "out.so",
            "model.c",
            "data.S",
            *objects,
        ]
        links = ["--version-script=exports.map", "--build-id=none", "-z,noexecstack", f"-soname,{path.name}", "-s"]
        chain.run([*arguments, *(f"-Wl,{x}" for x in links), "-lm", "-lpthread"], folder)
        beside = path.with_name(f"{artifact.name}.h")
        _place({path: (folder / "out.so").read_bytes(), beside: header(artifact).encode()})
    return path, beside


def _write_parts(artifact: Artifact, folder: Path) -> list[str]:
    """The files that are linked; returns the names of object files."""
    t, name = artifact.target, artifact.name
    # the caller may bring a loop of its own, which interface.c then calls
    pool = runtime_source(t.triple.split("-")[0]).replace("@tcomp_parallel_for(", "@tcomp_pool_parallel_for(")
    objects = {f"kernel{i}.o": code for i, code in enumerate(artifact.objects)}
    objects["pool.o"] = machines.emit_object(pool, machines.Machine(t.triple, t.cpu, t.features))
    parts = {
        **objects,
        "weights.bin": blob(artifact.program.constants),
        "golden.bin": blob((*artifact.inputs, *artifact.results)),
        "manifest.json": artifact.manifest(),
        "data.S": _DATA.format(name=name, section=SECTION).encode(),
        f"{name}.h": header(artifact).encode(),
        "model.c": source(artifact).encode(),
        "exports.map": f"{{ global: {name}_*; local: *; }};\n".encode(),
    }
    for file, data in parts.items():
        (folder / file).write_bytes(data)
    return list(objects)


def _place(files: dict[Path, bytes]) -> None:
    """Write files so that each is there whole, or as it was."""
    written: list[tuple[Path, Path]] = []
    try:
        for path, data in files.items():
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(data)
            written.append((part, path))
        for part, path in written:
            os.replace(part, path)
    except OSError as error:
        for part, _ in written:
            part.unlink(missing_ok=True)
        raise TcompError(f"cannot write {error.filename or path}", why=error.strerror or str(error)) from error
