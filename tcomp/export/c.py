"""C99 source: for compilers that LLVM does not serve, and to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..lazy import lazy_module
from ..runtime.manifest import TEXT_ENDING, sealed_text
from .artifact import Artifact, golden_arrays
from .files import place
from .interface import entry_name, header, source
from .provenance import manifest
from .weights import blob

sources = lazy_module("tcomp.codegen.c.source")

_WORDS_PER_LINE = 6
_ORDER = """#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the arrays of this model are written for machines that store the low byte first"
#endif
"""


def write_c(artifact: Artifact, path: Path) -> tuple[Path, ...]:
    """Write model.c, and NAME.h, NAME_data.c and NAME_manifest.json beside it (and NAME.safetensors, where the weights are not inside); all, or
    nothing.

    Returns:
        Their paths.

    Raises:
        TcompError: the files cannot be written.
    """
    (variant,) = artifact.variants
    code = sources.prelude() + sources.program_text(variant.program, variant.kernels, entry_name(0))
    weights = blob(() if artifact.weights.file else artifact.weights.arrays)
    arrays = {"weights": weights, "golden": blob(golden_arrays(artifact))}
    data = "\n".join(["#include <stdint.h>\n", _ORDER, *(_array(f"{artifact.name}_{k}", v) for k, v in arrays.items())])
    files = {
        path: source(artifact, "portable.c", code).encode(),
        path.with_name(f"{artifact.name}.h"): header(artifact).encode(),
        path.with_name(f"{artifact.name}_data.c"): data.encode(),
    }
    if artifact.weights.file:
        files[path.with_name(artifact.weights_name)] = artifact.weights.file
    told = sealed_text(manifest(artifact, "", files))
    return place({**files, path.with_name(f"{artifact.name}{TEXT_ENDING}"): told})


def _array(name: str, data: bytes) -> str:
    """Bytes as 64-bit words, which compilers read faster than bytes."""
    return f"extern const uint64_t {name}[];\nconst uint64_t {name}[] = {{\n" + "\n".join(_lines(data)) + "\n};\n"


def _lines(data: bytes) -> Iterator[str]:
    words = np.frombuffer(data, "<u8").tolist()
    for at in range(0, len(words), _WORDS_PER_LINE):
        yield " ".join(f"{w:#x}u," for w in words[at : at + _WORDS_PER_LINE])
