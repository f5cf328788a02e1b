"""Native code: a shared library, or an object file to link into a program; a header beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import UnsupportedError
from ..lazy import lazy_module
from ..runtime.manifest import SECTION, sealed
from ..runtime.threads import runtime_source
from .artifact import Artifact, golden_arrays
from .files import place
from .interface import entry_name, header, source
from .provenance import compressed, manifest
from .toolchain import object_tool, toolchain
from .weights import blob

machines = lazy_module("tcomp.codegen.llvm.machine")
entries = lazy_module("tcomp.codegen.llvm.entry")

_COMPILE = ("-std=gnu11", "-O2", "-g0", "-fPIC", "-fvisibility=hidden")
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
    .globl {name}_manifest
{name}_manifest:
    .incbin "manifest"
    .section .note.GNU-stack,"",%progbits
"""
_CMAKE = """# include(this file), then target_link_libraries(your_target PRIVATE {name})
find_package(Threads REQUIRED)
add_library({name} OBJECT IMPORTED)
set_target_properties({name} PROPERTIES
  IMPORTED_OBJECTS "${{CMAKE_CURRENT_LIST_DIR}}/{file}"
  INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}"
  INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
"""


def write_shared(artifact: Artifact, path: Path) -> tuple[Path, ...]:
    """Write a shared library, such as model.so, and NAME.h beside it; all, or nothing. Returns their paths.

    Raises:
        TcompError: there is no C compiler, or it failed; the files cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        beside = _beside(artifact, path)
        parts = _write_parts(artifact, folder, beside)
        chain = toolchain(artifact.target)
        links = ["--version-script=exports.map", "--build-id=none", "-z,noexecstack", f"-soname,{path.name}", "-s"]
        chain.run([*_COMPILE, "-shared", "-o", "out", *parts, *(f"-Wl,{x}" for x in links), "-lm", "-lpthread"], folder)
        return place({path: sealed((folder / "out").read_bytes()), **beside})


def write_object(artifact: Artifact, path: Path) -> tuple[Path, ...]:
    """Write an object file, such as model.o, with NAME.h and NAME.cmake beside it; all, or nothing. Returns their paths.

    All but the names of the interface are local to the file, so that several models go into one program.

    Raises:
        TcompError: there is no C compiler or no objcopy, or one failed; the files cannot be written.
    """
    name = artifact.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cmake = _CMAKE.format(name=name, file=path.name).encode()
        beside = {**_beside(artifact, path), path.with_name(f"{name}.cmake"): cmake}
        parts = _write_parts(artifact, folder, beside)
        chain, tool = toolchain(artifact.target), object_tool(artifact.target)
        for i, file in enumerate(parts[:2]):
            chain.run([*_COMPILE, "-c", file, "-o", f"part{i}.o"], folder)
        chain.run(["-r", "-nostdlib", "-Wl,--build-id=none", "-o", "all.o", "part0.o", "part1.o", *parts[2:]], folder)
        tool.run(["--wildcard", f"--keep-global-symbol={name}_*", "--strip-debug", "all.o", "out"], folder)
        return place({path: sealed((folder / "out").read_bytes()), **beside})


def _beside(artifact: Artifact, path: Path) -> dict[Path, bytes]:
    """The header and, where weights are not inside, their file."""
    files = {path.with_name(f"{artifact.name}.h"): header(artifact).encode()}
    if artifact.weights.file:
        files[path.with_name(artifact.weights_name)] = artifact.weights.file
    return files


def _write_parts(artifact: Artifact, folder: Path, beside: Mapping[Path, bytes]) -> list[str]:
    """Write what is linked; returns the files' names, the two that are to be compiled first.

    Raises:
        UnsupportedError: for a system without threads and shared libraries.
    """
    t, name = artifact.target, artifact.name
    if "linux" not in t.triple:
        raise UnsupportedError(
            f"cannot export code for {t.triple} as native code for Linux", hint='format="wasm", or a Linux triple'
        )
    # the caller may bring a loop of its own, which interface.c then calls
    pool = runtime_source(t.triple.split("-")[0]).replace("@tcomp_parallel_for(", "@tcomp_pool_parallel_for(")
    least = artifact.variants[-1].target  # its code runs on all
    machine = machines.Machine(t.triple, least.cpu, least.features)
    objects = {"pool.o": machines.emit_object(pool, machine), **objects_of(artifact)}
    parts = {
        **objects,
        "weights.bin": blob(() if artifact.weights.file else artifact.weights.arrays),
        "golden.bin": blob(golden_arrays(artifact)),
        "manifest": compressed(manifest(artifact, toolchain(t).version(), beside)),
        "data.S": _DATA.format(name=name, section=SECTION).encode(),
        f"{name}.h": header(artifact).encode(),
        "model.c": source(artifact, "linux.c").encode(),
        "exports.map": f"{{ global: {name}_*; local: *; }};\n".encode(),
    }
    for file, data in parts.items():
        (folder / file).write_bytes(data)
    return ["model.c", "data.S", *objects]


def objects_of(artifact: Artifact) -> dict[str, bytes]:
    """Object files with the kernels and entries of all variants, by names for them."""
    found: dict[str, bytes] = {}
    for i, v in enumerate(artifact.variants):
        found |= {f"kernel{i}_{j}.o": code for j, code in enumerate(v.objects)}
        machine = machines.Machine(v.target.triple, v.target.cpu, v.target.features)
        found[f"entry{i}.o"] = machines.emit_object(entries.entry_module(v.program, entry_name(i), v.symbols), machine)
    return found
