"""Scalar expressions: immutable, typed, compared by structure.

Python operators build them; `==` is not one of these (it compares trees), `equal(a, b)` is. Every index is an int64.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar

from .. import dtype as dt
from ..dtype import DType, dtype
from ..errors import ExprError
from .intrin import INTRINSICS
from .node import Node, atom, identity_node, node


class Expr(Node):
    """Base of all expressions; `dtype` is the type of the value."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def dtype(self) -> DType: ...

    def __add__(self, other: Any) -> Expr:
        return binary(Add, self, other)

    def __radd__(self, other: Any) -> Expr:
        return binary(Add, other, self)

    def __sub__(self, other: Any) -> Expr:
        return binary(Sub, self, other)

    def __rsub__(self, other: Any) -> Expr:
        return binary(Sub, other, self)

    def __mul__(self, other: Any) -> Expr:
        return binary(Mul, self, other)

    def __rmul__(self, other: Any) -> Expr:
        return binary(Mul, other, self)

    def __truediv__(self, other: Any) -> Expr:
        return binary(Div, self, other)

    def __rtruediv__(self, other: Any) -> Expr:
        return binary(Div, other, self)

    def __floordiv__(self, other: Any) -> Expr:
        return binary(FloorDiv, self, other)

    def __rfloordiv__(self, other: Any) -> Expr:
        return binary(FloorDiv, other, self)

    def __mod__(self, other: Any) -> Expr:
        return binary(FloorMod, self, other)

    def __rmod__(self, other: Any) -> Expr:
        return binary(FloorMod, other, self)

    def __neg__(self) -> Expr:
        return Const(-self.value, self.dtype) if isinstance(self, Const) else call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __pow__(self, other: Any) -> Expr:
        return call("pow", self, other)

    def __lt__(self, other: Any) -> Expr:
        return binary(LT, self, other)

    def __le__(self, other: Any) -> Expr:
        return binary(LE, self, other)

    def __gt__(self, other: Any) -> Expr:
        return binary(LT, other, self)

    def __ge__(self, other: Any) -> Expr:
        return binary(LE, other, self)

    def __and__(self, other: Any) -> Expr:
        return binary(And, self, other) if self.dtype.is_bool else call("bitand", self, other)

    def __or__(self, other: Any) -> Expr:
        return binary(Or, self, other) if self.dtype.is_bool else call("bitor", self, other)

    def __xor__(self, other: Any) -> Expr:
        return binary(NE, self, other) if self.dtype.is_bool else call("bitxor", self, other)

    def __lshift__(self, other: Any) -> Expr:
        return call("shl", self, other)

    def __rshift__(self, other: Any) -> Expr:
        return call("shr", self, other)

    def __invert__(self) -> Expr:
        if self.dtype.is_bool:
            return Not(self)
        return call("bitxor", self, Const(-1 if self.dtype.kind == "int" else self.dtype.highest, self.dtype))

    def __bool__(self) -> bool:
        raise ExprError(
            "a symbolic expression has no truth value while the program is being built",
            hint="use select(cond, a, b), and & | ~ in place of and, or, not; equal(a, b) in place of ==",
        )

    def astype(self, to: Any) -> Expr:
        """The value converted to another dtype (C semantics: floats truncate toward zero)."""
        return cast(self, to)


@identity_node
class Var(Expr):
    """A named scalar: a loop's iteration variable, a block iterator, a symbolic extent. Equal to itself alone."""

    name: str
    dtype: DType = dt.int64

    def __repr__(self) -> str:
        return f"Var({self.name})"


@node
class Const(Expr):
    """A literal. NaN equals NaN and 0.0 differs from -0.0: two constants are equal when their bits are."""

    value: int | float | bool
    dtype: DType

    def _key(self) -> tuple[Any, DType]:
        return (struct.pack("d", self.value) if self.dtype.is_float else int(self.value)), self.dtype

    def __eq__(self, other: object) -> bool:
        if self is other or type(other) is not Const or self.dtype != other.dtype:
            return self is other
        return self._key() == other._key() if self.dtype.is_float else self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value) if self.value == self.value else 0  # NaN, whose hash tells objects apart


@node
class BinaryExpr(Expr):
    """Two operands of one dtype. The operations share these fields, and differ in their class."""

    a: Expr
    b: Expr
    dtype: DType = atom(init=False, repr=False, compare=False)
    symbol: ClassVar[str] = "?"

    def __post_init__(self) -> None:  # once: a property would walk down the tree each time
        object.__setattr__(self, "dtype", self.a.dtype)


