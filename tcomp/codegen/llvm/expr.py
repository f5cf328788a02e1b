"""Expressions -> LLVM values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ...dtype import DType, float32, float64, int32, int64
from ...errors import InternalError
from ...ir.expr import (
    Add,
    And,
    BinaryExpr,
    Broadcast,
    Call,
    Cast,
    CompareExpr,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Load,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Ramp,
    Select,
    Sub,
    Var,
)
from .. import mathfuncs
from .narrow import NarrowFloats
from .types import BFLOAT, I8, I32, element_type, key_of, literal, mangled, steps, value_type

_INTEGER = {"+": "add", "-": "sub", "*": "mul"}
_FLOAT = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
_DIRECT = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "roundeven", "trunc": "trunc", "abs": "fabs"}
_LIBM = {"exp", "exp2", "log", "log1p", "tanh", "erf", "sin", "cos", "atan", "pow"}
_DOTS = {
    "dot_u8i8": ("llvm.x86.avx512.vpdpbusd.512", I8),
    "dot_bf16": ("llvm.x86.avx512bf16.dpbf16ps.512", BFLOAT),
}
_SCALEF = "llvm.x86.avx512.mask.scalef.ps.512"
_ACROSS = {"lanes_add": "+", "lanes_max": "max", "lanes_min": "min"}
_BITS = {"bitand": "and_", "bitor": "or_", "bitxor": "xor", "shl": "shl"}


def _is_half(d: DType) -> bool:
    return d.kind == "float" and d.bits == 16


def is_narrow(d: DType) -> bool:
    """Whether arithmetic happens in float32."""
    return d.is_float and d.bits == 16


def _factors(e: Expr) -> tuple[Expr, Expr] | None:
    """Of a product, which may be the same in all lanes."""
    if isinstance(e, Mul):
        return e.a, e.b
    if isinstance(e, Broadcast) and isinstance(e.value, Mul):
        return Broadcast(e.value.a, e.lanes), Broadcast(e.value.b, e.lanes)
    return None


@dataclass(frozen=True, slots=True)
class Abilities:
    """What code may use of a CPU.

    Attributes:
        vector_bits: width of the vector registers; 512 stands for AVX-512.
        halves: whether it converts between float16 and float32; else LLVM would call functions that nobody has.
        fma: whether it has multiply-adds that round once; else LLVM would call a function for each lane.
    """

    vector_bits: int = 512
    halves: bool = True
    fma: bool = True


class ExprEmitter(NarrowFloats):
    """Emits expressions at a builder's place. A shared subexpression (the same object) is emitted once a statement."""

    cpu = Abilities()

    def value(self, e: Expr) -> ir.Value:
        known = self.memo.get(id(e))
        if known is not None:
            return known[1]
        result = self._value(e)
        self.memo[id(e)] = (e, result)
        return result

    def _value(self, e: Expr) -> ir.Value:
        match e:
            case Var():
                return self.variables[e]
            case Const():
                return self.constant(e.value, e.dtype)
            case Load():
                return self.load(e)
            case Ramp():
                return self.ramp(e)
            case Broadcast():
                return self.splat(self.value(e.value), e.lanes)
            case Cast():
                return self.convert(self.value(e.value), e.value.dtype, e.dtype)
            case Select():
                return self.builder.select(self.value(e.cond), self.value(e.then), self.value(e.orelse))
            case Not():
                return self.builder.not_(self.value(e.a))
            case And():
                return self.builder.and_(self.value(e.a), self.value(e.b))
            case Or():
                return self.builder.or_(self.value(e.a), self.value(e.b))
            case Call():
                return self.call(e)
            case CompareExpr():
                return self.compare(e.symbol, self.value(e.a), self.value(e.b), e.a.dtype)
            case BinaryExpr():
                return self.arithmetic(e)
            case _:
                raise InternalError(f"no LLVM code for {type(e).__name__}")

    # leaves

    def constant(self, value: Any, d: DType) -> ir.Value:
        if d.kind == "bfloat":
            value = int(d.numpy.type(value).view("uint16"))
        elif d.is_float:
            value = float(d.numpy.type(value))
        elif d.is_bool:
            value = int(bool(value))
        return literal(element_type(d), value, d.lanes)

    def ramp(self, e: Ramp) -> ir.Value:
        base = self.splat(self.value(e.base), e.lanes)
        if isinstance(e.stride, Const):
            offsets = steps(base.type.element, e.stride.value, e.lanes)
        else:
            counts = steps(base.type.element, 1, e.lanes)
            offsets = self.builder.mul(self.splat(self.value(e.stride), e.lanes), counts)
        return self.builder.add(base, offsets)

    # arithmetic

    def arithmetic(self, e: BinaryExpr) -> ir.Value:
        d = e.dtype
        if d == int64 and self.is_fixed(e):  # indices, which the copies of unrolled loops share
            return self.once(("expr", id(e)), lambda: self.binary(e, self.value(e.a), self.value(e.b), d))
        if isinstance(e, (Add, Sub)) and d.is_float and not is_narrow(d):
            fused = self.multiply_add(e, d)
            if fused is not None:
                return fused
        a, b = self.value(e.a), self.value(e.b)
        if is_narrow(d):
            wide = float32.with_lanes(d.lanes)
            result = self.binary(e, self.convert(a, d, wide), self.convert(b, d, wide), wide)
            return self.convert(result, wide, d)
        return self.binary(e, a, b, d)

    def multiply_add(self, e: BinaryExpr, d: DType) -> ir.Value | None:
        """A sum with a product in it, rounded once where the target has an instruction for that.

        Decided here, by the expression alone, and not by LLVM: what else a kernel computes must not change the bits of a result.
        """
        for one, other, is_right in ((e.b, e.a, True), (e.a, e.b, False)):
            factors = _factors(one)
            if factors is None:
                continue
            a, b, c = self.value(factors[0]), self.value(factors[1]), self.value(other)
            if isinstance(e, Sub):
                a, c = (self.builder.fneg(a), c) if is_right else (a, self.builder.fneg(c))
            return self.intrinsic(f"llvm.fmuladd.{mangled(d)}", value_type(d), [a, b, c])
        return None

    def binary(self, e: BinaryExpr, a: ir.Value, b: ir.Value, d: DType) -> ir.Value:
        if isinstance(e, (Min, Max)):
            literal = e.b.value if isinstance(e.b, Broadcast) else e.b
            is_number = isinstance(literal, Const) and literal.value == literal.value
            return self.extremum(isinstance(e, Max), a, b, d, is_number)
        if d.is_float:
            return getattr(self.builder, _FLOAT[e.symbol])(a, b)
        if isinstance(e, (FloorDiv, FloorMod)):
            return self.once((e.symbol, key_of(a), key_of(b), d), lambda: self.floor_divide(e, a, b, d))
        if d.is_bool:  # sums and products of bools are or and and
            return self.builder.and_(a, b) if e.symbol == "*" else self.builder.or_(a, b)
        flags = ("nsw",) if d.kind == "int" and d.bits == 64 else ()
        make = getattr(self.builder, _INTEGER[e.symbol])
        return self.once((e.symbol, key_of(a), key_of(b), d), lambda: make(a, b, flags=flags))

    def extremum(self, greater: bool, a: ir.Value, b: ir.Value, d: DType, b_is_number: bool) -> ir.Value:
        """Maximum or minimum; NaN where either side is NaN. One instruction where one side is a literal."""
        if not d.is_float:
            return self.builder.select(self.compare("<", b, a, d) if greater else self.compare("<", a, b, d), a, b)
        if b_is_number:
            return self.builder.select(self.builder.fcmp_ordered(">" if greater else "<", b, a), b, a)
        if d.lanes > 1:
            # not by selects, of which LLVM makes one with two comparisons; the second is what is new in a reduction: it alone is tested for
            # NaN, and the accumulator does not wait for that
            name = f"llvm.{'maximum' if greater else 'minimum'}.{mangled(d)}"
            function = self.declare(name, ir.FunctionType(a.type, [a.type, a.type]))
            return self.builder.call(function, [b, a], fastmath=("nsz",))
        op = ">" if greater else "<"  # LLVM forgets of scalars that the sign of zeros does not matter
        picked = self.builder.select(self.builder.fcmp_ordered(op, a, b), a, b)
        return self.builder.select(self.builder.fcmp_unordered("uno", a, a), a, picked)

    def compare(self, op: str, a: ir.Value, b: ir.Value, d: DType) -> ir.Value:
        if is_narrow(d):
            wide = float32.with_lanes(d.lanes)
            a, b, d = self.convert(a, d, wide), self.convert(b, d, wide), wide
        if d.is_float:
            return self.builder.fcmp_unordered(op, a, b) if op == "!=" else self.builder.fcmp_ordered(op, a, b)
        return (self.builder.icmp_signed if d.kind == "int" else self.builder.icmp_unsigned)(op, a, b)

    def floor_divide(self, e: BinaryExpr, a: ir.Value, b: ir.Value, d: DType) -> ir.Value:
        """Rounded toward minus infinity. A divisor of 0 gives 0; the least integer divided by -1 wraps."""
        quotient_wanted = isinstance(e, FloorDiv)
        divisor = e.b.value if isinstance(e.b, Broadcast) else e.b
        known = int(divisor.value) if isinstance(divisor, Const) else None
        if known is not None and known > 0 and known & (known - 1) == 0:
            if quotient_wanted:
                shift = self.constant(known.bit_length() - 1, d)
                return (self.builder.ashr if d.kind == "int" else self.builder.lshr)(a, shift)
            return self.builder.and_(a, self.constant(known - 1, d))
        zero = self.constant(0, d)
        bad = None
        if known in (None, 0, -1):
            bad = self.builder.icmp_signed("==", b, zero)
            unsafe = bad
            if d.kind == "int":
                unsafe = self.builder.or_(bad, self.builder.icmp_signed("==", b, self.constant(-1, d)))
            negated = self.builder.sub(zero, a) if d.kind == "int" else zero
            special = self.builder.select(bad, zero, negated if quotient_wanted else zero)
            b = self.builder.select(unsafe, self.constant(1, d), b)
        if d.kind == "uint":
            result = self.builder.udiv(a, b) if quotient_wanted else self.builder.urem(a, b)
            return result if bad is None else self.builder.select(unsafe, special, result)
        quotient, remainder = self.builder.sdiv(a, b), self.builder.srem(a, b)
        inexact = self.builder.icmp_signed("!=", remainder, zero)
        signs_differ = self.builder.icmp_signed("<", self.builder.xor(remainder, b), zero)
        adjust = self.builder.and_(inexact, signs_differ)
        if quotient_wanted:
            result = self.builder.select(adjust, self.builder.sub(quotient, self.constant(1, d)), quotient)
        else:
            result = self.builder.select(adjust, self.builder.add(remainder, b), remainder)
        return result if bad is None else self.builder.select(unsafe, special, result)

    # conversions

    def convert(self, v: ir.Value, source: DType, target: DType) -> ir.Value:
        if source == target:
            return v
        if source.kind == "bfloat":
            return self.convert(self.from_bfloat(v, source), float32.with_lanes(source.lanes), target)
        if target.kind == "bfloat":
            wide = float32.with_lanes(target.lanes)
            if source.is_int and source.bits > 16:  # through float64, which holds what float32 would round
                double = float64.with_lanes(source.lanes)
                v, source = self.convert(v, source, double), double
            if source.bits == 64:
                return self.to_bfloat(self.round_to_odd(v, source.lanes), target)
            return self.to_bfloat(self.convert(v, source, wide), target)
        if not self.cpu.halves and _is_half(source):
            return self.convert(self.from_half(v, source.lanes), float32.with_lanes(source.lanes), target)
        if not self.cpu.halves and _is_half(target):
            if source.bits == 64 and source.is_float:
                return self.to_half(self.round_to_odd(v, source.lanes), target.lanes)
            return self.to_half(self.convert(v, source, float32.with_lanes(target.lanes)), target.lanes)
        t = value_type(target)
        if target.is_bool:
            return self.compare("!=", v, self.constant(0, source), source)
        if source.is_bool:
            return self.builder.select(v, self.constant(1, target), self.constant(0, target))
        if source.is_float and target.is_float:
            if source.bits == 64 and target.bits == 16:
                v = self.round_to_odd(v, source.lanes)  # the direct conversion is a call of a compiler support library
            return self.builder.fpext(v, t) if target.bits > source.bits else self.builder.fptrunc(v, t)
        if source.is_float:
            if is_narrow(source):
                return self.convert(
                    self.convert(v, source, float32.with_lanes(source.lanes)), float32.with_lanes(source.lanes), target
                )
            return self.saturate(v, source, target)
        if target.is_float:
            return (self.builder.sitofp if source.kind == "int" else self.builder.uitofp)(v, t)
        if target.bits < source.bits:
            return self.builder.trunc(v, t)
        if target.bits == source.bits:
            return v
        return (self.builder.sext if source.kind == "int" else self.builder.zext)(v, t)

    def saturate(self, v: ir.Value, source: DType, target: DType) -> ir.Value:
        """Float to integer, toward zero; what lies outside becomes the nearest end, NaN becomes 0.

        Lane by lane that is LLVM's own conversion; of vectors LLVM makes scalars, so there it is written out.
        """
        t, is_signed = value_type(target), target.kind == "int"
        if source.lanes == 1:
            name = "llvm.fptosi.sat" if is_signed else "llvm.fptoui.sat"
            return self.intrinsic(f"{name}.{mangled(target)}.{mangled(source)}", t, [v])
        bits = target.bits - is_signed
        low, high = (-(1 << bits) if is_signed else 0), (1 << bits) - 1
        from_below = self.builder.fcmp_ordered(">=", v, self.constant(float(low), source))
        too_large = self.builder.fcmp_ordered(">=", v, self.constant(float(high + 1), source))
        inside = self.builder.and_(from_below, self.builder.not_(too_large))
        safe = self.builder.select(inside, v, self.constant(0.0, source))
        result = (self.builder.fptosi if is_signed else self.builder.fptoui)(safe, t)
        result = self.builder.select(too_large, self.constant(high, target), result)
        if not is_signed:
            return result
        too_small = self.builder.fcmp_ordered("<", v, self.constant(float(low), source))
        return self.builder.select(too_small, self.constant(low, target), result)

    def call(self, e: Call) -> ir.Value:
        d = e.args[0].dtype
        if e.op == "any":
            return self.any_lane(self.value(e.args[0]), d.lanes)
        if e.op in _DOTS:
            return self.dot(e)
        if e.op in _ACROSS:
            return self.across(_ACROSS[e.op], self.value(e.args[0]), d)
        if e.op == "bitcast":
            return self.builder.bitcast(self.value(e.args[0]), value_type(e.dtype))
        if e.op in _BITS or e.op == "shr":
            a, b = (self.value(x) for x in e.args)
            if e.op == "shr":
                return (self.builder.ashr if d.kind == "int" else self.builder.lshr)(a, b)
            return getattr(self.builder, _BITS[e.op])(a, b)
        if e.op in mathfuncs.INTEGER_FUNCTIONS:
            return self.value(mathfuncs.INTEGER_FUNCTIONS[e.op](*e.args))
        if not d.is_float:
            return self.integer_call(e)
        if is_narrow(d):
            return self.narrow_call(e, d)
        return self.float_call(e, d)

    def dot(self, e: Call) -> ir.Value:
        """Sums of products of neighbours, one instruction."""
        name, element = _DOTS[e.op]
        acc, a, b = (self.value(x) for x in e.args)
        group = ir.VectorType(element, e.args[1].dtype.lanes)
        return self.intrinsic(name, acc.type, [acc, self.builder.bitcast(a, group), self.builder.bitcast(b, group)])

    def across(self, symbol: str, v: ir.Value, d: DType) -> ir.Value:
        """All lanes of a vector combined: its halves, the halves of that, and so on."""
        while d.lanes > 1:
            d = d.with_lanes(d.lanes // 2)
            halves = [ir.Constant(ir.VectorType(I32, d.lanes), list(range(at, at + d.lanes))) for at in (0, d.lanes)]
            low, high = (self.builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), half) for half in halves)
            if symbol == "+":
                v = (self.builder.fadd if d.is_float else self.builder.add)(low, high)
            else:
                v = self.extremum(symbol == "max", low, high, d, False)
        return self.builder.extract_element(v, ir.Constant(I32, 0))

    def any_lane(self, v: ir.Value, lanes: int) -> ir.Value:
        if lanes == 1:
            return v
        return self.builder.icmp_unsigned(
            "!=", self.builder.bitcast(v, ir.IntType(lanes)), ir.Constant(ir.IntType(lanes), 0)
        )

    def integer_call(self, e: Call) -> ir.Value:
        (v,) = (self.value(x) for x in e.args)
        d = e.dtype
        negated = self.builder.sub(self.constant(0, d), v)
        if e.op == "neg":
            return negated
        if e.op == "abs":
            return (
                v if d.kind == "uint" else self.builder.select(self.compare("<", v, self.constant(0, d), d), negated, v)
            )
        raise InternalError(f"no LLVM code for {e.op} of {d}")

    def narrow_call(self, e: Call, d: DType) -> ir.Value:
        wide = float32.with_lanes(d.lanes)
        args = tuple(Cast(wide, a) for a in e.args)
        result = Call(e.op, args, wide if e.dtype.is_float else e.dtype)
        return self.convert(self.value(result), result.dtype, e.dtype)

    def float_call(self, e: Call, d: DType) -> ir.Value:
        if e.op in mathfuncs.FUNCTIONS and d.bits == 32:
            return self.value(mathfuncs.FUNCTIONS[e.op](*(Call("rounded", (a,), d) for a in e.args)))
        args = [self.value(a) for a in e.args]
        t = value_type(d)
        if e.op == "isnan":
            return self.builder.fcmp_unordered("uno", args[0], args[0])
        if e.op == "isinf":
            size = self.intrinsic(f"llvm.fabs.{mangled(d)}", t, args)
            return self.builder.fcmp_ordered("==", size, self.constant(float("inf"), d))
        if e.op == "rounded":
            return args[0]
        if e.op == "neg":
            return self.builder.fneg(args[0])
        if e.op == "fma" and d.bits == 32 and not self.cpu.fma:
            wide = float64.with_lanes(d.lanes)  # which holds the product exactly
            a, b, c = (self.convert(x, d, wide) for x in args)
            return self.convert(self.builder.fadd(self.builder.fmul(a, b), c), wide, d)
        if e.op == "fma":
            return self.intrinsic(f"llvm.fma.{mangled(d)}", t, args)
        if e.op == "to_int":  # of a value known to be in range; of NaN, nothing may depend on the result
            return self.builder.fptosi(args[0], value_type(e.dtype))
        if e.op in _DIRECT:
            return self.intrinsic(f"llvm.{_DIRECT[e.op]}.{mangled(d)}", t, args)
        if e.op == "rsqrt":
            return self.builder.fdiv(self.constant(1.0, d), self.intrinsic(f"llvm.sqrt.{mangled(d)}", t, args))
        if e.op in ("sigmoid", "gelu"):
            return self.value(mathfuncs.FUNCTIONS[e.op](Call("rounded", e.args, d)))
        if e.op == "fmod":
            return self.builder.frem(*args)
        if e.op == "scale2":
            return self.scale2(e, args)
        if e.op in _LIBM:
            return self.libm(e.op, args, d)
        raise InternalError(f"no LLVM code for {e.op} of {d}")

    def scale2(self, e: Call, args: list[ir.Value]) -> ir.Value:
        """p * 2^n: an instruction of AVX-512, or arithmetic on the bits."""
        if self.cpu.vector_bits < 512:
            return self.value(mathfuncs.scale2(*e.args))
        d = e.dtype
        if d.lanes == 16:
            mask, mode = ir.Constant(ir.IntType(16), -1), ir.Constant(I32, 4)
            t = value_type(d)
            f = self.declare(_SCALEF, ir.FunctionType(t, [t, t, t, mask.type, mode.type]))
            return self.builder.call(f, [*args, args[0], mask, mode])
        whole = self.builder.fptosi(args[1], value_type(int32.with_lanes(d.lanes)))
        kinds = [args[0].type, whole.type]
        name = f"llvm.ldexp.{mangled(d)}.{mangled(int32.with_lanes(d.lanes))}"
        return self.builder.call(self.declare(name, ir.FunctionType(args[0].type, kinds)), [args[0], whole])

    def libm(self, op: str, args: list[ir.Value], d: DType) -> ir.Value:
        """Double precision goes to the C library, lane by lane."""
        t = element_type(d)
        f = self.declare(op, ir.FunctionType(t, [t] * len(args)))
        if d.lanes == 1:
            return self.builder.call(f, args)
        result: ir.Value = ir.Constant(value_type(d), ir.Undefined)
        for lane in range(d.lanes):
            at = ir.Constant(I32, lane)
            one = self.builder.call(f, [self.builder.extract_element(a, at) for a in args])
            result = self.builder.insert_element(result, one, at)
        return result
