"""What is exported: programs, their code and an example with its results, as data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import TcompError, UnsupportedError
from ..lazy import lazy_module
from ..runtime.arguments import Spec
from ..runtime.example import example_inputs
from ..runtime.executable import Executable
from ..runtime.program import Program
from ..target import CpuTarget
from .state import State
from .weights import Weights

llvm = lazy_module("llvmlite.binding")

MAX_GOLDEN_BYTES = 64 << 20
"""Largest inputs and results of the self-test, together."""
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-10}
"""Relative difference (2-norm) that is allowed: other CPUs and other numbers of threads may add up in another order."""
_SYMBOL = re.compile(rb"\0(k_[0-9a-f]{24})\0")
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
class Variant:
    """The code of a model for one kind of CPU.

    Attributes:
        objects: relocatable code of the kernels. kernels: by their names in the program, for formats that write them in other words.
        symbols: whose code stands for that of a function, where several variants share it.
    """

    target: CpuTarget
    program: Program
    objects: tuple[bytes, ...] = field(repr=False)
    kernels: Mapping[str, Any] = field(repr=False)
    symbols: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Artifact:
    """A model to export.

    Attributes:
        name: begins every name of its C interface.
        variants: for which CPUs; the first that a CPU can run is taken.
        state: what the model keeps; its block of memory is the last of the weights.
        inputs, results: the example of the self-test.
        provenance: what the model was made from, for the manifest.
    """

    name: str
    variants: tuple[Variant, ...]
    weights: Weights
    state: State
    inputs: tuple[np.ndarray, ...] = field(repr=False)
    results: tuple[np.ndarray, ...] = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def program(self) -> Program:
        """The first one; inputs and results are those of all."""
        return self.variants[0].program

    @property
    def target(self) -> CpuTarget:
        """The first one; the system is that of all."""
        return self.variants[0].target

    @property
    def weights_name(self) -> str:
        """The file of weights, in the folder of the code; "" where they are inside."""
        return f"{self.name}.safetensors" if self.weights.file else ""


def checked_name(name: str) -> str:
    """A name that C can have.

    Raises:
        TcompError: it is none.
    """
    if not _NAME.match(name) or name in _KEYWORDS:
        raise TcompError(f"cannot name an exported model {name!r}", why="it must be a word as C has them", hint="name=")
    return name


def variant_of(exe: Executable, target: CpuTarget) -> Variant:
    """An executable's code.

    Raises:
        UnsupportedError: extents or parameters that change from call to call; no object code.
    """
    p = exe.program
    if p.dims:
        raise UnsupportedError(
            "cannot export a model with symbolic extents yet",
            why=f"{', '.join(p.dims)} are known only when it is called",
            hint="compile it for the extents at hand",
        )
    if not exe.library.objects:
        raise UnsupportedError("this executable has no object code to export", hint='compile for target="cpu"')
    return Variant(target, p, exe.library.objects[:-1], {} if exe.stages is None else exe.stages.kernels)


def sharing_code(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants with kernels that have the same code for several CPUs once: later programs launch those of earlier ones."""
    known: dict[bytes, str] = {}
    found = []
    for v in variants:
        names: dict[str, str] = {}
        own = []
        for code in v.objects:
            symbol = symbol_of(code)
            first = known.setdefault(_without_name(code, symbol.encode()), symbol)
            names[symbol] = first
            if first == symbol:
                own.append(code)
        found.append(replace(v, objects=tuple(own), symbols=names))
    return tuple(found)


def _without_name(code: bytes, symbol: bytes) -> bytes:
    """What two kernels share that differ in nothing but the name of their function: sections, and symbols but for where their names stand,
    since LLVM sorts these."""
    found: list[object] = []
    for s in llvm.ObjectFileRef.from_data(code).sections():
        name, data = s.name() or b"", s.data()
        if name == b".strtab":
            found.append(sorted(data.replace(symbol, b"").split(b"\0")))
        elif name == b".symtab":
            found.append([data[i + 4 : i + 24] for i in range(0, len(data), 24)])
        else:
            found.append((name.replace(symbol, b""), data))
    return hashlib.sha256(repr(found).encode()).digest()


def symbol_of(code: bytes) -> str:
    """The name of a kernel's function, of its object code; "" where there is none."""
    found = _SYMBOL.search(code)
    return found[1].decode() if found else ""


def example_run(runs: Executable, state: State) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Random inputs of a model, but for those that it keeps, and its results.

    Raises:
        UnsupportedError: they are too large to store.
    """
    inputs, results = _run(runs, state)
    for k in state.kept:
        inputs[k.input] = inputs[k.input][:0]  # it is stored elsewhere
    if sum(a.nbytes for a in (*inputs, *results)) > MAX_GOLDEN_BYTES:
        raise UnsupportedError(
            f"the inputs and results of one run take more than {MAX_GOLDEN_BYTES >> 20} MiB, which the self-test would store",
            hint="compile for a smaller batch",
        )
    return tuple(inputs), results


def check_example(runs: Executable, state: State, results: Sequence[np.ndarray]) -> None:
    """Compare what the same model, compiled once more for another CPU, gives for the example.

    Raises:
        TcompError: something else.
    """
    for name, got, want in zip((s.name for s in runs.outputs), _run(runs, state)[1], results, strict=True):
        apart, size = (
            np.linalg.norm(np.nan_to_num(a.astype(np.float64)).ravel()) for a in (got.astype(np.float64) - want, want)
        )
        if apart > TOLERANCES.get(str(want.dtype), 0.0) * size:
            raise TcompError(
                f"cannot export code for several CPUs: result {name} differs between them by {apart / (size or 1):.1e}",
                why="the model was compiled again for the others, and is not what it was: weights may have changed since",
                hint="compile it again before exporting, or export(..., portable=False)",
            )


def _run(runs: Executable, state: State) -> tuple[list[np.ndarray], tuple[np.ndarray, ...]]:
    """The example: inputs, and results, which are apart from what is kept."""
    inputs = example_inputs(runs.program)
    for k in state.kept:
        inputs[k.input] = np.array(k.array)
    found = runs(*inputs)
    return inputs, found if isinstance(found, tuple) else (found,)


def static_shape(spec: Spec) -> tuple[int, ...]:
    """A shape of integers."""
    return tuple(e for e in spec.shape if isinstance(e, int))


def golden_arrays(artifact: Artifact) -> Sequence[np.ndarray]:
    """The example's arrays, in the order in which they are stored."""
    return (*artifact.inputs, *artifact.results)
