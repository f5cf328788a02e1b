"""Elementary functions as expressions, so that they vectorize on every target.

Each function maps float32 arguments to an expression of additions, multiplications, fused multiply-adds, conversions and
selects: a directed graph (a value used twice is the same object), which code generation emits once. The polynomials are
least-squares fits on Chebyshev nodes to the function named; argument reductions follow

* J.-M. Muller, Elementary Functions: Algorithms and Implementation, 3rd ed., Birkhauser 2016: chapter 11 (additive range
  reduction, Cody and Waite), chapter 6 (exponential, logarithm);
* M. Payne, R. Hanek, Radian reduction for trigonometric functions, SIGNUM Newsletter 18(1), 1983: reduction of huge
  arguments by the bits of 2/pi;
* W. Kahan's log1p: log(u) * x / (u - 1) with u = 1 + x.

The worst errors over all float32 arguments are listed, and checked, in docs/math.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..dtype import DType, float32, float64, int32, int64, uint64
from ..ir.expr import EQ, LT, Add, Call, Cast, Const, Div, Expr, Max, Min, Mul, Not, Or, Select, Sub, bitcast
from ..ir.philox import rounds

INF, NAN = float("inf"), float("nan")
# (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2
_EXP = (0.5000000013462218, 0.16666577003160268, 0.041666464976128345, 0.0083631755654689499, 0.0013933643522426567)
# below it exp rounds to zero in float32
_WHOLE = 1.5 * 2.0**23
"""Added to a number below 2^22, it leaves the nearest whole number in the last bits."""
_EXP_OF_ZERO = -103.98
# 2^f on |f| <= 1/2, for double precision intermediates
_EXP2 = (
    1.0, 0.69314718055994951, 0.24022650695912223, 0.055504108664469129, 0.0096181291071344797, 0.0013333558226542622,
    0.00015403530864402737, 1.5252659387765637e-05, 1.3215278907631988e-06, 1.0208289741225404e-07,
    7.0956586904097754e-09,
)  # fmt: skip
# (log(1 + f) - f + f^2 / 2) / f^3 on 1 + f in [sqrt(1/2), sqrt(2)]
_LOG = (
    0.33333331190848131, -0.24999989048734927, 0.20000707478390573, -0.16668480239502709, 0.14249936532984211,
    -0.12411050684027888, 0.1166151106768749, -0.1157120072686387, 0.071497538906903871,
)  # fmt: skip
# log2(m) / s as a function of s^2, s = (m - 1) / (m + 1), for double precision intermediates
_LOG2 = (
    2.8853900817779259, 0.96179669392592704, 0.57707801634974953, 0.41219858992749764, 0.32059752556122789,
    0.26243391445663267, 0.21600381759524581, 0.33362582536252061, -1.1574809507510035,
)  # fmt: skip
# (sin(x) - x) / x^3 and (cos(x) - 1 + x^2 / 2) / x^4 as functions of x^2, |x| <= pi / 4
_SIN = (-0.16666666663744292, 0.0083333318314727737, -0.00019840063401706885, 2.7246907337206049e-06)
_COS = (0.041666666664228212, -0.0013888887635831332, 2.4800580859582523e-05, -2.7298435284077317e-07)
# (atan(x) - x) / x^3 as a function of x^2, |x| <= tan(pi / 8)
_ATAN = (-0.3333331457963144, 0.19998442085465004, -0.14243064163685268, 0.10590773287238359, -0.06071304110296394)
# erf(x) / x as a function of x^2, |x| <= 1
_ERF = (
    1.12837917, -0.376126258, 0.112835851, -0.0268538117, 0.00518832727, -0.000801018998, 7.85384932e-05,
)  # fmt: skip
# log2(erfc(x)), 1 <= x <= 4
_LOG2_ERFC = (
    -0.000492661072, -1.6260462, -0.920648011, -0.148751939, 0.0315058323, -0.00425261471, 0.000268892823,
)  # fmt: skip
# log2(erfc(u / sqrt(2)) / 2), 0 <= u <= 6, where erfc is no less than 2e-9
_LOG2_TAIL = (
    -1.0, -1.1511063, -0.459195949, -0.0525385063, 0.00712553951, -0.000177457236, -0.000178068815, 4.22600697e-05,
    -4.33349398e-06, 1.75725171e-07,
)  # fmt: skip
# 2^f on |f| <= 1/2
_EXP2_SHORT = (1.00000007, 0.693146967, 0.240221197, 0.0555071333, 0.0096755412, 0.00132764547)
# 2/pi in pieces of 28 bits: times a float32, each product is exact in double precision
_TWO_OVER_PI = (
    0.6366197690367699, 3.3308114738561656e-09, 2.276010047810136e-18, 2.5268260189002822e-26, 1.6682867657019525e-34,
    1.158871328288855e-43, 7.053959174404295e-52, 8.910067885731021e-60,
)  # fmt: skip


def _wide(t: DType, like: Expr) -> DType:
    return t.with_lanes(like.dtype.lanes)


def _c(value: float | int, like: Expr, t: DType | None = None) -> Expr:
    """A literal in all lanes; constants are typed as vectors and splatted by code generation."""
    return Const(value, _wide(t, like) if t is not None else like.dtype)


def _fma(a: Expr, b: Expr, c: Expr) -> Expr:
    return Call("fma", (a, b, c), a.dtype)


def _unary(op: str, a: Expr) -> Expr:
    return Call(op, (a,), a.dtype)


def _poly(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's rule; coefficients from the constant term up."""
    result = _c(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        result = _fma(result, x, _c(c, x))
    return result


def _is_nan(x: Expr) -> Expr:
    return Call("isnan", (x,), DType("bool", 8, x.dtype.lanes))


def _to_int(n: Expr, t: DType) -> Expr:
    """A whole number that is known to be in range, or NaN whose result is not used."""
    return Call("to_int", (n,), _wide(t, n))


def _power_of_two(n: Expr) -> Expr:
    """2^n of an int32 -126 <= n <= 127, as float32."""
    return bitcast(Call("shl", (Add(n, _c(127, n)), _c(23, n)), n.dtype), _wide(float32, n))


def _with_sign(magnitude: Expr, x: Expr) -> Expr:
    """A number that is not negative, with the sign of x."""
    bits, t = _wide(int32, x), x.dtype
    sign = Call("bitand", (bitcast(x, bits), _c(-(2**31), x, int32)), bits)
    return bitcast(Call("bitor", (bitcast(magnitude, bits), sign), bits), t)


def _clamp(x: Expr, low: float, high: float) -> Expr:
    """x, no less than low and no greater than high; NaN stays NaN."""
    x = Select(LT(x, _c(low, x)), _c(low, x), x)
    return Select(LT(_c(high, x), x), _c(high, x), x)


def scale2(p: Expr, whole: Expr) -> Expr:
    """p * 2^n of a whole number n, in two steps, so that results in the denormal range round once."""
    n = _to_int(whole, int32)
    half = Call("shr", (n, _c(1, n)), n.dtype)
    return Mul(Mul(p, _power_of_two(half)), _power_of_two(Sub(n, half)))


def _exp_less_one(x: Expr) -> tuple[Expr, Expr]:
    """e^x = (p + 1) * 2^n: p, and n as a whole float."""
    n = _unary("round", Mul(x, _c(1.4426950408889634, x)))
    return _exp_reduced(x, n), n


def _exp_reduced(x: Expr, n: Expr) -> Expr:
    """e^(x - n ln 2) - 1."""
    r = _fma(n, _c(-0.693359375, x), x)  # ln(2) in two parts, the first with few bits
    r = _fma(n, _c(2.12194440e-4, x), r)
    return _fma(Mul(r, r), _poly(r, _EXP), r)


def exp(x: Expr) -> Expr:
    less, n = _exp_less_one(_clamp(x, _EXP_OF_ZERO, 89.0))
    p = Add(less, _c(1.0, x))
    # a result below the least denormal is made of zero: some processors take twenty times as long to find that out themselves
    return Call("scale2", (Select(LT(x, _c(_EXP_OF_ZERO, x)), _c(0.0, x), p), n), x.dtype)


def exp2(x: Expr) -> Expr:
    return Cast(x.dtype, _exp2_double(Cast(_wide(float64, x), x)))


def _exp2_double(t: Expr) -> Expr:
    """2^t in double precision, good to about 1e-15, for any t (beyond +-1000 it saturates)."""
    clamped = Min(Max(t, _c(-1000.0, t)), _c(1000.0, t))
    n = _unary("round", clamped)
    p = _poly(Sub(clamped, n), _EXP2)
    bits = Call("shl", (Add(_to_int(n, int64), _c(1023, t, int64)), _c(52, t, int64)), _wide(int64, t))
    return Select(_is_nan(t), t, Mul(p, bitcast(bits, t.dtype)))


def _mantissa(x: Expr) -> tuple[Expr, Expr]:
    """x = m * 2^e with m in [sqrt(1/2), sqrt(2)), for positive finite float32; e as float32."""
    tiny = LT(x, _c(1.17549435e-38, x))
    scaled = Select(tiny, Mul(x, _c(8388608.0, x)), x)
    bits = bitcast(scaled, _wide(int32, x))
    offset = Sub(bits, _c(0x3F3504F3, bits))  # the bits of sqrt(1/2)
    e = Call("shr", (offset, _c(23, bits)), bits.dtype)
    m = bitcast(Sub(bits, Call("shl", (e, _c(23, bits)), bits.dtype)), x.dtype)
    exponent = Add(Cast(x.dtype, e), Select(tiny, _c(-23.0, x), _c(0.0, x)))
    return m, exponent


def _log_edges(x: Expr, result: Expr) -> Expr:
    """Infinity, zero and negative arguments of a logarithm."""
    result = Select(EQ(x, _c(INF, x)), x, result)
    result = Select(EQ(x, _c(0.0, x)), _c(-INF, x), result)
    return Select(Or(LT(x, _c(0.0, x)), _is_nan(x)), _c(NAN, x), result)


def log(x: Expr) -> Expr:
    m, e = _mantissa(x)
    f = Sub(m, _c(1.0, x))
    square = Mul(f, f)
    tail = Mul(Mul(square, f), _poly(f, _LOG))
    tail = _fma(e, _c(-2.12194440e-4, x), tail)
    tail = _fma(square, _c(-0.5, x), tail)
    return _log_edges(x, _fma(e, _c(0.693359375, x), Add(f, tail)))


def log1p(x: Expr) -> Expr:
    u = Add(x, _c(1.0, x))
    exact = EQ(u, _c(1.0, x))
    ratio = Mul(log(u), Div(x, Select(exact, _c(1.0, x), Sub(u, _c(1.0, x)))))
    result = Select(Or(exact, EQ(x, _c(INF, x))), x, ratio)
    return Select(EQ(x, _c(-1.0, x)), _c(-INF, x), Select(LT(x, _c(-1.0, x)), _c(NAN, x), result))


def rsqrt(x: Expr) -> Expr:
    return Div(_c(1.0, x), _unary("sqrt", x))


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x), with e^-x = p 2^n. From n = 127 on both 1 and 2^n are taken 2^(n - 126) times smaller, so that the quotient alone
    becomes denormal."""
    if x.dtype.bits == 64:
        e = _unary("exp", _unary("neg", _unary("abs", x)))  # the C library's
        return Div(Select(LT(x, _c(0.0, x)), e, _c(1.0, x)), Add(e, _c(1.0, x)))
    near = _clamp(x, _EXP_OF_ZERO, 87.0)
    shifted = _fma(near, _c(-1.4426950408889634, x), _c(_WHOLE, x))  # its last bits are those of n
    p = Add(_exp_reduced(_unary("neg", near), Sub(shifted, _c(_WHOLE, x))), _c(1.0, x))
    bits = bitcast(shifted, _wide(int32, x))
    exponent = Call("shl", (bits, _c(23, bits)), bits.dtype)
    most, one = _c(126 << 23, bits), _c(127 << 23, bits)
    kept = Min(exponent, most)
    unit = bitcast(Sub(one, Sub(exponent, kept)), x.dtype)
    return Div(unit, _fma(p, bitcast(Add(kept, one), x.dtype), unit))


def tanh(x: Expr) -> Expr:
    """(e^t - 1) / (e^t + 1) with t = 2 |x|, by e^t - 1 of what small t keep all their digits."""
    twice = Mul(_unary("abs", x), _c(2.0, x))
    p, n = _exp_less_one(Select(LT(_c(20.0, x), twice), _c(20.0, x), twice))
    power = Call("scale2", (_c(1.0, x), n), x.dtype)
    less = _fma(p, power, Sub(power, _c(1.0, x)))
    return _with_sign(Div(less, Add(less, _c(2.0, x))), x)


def erf(x: Expr) -> Expr:
    magnitude = _unary("abs", x)
    far = Select(LT(_c(4.0, x), magnitude), _c(4.0, x), magnitude)
    exponent = _poly(far, _LOG2_ERFC)
    n = _unary("round", exponent)
    beyond = _fma(_unary("neg", _poly(Sub(exponent, n), _EXP2_SHORT)), _power_of_two(_to_int(n, int32)), _c(1.0, x))
    small = Mul(x, _poly(Mul(x, x), _ERF))  # of NaN it is NaN
    return Select(LT(_c(1.0, x), magnitude), _with_sign(beyond, x), small)


def gelu(x: Expr) -> Expr:
    """max(x, 0) - |x| P(X > |x|) for a normal X, whose probability is 2 to the power of a polynomial, and nothing beyond 6."""
    if x.dtype.bits == 64:
        return Mul(Mul(x, _c(0.5, x)), Add(_unary("erf", Mul(x, _c(math.sqrt(0.5), x))), _c(1.0, x)))
    magnitude = _unary("abs", x)
    beyond = LT(_c(6.0, x), magnitude)
    near = Select(beyond, _c(6.0, x), magnitude)
    exponent = _poly(near, _LOG2_TAIL)
    n = _unary("round", exponent)
    tail = Mul(_poly(Sub(exponent, n), _EXP2_SHORT), _power_of_two(_to_int(n, int32)))
    positive = Select(LT(_c(0.0, x), x), x, _c(0.0, x))
    return _fma(_unary("neg", near), Select(beyond, _c(0.0, x), tail), positive)  # of NaN, the tail is NaN


def _quarter_turns(x: Expr) -> tuple[Expr, Expr]:
    """x = (n + r) * pi/2 with |r| <= 1/2: n modulo 4 as int32, and r * pi/2 as float32.

    Each product with a piece of 2/pi is exact, and so is what remains of it modulo 4.
    """
    wide = Cast(_wide(float64, x), x)
    parts = []
    for piece in _TWO_OVER_PI:
        p = Mul(wide, _c(piece, wide))
        parts.append(_fma(_unary("round", Mul(p, _c(0.25, wide))), _c(-4.0, wide), p))
    total = parts[-1]
    for p in reversed(parts[:-1]):
        total = Add(total, p)
    n = _unary("round", total)
    r = Sub(parts[0], n)
    for p in parts[1:]:
        r = Add(r, p)
    # the parts taken modulo 4 may add up to a whole turn more
    r = _fma(_unary("round", Mul(r, _c(0.25, wide))), _c(-4.0, wide), r)
    return Cast(_wide(int32, x), n), Cast(x.dtype, Mul(r, _c(1.5707963267948966, wide)))


def _sine(x: Expr, shift: int) -> Expr:
    n, r = _quarter_turns(x)
    square = Mul(r, r)
    sine = _fma(Mul(r, square), _poly(square, _SIN), r)
    cosine = _fma(Mul(square, square), _poly(square, _COS), _fma(square, _c(-0.5, x), _c(1.0, x)))
    n = Add(n, _c(shift, n))
    odd = EQ(Call("bitand", (n, _c(1, n)), n.dtype), _c(1, n))
    negative = EQ(Call("bitand", (n, _c(2, n)), n.dtype), _c(2, n))
    value = Select(odd, cosine, sine)
    value = Select(negative, _unary("neg", value), value)
    unbounded = Or(EQ(_unary("abs", x), _c(INF, x)), _is_nan(x))
    return Select(unbounded, _c(NAN, x), value)


def sin(x: Expr) -> Expr:
    return Select(EQ(x, _c(0.0, x)), x, _sine(x, 0))


def cos(x: Expr) -> Expr:
    return _sine(x, 1)


def atan(x: Expr) -> Expr:
    """atan(x) = pi/4 + atan((x - 1) / (x + 1)) = pi/2 - atan(1 / x), whichever has an argument below tan(pi / 8)."""
    size, one = _unary("abs", x), _c(1.0, x)
    far, middle = LT(_c(2.414213562373095, x), size), LT(_c(0.4142135623730951, x), size)
    above = Select(far, _c(-1.0, x), Select(middle, Sub(size, one), size))
    below = Select(far, size, Select(middle, Add(size, one), one))
    start = Select(far, _c(1.5707963267948966, x), Select(middle, _c(0.7853981633974483, x), _c(0.0, x)))
    t = Div(above, below)
    square = Mul(t, t)
    return _with_sign(Add(start, _fma(Mul(t, square), _poly(square, _ATAN), t)), x)


def pow(x: Expr, y: Expr) -> Expr:
    """x^y = 2^(y log2 x) with double precision in between; the special cases are those of C's powf."""
    magnitude = _unary("abs", x)
    m, e = _mantissa(magnitude)
    wide = Cast(_wide(float64, x), m)
    s = Div(Sub(wide, _c(1.0, wide)), Add(wide, _c(1.0, wide)))
    log2 = _fma(s, _poly(Mul(s, s), _LOG2), Cast(wide.dtype, e))
    product = Mul(Cast(wide.dtype, y), log2)
    # what overflows float32 must still be finite here, and infinite afterwards
    result = Cast(x.dtype, _exp2_double(product))
    zero, one, inf = _c(0.0, x), _c(1.0, x), _c(INF, x)
    half = Mul(y, _c(0.5, x))
    whole = EQ(_unary("floor", y), y)
    odd = whole & Not(EQ(_unary("floor", half), half))
    grows = LT(zero, y)
    result = Select(EQ(magnitude, zero), Select(grows, zero, inf), result)
    result = Select(EQ(magnitude, inf), Select(grows, inf, zero), result)
    bits = bitcast(x, _wide(int32, x))
    negative = LT(bits, _c(0, bits))
    result = Select(negative & odd, _unary("neg", result), result)
    result = Select(LT(x, zero) & Not(whole) & Not(EQ(magnitude, inf)), _c(NAN, x), result)
    # |y| infinite
    shrinks = LT(magnitude, one)
    limit = Select(EQ(magnitude, one), one, Select(EQ(y, inf), Select(shrinks, zero, inf), Select(shrinks, inf, zero)))
    result = Select(EQ(_unary("abs", y), inf), limit, result)
    result = Select(Or(_is_nan(x), _is_nan(y)), _c(NAN, x), result)
    return Select(Or(EQ(y, zero), EQ(x, one)), one, result)


def philox(*words: Expr) -> Expr:
    """The first word of a block of random bits; see `tcomp.ir.philox`."""
    d = words[0].dtype
    wide = uint64.with_lanes(d.lanes)

    def multiply(a: Expr, constant: int) -> tuple[Expr, Expr]:
        product = Mul(Cast(wide, a), Const(constant, wide))
        return Cast(d, Call("shr", (product, Const(32, wide)), wide)), Cast(d, product)

    def xor(a: Expr, b: Expr) -> Expr:
        return Call("bitxor", (a, b), d)

    return rounds(words[:4], words[4:], multiply, xor, lambda k, constant: Add(k, Const(constant, d)))[0]


INTEGER_FUNCTIONS: dict[str, Callable[..., Expr]] = {"philox": philox}
"""Expansions of intrinsics on integers, by name."""
FUNCTIONS: dict[str, Callable[..., Expr]] = {
    f.__name__: f for f in (exp, exp2, log, log1p, rsqrt, tanh, sigmoid, erf, gelu, sin, cos, atan, pow)
}
"""Expansions of intrinsics on float32, by name."""
