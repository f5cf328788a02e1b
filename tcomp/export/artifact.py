"""What is exported: a program, its code and an example with its results, as data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..dtype import dtype
from ..errors import TcompError, UnsupportedError
from ..memory import ALIGN
from ..runtime.arguments import Spec
from ..runtime.artifact import ABI
from ..runtime.executable import Executable
from ..runtime.program import Program
from ..runtime.results import numpy_dtype
from ..target import CpuTarget
from ..version import __version__

MAX_GOLDEN_BYTES = 64 << 20
"""Largest inputs and results of the self-test, together."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*$")
_KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "tcomp",
    ]
)


@dataclass(frozen=True)
class Artifact:
    """A model to export.

    Attributes:
        name: begins every name of its C interface.
        objects: relocatable code, of kernels and the entry.
        inputs, results: the example of the self-test.
        beside: the bytes of the file of weights; empty where they are inside. beside_start: where its data begin.
    """

    name: str
    program: Program
    target: CpuTarget
    objects: tuple[bytes, ...] = field(repr=False)
    inputs: tuple[np.ndarray, ...] = field(repr=False)
    results: tuple[np.ndarray, ...] = field(repr=False)
    beside: bytes = field(default=b"", repr=False)
    beside_start: int = 0

    @property
    def weights_name(self) -> str:
        """The file of weights, in the folder of the code; "" where they are inside."""
        return f"{self.name}.safetensors" if self.beside else ""

    def manifest(self) -> bytes:
        """What a loader and a reader need to know, as JSON: the same bytes for the same artifact."""
        p = self.program
        told = {
            "tcomp": __version__, "abi": ABI, "name": self.name, "target": str(self.target), "triple": self.target.triple,
            "program": p.to_json(), "weights": self.weights_name,
        }  # fmt: skip
        return json.dumps(told, sort_keys=True).encode()


def artifact_of(
    exe: Executable, target: CpuTarget, name: str, runs: Executable | None = None, seed: int = 0
) -> Artifact:
    """What is exported of an executable.

    Args:
        runs: the same model, compiled for this machine, which is run once on random inputs for the self-test; by default `exe` itself.

    Raises:
        TcompError: a name that C cannot have. UnsupportedError: extents or parameters that change from call to call.
    """
    if not _NAME.match(name) or name in _KEYWORDS:
        raise TcompError(f"cannot name an exported model {name!r}", why="it must be a word as C has them", hint="name=")
    p = exe.program
    if p.dims:
        raise UnsupportedError(
            "cannot export a model with symbolic extents yet",
            why=f"{', '.join(p.dims)} are known only when it is called",
            hint="compile it for the extents at hand",
        )
    if p.updates:
        raise UnsupportedError("cannot export a model that changes its inputs yet, such as a training step")
    if not exe.library.objects:
        raise UnsupportedError("this executable has no object code to export", hint='compile for target="cpu"')
    inputs = _example(p, np.random.default_rng(seed))
    found = (runs or exe)(*inputs)
    results = found if isinstance(found, tuple) else (found,)
    if sum(a.nbytes for a in (*inputs, *results)) > MAX_GOLDEN_BYTES:
        raise UnsupportedError(
            f"the inputs and results of one run take more than {MAX_GOLDEN_BYTES >> 20} MiB, which the self-test would store",
            hint="compile for a smaller batch",
        )
    return Artifact(name, p, target, exe.library.objects, tuple(inputs), results)


def _example(p: Program, rng: np.random.Generator) -> list[np.ndarray]:
    """Random inputs: normal numbers, small integers, places within their range."""
    limits: dict[int, tuple[int, int]] = {}
    for c in p.checks:
        low, high = limits.get(c.input, (0, c.high))
        limits[c.input] = max(low, c.low), min(high, c.high)
    arrays = []
    for i, spec in enumerate(p.inputs):
        shape, kind = static_shape(spec), dtype(spec.dtype)
        low, high = limits.get(i, (0, 1))
        is_count = kind.is_bool or kind.is_int
        drawn = rng.integers(low, high + 1, shape) if is_count else np.asarray(rng.standard_normal(shape))
        arrays.append(drawn.astype(numpy_dtype(spec)))
    return arrays


def static_shape(spec: Spec) -> tuple[int, ...]:
    """A shape of integers."""
    return tuple(e for e in spec.shape if isinstance(e, int))


def offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where arrays of so many bytes begin, each at a cache line, and the bytes of all."""
    at, starts = 0, []
    for n in sizes:
        starts.append(at)
        at += n + -n % ALIGN
    return starts, at


def blob(arrays: Sequence[np.ndarray]) -> bytes:
    """The arrays' bytes, each beginning at a cache line; at least one line."""
    parts = []
    for a in arrays:
        data = np.ascontiguousarray(a).tobytes()
        parts += [data, bytes(-len(data) % ALIGN)]
    return b"".join(parts) or bytes(ALIGN)
