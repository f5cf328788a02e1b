"""What a model keeps from run to run: inputs that belong to the exported model, such as the weights and moments of a training step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError, UnsupportedError
from ..memory import ALIGN
from ..runtime.program import Program
from ..runtime.results import numpy_dtype
from .weights import SAFETENSORS_DTYPES

_DIGITS = "00000000"
"""Stands for the checksum."""


@dataclass(frozen=True)
class Kept:
    """A tensor that a model keeps.

    Attributes:
        name: in files. input: its number among the program's inputs. result: that of the result that takes its place, or -1.
        place: its first byte. array: its value at export.
    """

    name: str
    input: int
    result: int
    place: int
    array: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class State:
    """All of them, in the order of a block of memory, which is that of the file as well."""

    kept: tuple[Kept, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(k.array.nbytes for k in self.kept)

    def block(self) -> np.ndarray:
        """The values at export."""
        return np.frombuffer(b"".join(k.array.tobytes() for k in self.kept), np.uint8)

    def header(self) -> tuple[bytes, int]:
        """What stands before the block in a safetensors file, and where its checksum stands (as `frontend` writes and reads it)."""
        told: dict[str, object] = {"__metadata__": {"crc32": _DIGITS}}
        for k in self.kept:
            kind = SAFETENSORS_DTYPES[str(k.array.dtype)]
            told[k.name] = {"dtype": kind, "shape": k.array.shape, "data_offsets": [k.place, k.place + k.array.nbytes]}
        text = json.dumps(told, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGN)
        return len(text).to_bytes(8, "little") + text, 8 + text.index(_DIGITS.encode())

    def by_name(self) -> Sequence[tuple[Kept, str]]:
        """In the order of the checksum, which counts these texts and the bytes behind each: NAME DTYPE SHAPE."""
        return [(k, f"{k.name} {k.array.dtype} {k.array.shape}") for k in sorted(self.kept, key=lambda k: k.name)]


def state_of(p: Program, values: Mapping[str, np.ndarray], names: Mapping[str, str]) -> State:
    """The state of a program.

    Args:
        values: of the inputs that the model keeps, by name. names: what they are called in files, where that is another name.

    Raises:
        InputError: no such input, or not a value for it. UnsupportedError: the model changes an input that it does not keep.
    """
    numbers = {s.name: i for i, s in enumerate(p.inputs)}
    results = dict(p.updates)
    changed = [p.inputs[i].name for i in results if p.inputs[i].name not in values]
    if changed:
        raise UnsupportedError(
            f"cannot export a model that changes its inputs {', '.join(changed)}",
            why="an exported model keeps what it changes",
            hint="state={name: array, ...}; of a training step, step.export(path)",
        )
    found = []
    for name, value in values.items():
        if name not in numbers:
            raise InputError(f"the model has no input {name!r} to keep", why=f"its inputs are {', '.join(numbers)}")
        spec = p.inputs[numbers[name]]
        array = np.asarray(value, order="C")
        if array.shape != spec.shape or array.dtype != numpy_dtype(spec):
            raise InputError(f"cannot keep {array.dtype}{list(array.shape)} as {name}", why=f"the input is {spec}")
        found.append((names.get(name, name), numbers[name], array))
    # whole cache lines first, then large elements first: so each begins where its elements may
    found.sort(key=lambda x: (x[2].nbytes % ALIGN != 0, -x[2].itemsize, x[1]))
    kept, at = [], 0
    for name, number, array in found:
        kept.append(Kept(name, number, results.get(number, -1), at, array))
        at += array.nbytes
    return State(tuple(kept))
