"""The C interface of an exported model: its header, and the tables above interface.c."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from ..dtype import dtype
from ..runtime.arguments import Spec
from ..runtime.artifact import ABI
from ..target.cpu import features_of
from ..version import __version__
from .artifact import Artifact, offsets, static_shape
from .cpuid import feature_bits
from .weights import hash64

KINDS = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64")  # fmt: skip
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-10}
"""Relative difference that the self-test allows: other CPUs and other numbers of threads may add up in another order."""
_FOLDER = Path(__file__).parent


def header(artifact: Artifact) -> str:
    """The C header."""
    p = artifact.program
    words = {
        "name": artifact.name, "NAME": artifact.name.upper(), "version": __version__, "target": artifact.target, "abi": ABI,
        "inputs": _listed(p.inputs), "outputs": _listed(p.outputs), "num_inputs": len(p.inputs), "num_outputs": len(p.outputs),
        "workspace_bytes": p.arena_bytes,
        "weights": "NULL, as the weights are inside" if not artifact.beside else f"of {artifact.name}.safetensors, written with this file",
    }  # fmt: skip
    text = (_FOLDER / "interface.h").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    return text


def source(artifact: Artifact, body: str = "interface.c") -> str:
    """The C source: the model's tables, numbers.c, and one of the interfaces, for a system with a C library or for WebAssembly."""
    p, target = artifact.program, artifact.target
    bits = feature_bits(features_of(target.triple, target.cpu, target.features)) if _is_x86(artifact) else ()
    arrays = (*artifact.inputs, *artifact.results)
    golden, _ = offsets([a.nbytes for a in arrays])
    rows = [
        f"{{{prod(static_shape(s))}, {a.nbytes}, {at}, {s.dtype.upper()}, {TOLERANCES.get(s.dtype, 0.0)!r}}}"
        for s, a, at in zip((*p.inputs, *p.outputs), arrays, golden)
    ]
    checks = [f"{{{c.input}, {c.low}, {c.high}}}" for c in p.checks]
    features = [f"{{{b.leaf:#x}u, {b.subleaf}, {b.register}, {b.bit}, {b.state:#x}u}}" for b in bits]
    starts, _ = offsets([c.nbytes for c in p.constants])
    lines = [
        f'#include "{artifact.name}.h"' if body == "interface.c" else "#include <stddef.h>\n#include <stdint.h>",
        f"#define TCOMP_PREFIX {artifact.name}",
        f"#define FEATURE_NAMES {_quoted(', '.join(b.name for b in bits) or 'none')}",
        f"#define DESCRIPTION {_quoted(description(artifact))}",
        f"enum {{ ABI_VERSION = {ABI}, NUM_INPUTS = {len(p.inputs)}, NUM_OUTPUTS = {len(p.outputs)}, NUM_CONSTANTS = {len(p.constants)},",
        f"       NUM_CHECKS = {len(checks)}, NUM_FEATURES = {len(features)} }};",
        f"static const size_t WORKSPACE_BYTES = {p.arena_bytes};",
        f"static const uint64_t WEIGHTS_FILE_BYTES = {len(artifact.beside)}u, WEIGHTS_HASH = {hash64(artifact.beside):#x}u, "
        f"WEIGHTS_START = {artifact.beside_start}u;",
        f"enum {{ {', '.join(k.upper() for k in KINDS)} }};",
        "typedef struct { int64_t size, bytes, golden; int kind; double tolerance; } Array;",
        "typedef struct { int input; int64_t low, high; } Check;",
        "typedef struct { unsigned leaf, subleaf, reg, bit, state; } Feature;",
        _table("Array", "ARRAYS", rows),
        _table("Check", "CHECKS", checks or ["{0, 0, 0}"]),
        _table("Feature", "FEATURES", features or ["{0, 0, 0, 0, 0}"]),
        _table("int64_t", "CONSTANT_OFFSETS", [str(s) for s in starts] or ["0"]),
        f"extern const unsigned char {artifact.name}_weights[], {artifact.name}_golden[];",
        "",
        *((_FOLDER / file).read_text(encoding="utf-8") for file in ("numbers.c", body)),
    ]
    return "\n".join(lines)


def description(artifact: Artifact) -> str:
    """Names, shapes and dtypes, as JSON."""
    p = artifact.program
    inputs, outputs = (
        [{"name": s.name, "shape": static_shape(s), "dtype": dtype(s.dtype).name} for s in specs]
        for specs in (p.inputs, p.outputs)
    )
    told = {
        "abi": ABI,
        "name": artifact.name,
        "tcomp": __version__,
        "target": str(artifact.target),
        "inputs": inputs,
        "outputs": outputs,
    }
    return json.dumps(told)


def _is_x86(artifact: Artifact) -> bool:
    return artifact.target.triple.startswith("x86_64")


def _listed(specs: tuple[Spec, ...]) -> str:
    return "\n".join(f" *   {i}: {s}" for i, s in enumerate(specs)) or " *   none"


def _table(kind: str, name: str, rows: list[str]) -> str:
    return f"static const {kind} {name}[] = {{{', '.join(rows)}}};"


def _quoted(text: str) -> str:
    """A C string literal; a trigraph cannot arise."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?") + '"'