class Add(BinaryExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "+"


class Sub(BinaryExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "-"


class Mul(BinaryExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "*"


class Div(BinaryExpr):
    """Division of floating-point numbers."""

    __slots__ = ()
    symbol: ClassVar[str] = "/"


class FloorDiv(BinaryExpr):
    """Integer division, rounded toward minus infinity."""

    __slots__ = ()
    symbol: ClassVar[str] = "//"


class FloorMod(BinaryExpr):
    """Remainder with the divisor's sign."""

    __slots__ = ()
    symbol: ClassVar[str] = "%"


class Min(BinaryExpr):
    """The lesser; NaN where either operand is NaN."""

    __slots__ = ()
    symbol: ClassVar[str] = "min"


class Max(BinaryExpr):
    """The greater; NaN where either operand is NaN."""

    __slots__ = ()
    symbol: ClassVar[str] = "max"


class CompareExpr(BinaryExpr):
    """A comparison; its value is a bool."""

    __slots__ = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dt.bool_.with_lanes(self.a.dtype.lanes))


class EQ(CompareExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "=="


class NE(CompareExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "!="


class LT(CompareExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "<"


class LE(CompareExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "<="


class And(BinaryExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "and"


class Or(BinaryExpr):
    __slots__ = ()
    symbol: ClassVar[str] = "or"


@node
class Not(Expr):
    a: Expr
    dtype: DType = atom(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.a.dtype)


@node
class Select(Expr):
    """`then` where `cond` holds, else `orelse`. Both sides may be evaluated, so neither may trap or read out of bounds
    unless the interpreter and the generated code both guard it: a load behind a Select is guarded."""

    cond: Expr
    then: Expr
    orelse: Expr
    dtype: DType = atom(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.then.dtype)


@node
class Cast(Expr):
    dtype: DType
    value: Expr


@node
class Call(Expr):
    """A call of an intrinsic (see `intrin.INTRINSICS`)."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType


@identity_node
class Buffer(Node):
    """A named, typed region of memory. Equal to itself alone.

    Attributes:
        shape: extents, as int64 expressions.
        strides: in elements; None means row-major without gaps.
        scope: "global" (any thread sees it), "shared" (the threads of one GPU block do), "warp" (the lanes of one warp hold it together, as tiles
            of matrix instructions), or "local" (private to the innermost place that uses it).
        align: bytes that the base address is a multiple of.
        stride_rules: (axis, factor, offset): lowering pads that axis' stride to offset modulo factor.
        reused: elements take one value after another (a ring, a pair of tiles), so its users may not move.
    """

    name: str
    shape: tuple[Expr, ...]
    dtype: DType
    scope: str = "global"
    strides: tuple[Expr, ...] | None = None
    align: int = 0
    stride_rules: tuple[tuple[int, int, int], ...] = ()
    reused: bool = False

    def __repr__(self) -> str:
        return f"Buffer({self.name})"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: Any) -> Load:
        indices = indices if isinstance(indices, tuple) else (indices,)
        if len(indices) != self.ndim:
            raise ExprError(f"buffer {self.name} has {self.ndim} dimensions, got {len(indices)} indices")
        return Load(self, tuple(as_index(i) for i in indices))


@node
class Load(Expr):
    """One element (or, with vector indices, several) of a buffer; lanes whose mask is false read as zero."""

    buffer: Buffer = atom()
    indices: tuple[Expr, ...]
    mask: Expr | None = None

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype.with_lanes(max((i.dtype.lanes for i in self.indices), default=1))


@node
class Ramp(Expr):
    """The vector base, base + stride, base + 2 stride, ..."""

    base: Expr
    stride: Expr
    lanes: int

    @property
    def dtype(self) -> DType:
        return self.base.dtype.with_lanes(self.lanes)


@node
class Broadcast(Expr):
    """The vector of one repeated value."""

    value: Expr
    lanes: int

    @property
    def dtype(self) -> DType:
        return self.value.dtype.with_lanes(self.lanes)


def const(value: Any, type_: Any = None) -> Const:
    """A literal of the given dtype; by default bool, int64 or float32 after the Python value.

    Raises:
        ExprError: the value does not fit the dtype.
    """
    if type_ is None:
        if type(value) is int and -(2**63) <= value < 2**63:
            return Const(value, dt.int64)  # nearly all of them
        type_ = dt.bool_ if isinstance(value, bool) else dt.int64 if isinstance(value, int) else dt.float32
    target = dtype(type_)
    if target.is_float:
        return Const(float(value), target)
    if target.is_bool:
        return Const(bool(value), target)
    integer = int(value)
    if integer != value or not target.lowest <= integer <= target.highest:
        raise ExprError(f"{value!r} is not a value of {target}")
    return Const(integer, target)


def as_expr(value: Any, like: DType | None = None) -> Expr:
    """A Python number becomes a literal (of dtype `like`); an expression stays itself."""
    if isinstance(value, Expr):
        return value
    if hasattr(value, "__expr__"):
        return value.__expr__()
    if isinstance(value, (bool, int, float)) or hasattr(value, "item"):
        return const(value.item() if hasattr(value, "item") else value, like)
    raise ExprError(f"cannot make an expression of {value!r}", hint="give a number, an expression or a tensor element")


def as_index(value: Any) -> Expr:
    """An int64 expression.

    Raises:
        ExprError: the value is not an integer.
    """
    e = as_expr(value, dt.int64)
    if not e.dtype.is_int:
        raise ExprError(f"an index must be an integer, got {e.dtype}")
    return e if e.dtype.element == dt.int64 else cast(e, dt.int64.with_lanes(e.dtype.lanes))


_FOLD: dict[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


def binary(cls: type[BinaryExpr], a: Any, b: Any) -> Expr:
    """A binary expression of operands that may be Python numbers; integer literals fold.

    Raises:
        ExprError: the operands' dtypes differ or the operation has no meaning for them.
    """
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        a = as_expr(a, getattr(b, "dtype", None))
    a = a if isinstance(a, Expr) else as_expr(a, b.dtype.element)
    b = b if isinstance(b, Expr) else as_expr(b, a.dtype.element)
    if a.dtype != b.dtype:
        raise ExprError(f"'{cls.symbol}' needs operands of one dtype, got {a.dtype} and {b.dtype}", hint="astype() one")
    if cls is Div and not a.dtype.is_float:
        raise ExprError(f"'/' divides floating-point numbers, got {a.dtype}", hint="use // or cast to a float first")
    if cls in (FloorDiv, FloorMod) and not a.dtype.is_int:
        raise ExprError(f"'{cls.symbol}' divides integers, got {a.dtype}", hint="use / and floor()")
    if cls in (And, Or) and not a.dtype.is_bool:
        raise ExprError(f"'{cls.symbol}' combines bools, got {a.dtype}")
    if a.dtype == dt.int64 and isinstance(b, Const):
        if isinstance(a, Const) and not (cls in (FloorDiv, FloorMod) and b.value == 0):
            value = _FOLD[cls.symbol](a.value, b.value)
            return Const(value, dt.bool_ if isinstance(value, bool) else dt.int64)
        if (cls in (Add, Sub) and b.value == 0) or (cls in (Mul, FloorDiv) and b.value == 1):
            return a
    if cls is Add and isinstance(a, Const) and a.dtype == dt.int64 and a.value == 0:
        return b
    if cls is Mul and isinstance(a, Const) and a.dtype == dt.int64 and a.value == 1:
        return b
    return cls(a, b)


def call(op: str, *args: Any) -> Expr:
    """A call of an intrinsic.

    Raises:
        ExprError: unknown name, wrong number or dtype of arguments.
    """
    info = INTRINSICS.get(op)
    if info is None:
        raise ExprError(f"unknown function {op!r}", hint=f"one of {', '.join(sorted(INTRINSICS))}")
    if len(args) != info.arity:
        raise ExprError(f"{op} takes {info.arity} arguments, got {len(args)}")
    like = next((a.dtype for a in args if isinstance(a, Expr)), None)
    exprs = tuple(as_expr(a, like) for a in args)
    kind = exprs[0].dtype
    if any(e.dtype != kind for e in exprs):
        raise ExprError(f"{op} needs arguments of one dtype, got {', '.join(str(e.dtype) for e in exprs)}")
    if (info.domain == "float" and not kind.is_float) or (info.domain == "int" and not kind.is_int):
        raise ExprError(f"{op} takes {info.domain} values, got {kind}", hint="cast the argument first")
    return Call(op, exprs, dt.bool_.with_lanes(kind.lanes) if info.result == "bool" else kind)


def bitcast(value: Expr, to: DType) -> Expr:
    """The same bits read as another dtype of equal width."""
    if value.dtype.bits != to.bits or value.dtype.lanes != to.lanes:
        raise ExprError(f"bitcast from {value.dtype} to {to}: the widths differ")
    return Call("bitcast", (value,), to)


def cast(value: Any, to: Any) -> Expr:
    """The value converted to dtype `to`."""
    target = dtype(to)
    e = as_expr(value)
    if e.dtype == target:
        return e
    if isinstance(e, Const) and e.dtype.is_int and (target.is_float or target.is_int):
        if target.is_float or target.lowest <= e.value <= target.highest:
            return const(e.value, target)
    return Cast(target, e)


def select(cond: Any, then: Any, orelse: Any) -> Expr:
    """`then` where `cond` holds, else `orelse`."""
    like = then.dtype if isinstance(then, Expr) else orelse.dtype if isinstance(orelse, Expr) else None
    a, b, c = as_expr(then, like), as_expr(orelse, like), as_expr(cond)
    if not c.dtype.is_bool:
        raise ExprError(f"select needs a bool condition, got {c.dtype}")
    if a.dtype != b.dtype:
        raise ExprError(f"select needs alternatives of one dtype, got {a.dtype} and {b.dtype}")
    return Select(c, a, b)
