"""How dtypes look in LLVM: as values in registers and as elements in memory.

A bool is an i1 in a register and a byte in memory. A bfloat16 is its 16 bits in both; arithmetic on 16-bit floats happens
in float32, rounding each result.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llvmlite import ir

from ...dtype import DType

PTR = ir.PointerType()
I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()


class _BFloatType(ir.Type):
    """LLVM's bfloat, which llvmlite does not know; only instructions that take it see it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloatType)

    def __hash__(self) -> int:
        return hash(_BFloatType)


BFLOAT = _BFloatType()


def element_type(d: DType) -> ir.Type:
    """The type of one lane in a register."""
    if d.is_bool:
        return I1
    if d.kind == "bfloat":
        return ir.IntType(16)
    if d.kind == "float":
        return {16: ir.HalfType(), 32: FLOAT, 64: DOUBLE}[d.bits]
    return ir.IntType(d.bits)


def value_type(d: DType) -> ir.Type:
    """The type of a value in a register."""
    element = element_type(d)
    return element if d.lanes == 1 else ir.VectorType(element, d.lanes)


def memory_type(d: DType) -> ir.Type:
    """The type of a value in memory."""
    element = I8 if d.is_bool else element_type(d)
    return element if d.lanes == 1 else ir.VectorType(element, d.lanes)


def mangled(d: DType, memory: bool = True) -> str:
    """The suffix of an overloaded intrinsic's name."""
    if d.is_bool:
        base = "i8" if memory else "i1"
    elif d.kind == "float":
        base = f"f{d.bits}"
    else:
        base = f"i{d.bits}"
    return base if d.lanes == 1 else f"v{d.lanes}{base}"


def literal(element: ir.Type, value: int | float, lanes: int = 1) -> ir.Constant:
    """A value in all lanes. Equal vectors are made once: llvmlite wraps, and writes, them lane by lane."""
    return ir.Constant(element, value) if lanes == 1 else _splat(element, value, lanes, str(value))


@lru_cache(maxsize=128)
def _splat(element: ir.Type, value: int | float, lanes: int, text: str) -> ir.Constant:
    """`text` tells -0.0 from 0.0."""
    return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)


class _Word(ir.Constant):
    """A vector that has a name in LLVM IR; llvmlite would write it lane by lane."""

    def __init__(self, t: ir.VectorType, word: str) -> None:
        self.type, self.constant = t, word

    def _get_reference(self) -> str:
        return str(self.constant)


@lru_cache(maxsize=128)
def undefined(element: ir.Type, lanes: int) -> ir.Constant:
    """A vector of whatever."""
    return _Word(ir.VectorType(element, lanes), "undef")


def key_of(v: ir.Value) -> Any:
    """The same for equal constants, and for nothing else but the value itself, as long as that lives."""
    return (str(v.type), v.get_reference()) if isinstance(v, ir.Constant) else id(v)


@lru_cache(maxsize=128)
def steps(element: ir.Type, stride: int, lanes: int) -> ir.Constant:
    """The vector of 0, stride, 2 * stride, ..."""
    return ir.Constant(ir.VectorType(element, lanes), [stride * i for i in range(lanes)])


def opaque(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """A pointer without llvmlite's idea of what it points to: a GEP by nothing, which costs nothing."""
    result = builder.gep(pointer, [ir.Constant(I32, 0)], source_etype=I8)
    result.type = PTR
    return result
