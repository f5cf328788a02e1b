"""Conversions between floats of 16 bits and wider ones, where the CPU has no instructions for them."""

from __future__ import annotations

from llvmlite import ir

from ...dtype import DType
from .memory import MemoryEmitter
from .types import FLOAT, I32, literal


class NarrowFloats(MemoryEmitter):
    """Integer arithmetic on the bits of floats."""

    def round_to_odd(self, v: ir.Value, lanes: int) -> ir.Value:
        """float64 -> float32 such that rounding once more, to a narrower type, is right.

        What is not exact is truncated and gets an odd last bit (S. Boldo and G. Melquiond, Emulation of a FMA and
        Correctly Rounded Sums, IEEE Trans. Computers 57(4), 2008).
        """
        b = self.builder
        near = b.fptrunc(v, self._like(FLOAT, lanes))
        back = b.fpext(near, v.type)
        size = f"llvm.fabs.{'f64' if lanes == 1 else f'v{lanes}f64'}"
        too_far = b.fcmp_ordered(">", self.intrinsic(size, v.type, [back]), self.intrinsic(size, v.type, [v]))
        bits = b.bitcast(near, self._like(I32, lanes))
        toward_zero = b.select(too_far, b.sub(bits, self._int(1, lanes)), bits)
        inexact = b.fcmp_ordered("!=", back, v)
        odd = b.select(inexact, b.or_(toward_zero, self._int(1, lanes)), bits)
        return b.bitcast(odd, self._like(FLOAT, lanes))

    def from_half(self, v: ir.Value, n: int) -> ir.Value:
        """float16 -> float32 by integer arithmetic, exactly: the exponent is moved to its place by a product with 2^112, which turns
        subnormal numbers into normal ones as well."""
        b, wide = self.builder, self._like(FLOAT, n)
        bits = b.zext(b.bitcast(v, self._like(ir.IntType(16), n)), self._like(I32, n))
        sign = b.shl(b.and_(bits, self._int(0x8000, n)), self._int(16, n))
        size = b.shl(b.and_(bits, self._int(0x7FFF, n)), self._int(13, n))
        finite = b.bitcast(b.fmul(b.bitcast(size, wide), literal(FLOAT, 2.0**112, n)), self._like(I32, n))
        special = b.icmp_unsigned(">=", size, self._int(0x0F800000, n))  # infinities and NaN
        return b.bitcast(b.or_(b.select(special, b.or_(size, self._int(0x7F800000, n)), finite), sign), wide)

    def to_half(self, v: ir.Value, n: int) -> ir.Value:
        """float32 -> float16 by integer arithmetic, rounded to nearest even; a NaN stays a NaN."""
        b, wide = self.builder, self._like(FLOAT, n)
        bits = b.bitcast(v, self._like(I32, n))
        size = b.and_(bits, self._int(0x7FFFFFFF, n))
        # added to 0.5, a number below 2^-14 is rounded to a multiple of 2^-24, the least float16
        shifted = b.fadd(b.bitcast(size, wide), literal(FLOAT, 0.5, n))
        small = b.sub(b.bitcast(shifted, self._like(I32, n)), self._int(0x3F000000, n))
        odd = b.and_(b.lshr(size, self._int(13, n)), self._int(1, n))
        rounded = b.add(b.add(b.sub(size, self._int(112 << 23, n)), self._int(0xFFF, n)), odd)
        usual = b.lshr(rounded, self._int(13, n))
        result = b.select(b.icmp_unsigned("<", size, self._int(113 << 23, n)), small, usual)
        result = b.select(b.icmp_unsigned(">=", size, self._int(0x477FF000, n)), self._int(0x7C00, n), result)
        nan = b.or_(self._int(0x7E00, n), b.and_(b.lshr(size, self._int(13, n)), self._int(0x1FF, n)))
        result = b.select(b.icmp_unsigned(">", size, self._int(0x7F800000, n)), nan, result)
        sign = b.lshr(b.and_(bits, self._int(0x80000000, n)), self._int(16, n))
        narrow = b.trunc(b.or_(result, sign), self._like(ir.IntType(16), n))
        return b.bitcast(narrow, self._like(ir.HalfType(), n))

    def from_bfloat(self, v: ir.Value, d: DType) -> ir.Value:
        bits = self.builder.zext(v, self._like(I32, d.lanes))
        bits = self.builder.shl(bits, self._int(16, d.lanes))
        return self.builder.bitcast(bits, self._like(FLOAT, d.lanes))

    def to_bfloat(self, v: ir.Value, d: DType) -> ir.Value:
        """Round to nearest even; a NaN stays a NaN."""
        b, n = self.builder, d.lanes
        bits = b.bitcast(v, self._like(I32, n))
        odd = b.and_(b.lshr(bits, self._int(16, n)), self._int(1, n))
        rounded = b.lshr(b.add(bits, b.add(odd, self._int(0x7FFF, n))), self._int(16, n))
        quiet = b.or_(b.lshr(bits, self._int(16, n)), self._int(0x40, n))
        nan = b.fcmp_unordered("uno", v, v)
        return b.trunc(b.select(nan, quiet, rounded), self._like(ir.IntType(16), n))

    def _like(self, element: ir.Type, lanes: int) -> ir.Type:
        return element if lanes == 1 else ir.VectorType(element, lanes)

    def _int(self, value: int, lanes: int) -> ir.Value:
        return literal(I32, value, lanes)

    # calls
