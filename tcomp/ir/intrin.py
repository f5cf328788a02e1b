"""Scalar functions that an expression may call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """A pure scalar function.

    Attributes:
        name: as written in an expression.
        arity: number of arguments, all of one dtype.
        domain: "float", "int", "any": which dtypes it takes.
        result: "same" or "bool".
    """

    name: str
    arity: int
    domain: str = "float"
    result: str = "same"


INTRINSICS = {
    i.name: i
    for i in (
        *(Intrinsic(n, 1) for n in ("exp", "exp2", "log", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "gelu")),
        *(Intrinsic(n, 1) for n in ("sin", "cos", "atan", "floor", "ceil", "round", "trunc")),
        Intrinsic("pow", 2),
        Intrinsic("fmod", 2),
        Intrinsic("fma", 3),
        Intrinsic("rounded", 1),
        Intrinsic("neg", 1, "any"),
        Intrinsic("abs", 1, "any"),
        Intrinsic("isnan", 1, "float", "bool"),
        Intrinsic("isinf", 1, "float", "bool"),
        Intrinsic("bitcast", 1, "any", "other"),
        *(Intrinsic(n, 2, "int") for n in ("bitand", "bitor", "bitxor", "shl", "shr")),
        Intrinsic("philox", 6, "int"),
    )
}
"""Every intrinsic by name. `round` rounds halves to even; `rounded` is its argument as a number of its dtype: a product in it is
rounded before anything is added to it (without, a sum and the product under it are one fused multiply-add where the target has
it); `shr` is arithmetic for signed integers; `philox` is the first word of a block of random bits, from four words of a counter and
two of a key, all uint32 (see `philox.py`)."""
