"""Weights beside the code: a safetensors file that is mapped into memory, each tensor at a cache line."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ..dtype import dtype
from ..memory import ALIGN
from .artifact import blob, offsets

_DTYPES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64",
    "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
LANES = 512
"""Words of 64 bits that are hashed side by side, as vectors are."""
_START, _FACTOR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
"""Odd, so that no word is lost in a product: any change within one word changes the hash."""


def weights_file(arrays: Sequence[np.ndarray]) -> tuple[bytes, int]:
    """The file, and where its data begin. Gaps before cache lines are tensors of bytes of their own, as the format knows no gaps."""
    starts, total = offsets([a.nbytes for a in arrays])
    total = max(total, ALIGN)
    told: dict[str, object] = {}
    for i, (a, at) in enumerate(zip(arrays, starts)):
        end, following = at + a.nbytes, starts[i + 1] if i + 1 < len(starts) else total
        told[f"weight{i}"] = {"dtype": _DTYPES[dtype(a.dtype).name], "shape": a.shape, "data_offsets": [at, end]}
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
