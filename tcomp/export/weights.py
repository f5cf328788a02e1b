"""Weights: those of all variants as one block of memory, inside the code or in a safetensors file that is mapped, each at a cache line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..dtype import dtype
from ..memory import ALIGN

SAFETENSORS_DTYPES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64",
    "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
LANES = 512
"""Words of 64 bits that are hashed side by side, as vectors are."""
_START, _FACTOR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
"""Odd, so that no word is lost in a product: any change within one word changes the hash."""


@dataclass(frozen=True)
class Weights:
    """The constants of programs, equal ones once.

    Attributes:
        arrays: in the order of memory. places: for each program, where each of its constants begins.
        file: the bytes of the file of weights; empty where they are inside. file_start: where its data begin.
    """

    arrays: tuple[np.ndarray, ...] = field(repr=False)
    places: tuple[tuple[int, ...], ...]
    file: bytes = field(default=b"", repr=False)
    file_start: int = 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays)

    def beside(self) -> Weights:
        """The same in a file."""
        data, start = weights_file(self.arrays)
        return Weights(self.arrays, self.places, data, start)


def gathered(constants: Sequence[Sequence[np.ndarray]]) -> Weights:
    """The weights of programs with these constants."""
    numbers: dict[tuple[str, tuple[int, ...], bytes], int] = {}
    arrays: list[np.ndarray] = []
    chosen = []
    for own in constants:
        row = []
        for a in own:
            key = (a.dtype.str, a.shape, hashlib.sha256(a.tobytes()).digest())
            if key not in numbers:
                numbers[key] = len(arrays)
                arrays.append(a)
            row.append(numbers[key])
        chosen.append(row)
    starts, _ = offsets([a.nbytes for a in arrays])
    return Weights(tuple(arrays), tuple(tuple(starts[i] for i in row) for row in chosen))


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


def weights_file(arrays: Sequence[np.ndarray]) -> tuple[bytes, int]:
    """The file, and where its data begin. Gaps before cache lines are tensors of bytes of their own, as the format knows no gaps."""
    starts, total = offsets([a.nbytes for a in arrays])
    total = max(total, ALIGN)
    told: dict[str, object] = {}
    for i, (a, at) in enumerate(zip(arrays, starts)):
        end, following = at + a.nbytes, starts[i + 1] if i + 1 < len(starts) else total
        told[f"weight{i}"] = {
            "dtype": SAFETENSORS_DTYPES[dtype(a.dtype).name],
            "shape": a.shape,
            "data_offsets": [at, end],
        }
        if end < following:
            told[f"gap{i}"] = {"dtype": "U8", "shape": [following - end], "data_offsets": [end, following]}
    if not arrays:
        told["gap"] = {"dtype": "U8", "shape": [total], "data_offsets": [0, total]}
    head = json.dumps(told, separators=(",", ":")).encode()
    head += b" " * (-(8 + len(head)) % ALIGN)
    return len(head).to_bytes(8, "little") + head + blob(arrays), 8 + len(head)


def hash64(data: bytes) -> int:
    """A hash against damage, not against malice; interface.c computes the same.

    Words are mixed into LANES sums by exclusive or and a product, the sums then into one; the last row is filled up with zeros.
    """
    padded = np.frombuffer(data + bytes(-len(data) % (8 * LANES)), "<u8").reshape(-1, LANES)
    factor, shift = np.uint64(_FACTOR), np.uint64(32)
    lanes = np.arange(1, LANES + 1, dtype=np.uint64) * np.uint64(_START)
    for row in padded:
        lanes = (lanes ^ row) * factor
        lanes ^= lanes >> shift
    result = np.uint64(len(data))
    with np.errstate(over="ignore"):
        for lane in lanes:
            result = (result ^ lane) * factor
            result ^= result >> shift
    return int(result)
