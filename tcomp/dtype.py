"""Element types, and how they meet NumPy (bfloat16 through ml_dtypes)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from .errors import ExprError
from .lazy import lazy_module

np = lazy_module("numpy")
ml_dtypes = lazy_module("ml_dtypes")

_NAME = re.compile(r"(bool|int|uint|float|bfloat)(\d*)(?:x(\d+))?$")


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """A scalar type, or a vector of `lanes` scalars.

    Attributes:
        kind: "bool", "int", "uint", "float" or "bfloat".
        bits: width of one element; a bool takes 8 in memory.
        lanes: 1 for a scalar.
    """

    kind: str
    bits: int
    lanes: int = 1

    def __eq__(self, other: object) -> bool:
        if self is other:  # nearly always: by far the most frequent question
            return True
        return type(other) is DType and (self.kind, self.bits, self.lanes) == (other.kind, other.bits, other.lanes)

    def __hash__(self) -> int:
        return hash((self.kind, self.bits, self.lanes))

    @property
    def name(self) -> str:
        base = "bool" if self.kind == "bool" else f"{self.kind}{self.bits}"
        return base if self.lanes == 1 else f"{base}x{self.lanes}"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f'dtype("{self.name}")'

    @property
    def is_float(self) -> bool:
        return self.kind in ("float", "bfloat")

    @property
    def is_int(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.bits // 8

    @property
    def element(self) -> DType:
        return self if self.lanes == 1 else DType(self.kind, self.bits)

    @property
    def accumulator(self) -> DType:
        """The type in which products of this one are summed up: wide enough to keep what they have."""
        if self.is_float and self.bits < 32:
            return DType("float", 32, self.lanes)
        return DType("int", 32, self.lanes) if self.is_int and self.bits == 8 else self

    def with_lanes(self, lanes: int) -> DType:
        return self if lanes == self.lanes else DType(self.kind, self.bits, lanes)

    @property
    def numpy(self) -> Any:
        """The NumPy dtype of one element."""
        return np.dtype(ml_dtypes.bfloat16) if self.kind == "bfloat" else np.dtype(self.element.name)

    @property
    def lowest(self) -> float | int:
        """The least value: -inf for floating point."""
        if self.is_float:
            return float("-inf")
        return -(1 << (self.bits - 1)) if self.kind == "int" else 0

    @property
    def highest(self) -> float | int:
        """The greatest value: inf for floating point."""
        if self.is_float:
            return float("inf")
        if self.is_bool:
            return 1
        return (1 << (self.bits - 1)) - 1 if self.kind == "int" else (1 << self.bits) - 1


_LEGAL = {"bool": {8}, "int": {8, 16, 32, 64}, "uint": {8, 16, 32, 64}, "float": {16, 32, 64}, "bfloat": {16}}


@cache
def _parse(name: str) -> DType:
    match = _NAME.match(name)
    if match:
        kind, bits, lanes = match[1], int(match[2] or 8), int(match[3] or 1)
        if bits in _LEGAL[kind] and lanes >= 1 and (kind == "bool") == (match[2] == ""):
            return DType(kind, bits, lanes)
    known = ", ".join(sorted("bool" if k == "bool" else f"{k}{b}" for k, widths in _LEGAL.items() for b in widths))
    raise ExprError(f"unknown dtype {name!r}", hint=f"one of {known}")


def dtype(value: Any) -> DType:
    """The DType of a name, a DType, a NumPy dtype or a Python type.

    Raises:
        ExprError: tcomp has no such type.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str):
        return _parse(value)
    if value is bool:
        return bool_
    return _parse(np.dtype(value).name)


bool_ = DType("bool", 8)
int8, int16, int32, int64 = (DType("int", b) for b in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DType("uint", b) for b in (8, 16, 32, 64))
float16, float32, float64 = (DType("float", b) for b in (16, 32, 64))
bfloat16 = DType("bfloat", 16)

ALL = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64)
