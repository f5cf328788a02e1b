"""How dtypes are called in C: short names for values, which functions begin with, and the types of elements in memory.

A bool is an int in a variable and a byte in memory; a vector of bools is a mask of 32-bit integers, each 0 or -1. Floats of 16 bits are
kept as their bits, and computed with as float32.
"""

from __future__ import annotations

from ...dtype import DType

_SHORT = {"int": "i", "uint": "u", "float": "f", "bfloat": "bf"}


def short_name(d: DType) -> str:
    """Such as f32, i64x8; m16 for a mask of 16 lanes."""
    if d.is_bool:
        return "bool" if d.lanes == 1 else f"m{d.lanes}"
    base = f"{_SHORT[d.kind]}{d.bits}"
    return base if d.lanes == 1 else f"{base}x{d.lanes}"


def element_type(d: DType) -> str:
    """Of one element in memory."""
    if d.is_bool:
        return "uint8_t"
    if d.is_float:
        return {16: "uint16_t", 32: "float", 64: "double"}[d.bits]
    return f"{d.kind}{d.bits}_t"


def scalar_type(d: DType) -> str:
    """Of a scalar in a variable."""
    return "int" if d.is_bool else element_type(d)


def is_narrow(d: DType) -> bool:
    """Whether arithmetic happens in float32."""
    return d.is_float and d.bits == 16
