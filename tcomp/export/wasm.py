"""A WebAssembly module, and a JavaScript module that loads it."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from ..errors import TcompError, UnsupportedError
from ..runtime.manifest import SECTION, sealed
from ..version import __version__
from .artifact import Artifact, golden_arrays
from .files import place
from .interface import description, filled, source
from .native import objects_of
from .provenance import compressed, manifest
from .toolchain import Toolchain
from .weights import blob

TARGET = "llvm -mtriple=wasm32-unknown-unknown"
"""What a model must be compiled for."""
_ARRAY = """#include <stdint.h>
const unsigned char {name}_{what}[] __attribute__((aligned(64))) = {{
#embed "{what}.bin"
}};
"""


def write_wasm(artifact: Artifact, path: Path) -> tuple[Path, ...]:
    """Write model.wasm, and NAME.mjs beside it (an ES module for browsers and Node.js); both, or nothing. Returns their paths.

    Raises:
        TcompError: the package ziglang is not there, or failed; the files cannot be written.
    """
    if not artifact.target.triple.startswith("wasm32"):
        raise UnsupportedError(
            f"cannot export code for {artifact.target.triple} as WebAssembly", hint=f'target="{TARGET}"'
        )
    if importlib.util.find_spec("ziglang") is None:
        raise TcompError(
            "WebAssembly is linked by the package ziglang, which is not installed", hint='pip install "tcomp[deploy]"'
        )
    zig = (sys.executable, "-m", "ziglang")
    compiler, linker = Toolchain((*zig, "cc")), Toolchain((*zig, "wasm-ld"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {
            "model.c": source(artifact, "wasm.c"),
            **{f"{what}.c": _ARRAY.format(name=artifact.name, what=what) for what in ("weights", "golden")},
        }
        objects = objects_of(artifact)
        blobs = {
            "weights.bin": blob(artifact.weights.arrays),
            "golden.bin": blob(golden_arrays(artifact)),
        }
        for file, data in {**{k: v.encode() for k, v in sources.items()}, **objects, **blobs}.items():
            (folder / file).write_bytes(data)
        options = [
            "-target",
            "wasm32-freestanding",
            "-std=gnu23",
            "-O2",
            "-g0",
            "-msimd128",
            "-mbulk-memory",
            "-fno-builtin-memcpy",
        ]
        for file in sources:
            compiler.run([*options, "-c", file, "-o", file.replace(".c", ".o")], folder)
        compiled = [file.replace(".c", ".o") for file in sources]
        linker.run(["--no-entry", "--strip-all", "-z", "stack-size=1048576", "-o", "out", *compiled, *objects], folder)
        beside = {path.with_name(f"{artifact.name}.mjs"): module(artifact, path.name).encode()}
        told = _custom_section(compressed(manifest(artifact, compiler.version(), beside)))
        return place({path: sealed((folder / "out").read_bytes() + told), **beside})


def _custom_section(content: bytes) -> bytes:
    """A section that engines skip."""
    body = _leb(len(SECTION)) + SECTION.encode() + content
    return b"\0" + _leb(len(body)) + body


def _leb(value: int) -> bytes:
    """An unsigned number as WebAssembly writes them."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def module(artifact: Artifact, file: str) -> str:
    """The JavaScript module."""
    told = json.loads(description(artifact))
    words = {"version": __version__, "inputs": json.dumps(told["inputs"]), "outputs": json.dumps(told["outputs"])}
    text = (Path(__file__).parent / "module.mjs").read_text(encoding="utf-8")
    return filled(text, {**words, "name": artifact.name, "file": json.dumps(file)[1:-1]})
