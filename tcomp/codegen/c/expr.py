"""Expressions -> C."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ...dtype import DType, float32, float64, int64
from ...errors import InternalError
from ...ir.expr import (
    EQ,
    NE,
    Add,
    And,
    BinaryExpr,
    Broadcast,
    Buffer,
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
    Var,
)
from .. import mathfuncs
from .types import element_type, is_narrow, scalar_type, short_name
from .vectors import Vectors

LONGEST = 72
"""Characters of an expression, beyond which its value gets a name."""
_ATOM, _PRODUCT, _SUM, _OTHER = range(4)
"""How tightly operators bind."""
_INFIX = {"*": _PRODUCT, "/": _PRODUCT, "+": _SUM, "-": _SUM}
_COMPARISONS = {"<", "<=", "==", "!=", "&&", "||"}
_WORDS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "floormod", "min": "min", "max": "max",
          "<": "lt", "<=": "le", "==": "eq", "!=": "ne"}  # fmt: skip
_BITS = {
    "bitand": ("and", "&"),
    "bitor": ("or", "|"),
    "bitxor": ("xor", "^"),
    "shl": ("shl", "<<"),
    "shr": ("shr", ">>"),
}
_ROUNDING = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc", "abs": "fabs"}
_LIBM = {"exp", "exp2", "log", "log1p", "tanh", "erf", "sin", "cos", "atan"}
_ACROSS = {"lanes_add": "add", "lanes_max": "max", "lanes_min": "min"}


class Code(NamedTuple):
    """An expression, and how tightly its outermost operator binds."""

    text: str
    level: int = _ATOM

    def within(self, level: int) -> str:
        """As an operand of an operator that binds so tightly."""
        return f"({self.text})" if self.level > level else self.text


class ExprPrinter:
    """Writes expressions. Long ones become constants before the statement that uses them; what is short may be written more than once, as
    C compilers find that again.

    Attributes:
        variables, buffers: their names in C. naturals: variables that are never negative.
        lines: the function so far. indent: of what follows.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.variables: dict[Var, str] = {}
        self.buffers: dict[Buffer, str] = {}
        self.naturals: set[Var] = set()
        self.lines: list[str] = []
        self.indent = 1
        self.temporaries = 0
        self._memo: dict[int, tuple[Expr, Code]] = {}
        self._constants: list[dict[str, str]] = [{}]

    def line(self, text: str) -> None:
        self.lines.append("  " * self.indent + text)

    def forget(self) -> None:
        """Values may have changed."""
        self._memo.clear()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Names given within it are not known after it."""
        self.indent += 1
        self._constants.append({})
        yield
        self._constants.pop()
        self.indent -= 1

    def text(self, e: Expr) -> str:
        return self.code(e).text

    def code(self, e: Expr) -> Code:
        known = self._memo.get(id(e))
        if known is not None:
            return known[1]
        result = self._code(e)
        if len(result.text) > LONGEST and not isinstance(e, (Var, Const)):
            result = Code(self.named(result.text, self.type_of(e)))
        self._memo[id(e)] = (e, result)
        return result

    def type_of(self, e: Expr) -> str:
        """The C type of a value."""
        return self.vectors.type(e.dtype)

    def named(self, text: str, type_: str) -> str:
        """The name of a value: that of the same text before, where no memory is read."""
        known = next((names[text] for names in self._constants if text in names), None)
        if known is not None:
            return known
        name = f"t{self.temporaries}"
        self.temporaries += 1
        self.line(f"const {type_} {name} = {text};")
        if "[" not in text:
            self._constants[-1][text] = name
        return name

    def call(self, function: str, *args: Expr | str) -> Code:
        return Code(f"{function}({', '.join(a if isinstance(a, str) else self.text(a) for a in args)})")

    def infix(self, a: Expr, symbol: str, b: Expr) -> Code:
        level = _INFIX.get(symbol, _OTHER)
        left, right = self.code(a), self.code(b)
        if level == _OTHER:
            most = _SUM if symbol in _COMPARISONS else _PRODUCT
            return Code(f"{left.within(most)} {symbol} {right.within(most)}", level)
        return Code(f"{left.within(level)} {symbol} {right.within(level - 1)}", level)

    def _code(self, e: Expr) -> Code:
        match e:
            case Var():
                return Code(self.variables[e])
            case Const():
                return self.constant(e)
            case Load():
                return self.load(e)
            case Ramp():
                return self.call(self.vectors.ramp(e.dtype), e.base, e.stride)
            case Broadcast():
                return self.broadcast(e)
            case Cast():
                return self.convert(e.value, e.dtype)
            case Select():
                return self.select(e)
            case Not():
                if e.dtype.lanes > 1:
                    return self.call(self.vectors.logical_not(e.dtype), e.a)
                return Code(f"!{self.code(e.a).within(_ATOM)}", _PRODUCT)
            case And() | Or():
                return self.logical(e)
            case Call():
                return self.function(e)
            case CompareExpr():
                return self.compare(e)
            case BinaryExpr():
                return self.arithmetic(e)
            case _:
                raise InternalError(f"no C code for {type(e).__name__}")

    # leaves

    def constant(self, e: Const) -> Code:
        d = e.dtype.element
        text = literal(e.value, d)
        if e.dtype.lanes > 1:
            return self.call(self.vectors.fill(e.dtype), text)
        return Code(text, _PRODUCT if text.startswith("-") else _ATOM)

    def broadcast(self, e: Broadcast) -> Code:
        return self.call(self.vectors.fill(e.dtype), e.value)

    # arithmetic

    def arithmetic(self, e: BinaryExpr) -> Code:
        d = e.dtype
        if is_narrow(d):
            wide = float32.with_lanes(d.lanes)
            return self.convert(type(e)(Cast(wide, e.a), Cast(wide, e.b)), d)
        if isinstance(e, (FloorDiv, FloorMod)):
            return self.floor_divide(e)
        if isinstance(e, (Min, Max)):
            return self.extremum(e)
        if d.is_bool:  # sums and products of bools are or and and
            return self.logical(Or(e.a, e.b) if e.symbol == "+" else And(e.a, e.b))
        if d.lanes > 1:
            if isinstance(e, Add) and d.is_float:
                for product, other in ((e.b, e.a), (e.a, e.b)):
                    if isinstance(product, Mul):
                        return self.call(self.vectors.multiply_add(d), product.a, product.b, other)
            return self.call(self.vectors.binary(_WORDS[e.symbol], d), e.a, e.b)
        if d.is_float or d.bits == 64 or (d.kind == "uint" and d.bits == 32):
            return self.infix(e.a, e.symbol, e.b)
        return self.call(f"{short_name(d)}_{_WORDS[e.symbol]}", e.a, e.b)

    def extremum(self, e: BinaryExpr) -> Code:
        d, word = e.dtype, _WORDS[e.symbol]
        number = e.b.value if isinstance(e.b, Broadcast) else e.b
        if d.is_bool:
            return self.logical(And(e.a, e.b) if word == "min" else Or(e.a, e.b))
        if d.is_float and isinstance(number, Const) and number.value == number.value:
            word += "_of_number"
        name = self.vectors.binary(word, d) if d.lanes > 1 else f"{short_name(d)}_{word}"
        return self.call(name, e.a, e.b)

    def floor_divide(self, e: BinaryExpr) -> Code:
        d, is_quotient = e.dtype, isinstance(e, FloorDiv)
        divisor = e.b.value if isinstance(e.b, Broadcast) else e.b
        known = int(divisor.value) if isinstance(divisor, Const) else 0
        if known > 0 and known & (known - 1) == 0:
            by = Const(known.bit_length() - 1 if is_quotient else known - 1, d)
            return self.bit_operation(Call("shr" if is_quotient else "bitand", (e.a, by), d))
        if known > 0 and d.lanes == 1 and self.is_natural(e.a):
            left, right = self.code(e.a), self.code(e.b)
            return Code(f"{left.within(_PRODUCT)} {'/' if is_quotient else '%'} {right.within(_ATOM)}", _PRODUCT)
        word = _WORDS[e.symbol]
        return self.call(self.vectors.binary(word, d) if d.lanes > 1 else f"{short_name(d)}_{word}", e.a, e.b)

    def is_natural(self, e: Expr) -> bool:
        """Whether an integer is seen to be at least 0."""
        match e:
            case Var():
                return e in self.naturals
            case Const():
                return e.value >= 0
            case Add() | Mul() | Min() | FloorDiv():
                return self.is_natural(e.a) and self.is_natural(e.b)
            case FloorMod():
                return self.is_natural(e.b)
            case Max():
                return self.is_natural(e.a) or self.is_natural(e.b)
            case _:
                return False

    def bit_operation(self, e: Call) -> Code:
        word, symbol = _BITS[e.op]
        a, b = e.args
        if e.dtype.lanes > 1:
            return self.call(self.vectors.binary(word, e.dtype), a, b)
        if word == "shl":
            return self.call(f"{short_name(e.dtype)}_shl", a, b)
        code = self.infix(a, symbol, b)
        return code if e.dtype.bits >= 32 else Code(f"({scalar_type(e.dtype)})({code.text})", _PRODUCT)

    def logical(self, e: BinaryExpr) -> Code:
        if e.dtype.lanes > 1:
            return self.call(self.vectors.binary("and" if isinstance(e, And) else "or", e.dtype), e.a, e.b)
        return self.infix(e.a, "&&" if isinstance(e, And) else "||", e.b)

    def compare(self, e: CompareExpr) -> Code:
        d = e.a.dtype
        if is_narrow(d):
            wide = float32.with_lanes(d.lanes)
            return self.compare(type(e)(Cast(wide, e.a), Cast(wide, e.b)))
        if d.lanes > 1:
            return self.call(self.vectors.compare(_WORDS[e.symbol], d), e.a, e.b)
        return self.infix(e.a, e.symbol, e.b)

    def select(self, e: Select) -> Code:
        if e.cond.dtype.lanes > 1:
            return self.call(self.vectors.select(e.dtype), e.cond, e.then, e.orelse)
        cond, then, orelse = (self.code(x).within(_SUM) for x in (e.cond, e.then, e.orelse))
        return Code(f"{cond} ? {then} : {orelse}", _OTHER)

    # conversions

    def convert(self, e: Expr, target: DType) -> Code:
        source = e.dtype
        if source == target:
            return self.code(e)
        if target.is_bool:
            wide = float32.with_lanes(source.lanes) if is_narrow(source) else source
            zero = Const(0.0 if source.is_float else 0, wide)
            if source.lanes > 1:
                return self.call(self.vectors.compare("ne", wide), Cast(wide, e), zero)
            return Code(f"{self.code(Cast(wide, e)).within(_SUM)} != 0", _OTHER)
        if is_narrow(target) and not (source.is_float and source.bits in (32, 64)):
            # integers beyond 16 bits through float64, which holds what float32 would round
            wide = (float64 if source.is_int and source.bits > 16 else float32).with_lanes(source.lanes)
            return self.convert(Cast(wide, e), target)
        if is_narrow(source) and not (target.is_float and target.bits in (32, 64)):
            return self.convert(Cast(float32.with_lanes(source.lanes), e), target)
        if source.lanes > 1:
            return self.call(self.vectors.convert(source, target), e)
        if is_narrow(source) or is_narrow(target) or (source.is_float and target.is_int):
            return self.call(f"{short_name(target)}_from_{short_name(source)}", e)
        return Code(f"({element_type(target)}){self.code(e).within(_ATOM)}", _PRODUCT)

    # functions

    def function(self, e: Call) -> Code:
        op, d = e.op, e.args[0].dtype
        if op == "any":
            return self.code(e.args[0]) if d.lanes == 1 else self.call(self.vectors.any(d), *e.args)
        if op in ("dot_u8i8", "dot_bf16"):
            return self.call(self.vectors.dot(*(a.dtype for a in e.args)), *e.args)
        if op in _ACROSS:
            return self.call(self.vectors.across(_ACROSS[op], d), *e.args)
        if op == "bitcast":
            return self.bits(e.args[0], e.dtype)
        if op in _BITS:
            return self.bit_operation(e)
        if op in mathfuncs.INTEGER_FUNCTIONS:
            return self.code(mathfuncs.INTEGER_FUNCTIONS[op](*e.args))
        if is_narrow(d):
            wide = float32.with_lanes(d.lanes)
            result = Call(op, tuple(Cast(wide, a) for a in e.args), wide if e.dtype.is_float else e.dtype)
            return self.convert(result, e.dtype)
        if op in ("neg", "abs") and d.is_bool:
            return self.code(e.args[0])
        if op in ("neg", "abs") and d.is_int:
            return self.call(self.vectors.unary(op, d) if d.lanes > 1 else f"{short_name(d)}_{op}", *e.args)
        if d.is_float:
            return self.float_function(e, d)
        raise InternalError(f"no C code for {op} of {d}")

    def bits(self, e: Expr, target: DType) -> Code:
        """The same bits as another type."""
        source = e.dtype
        if source.lanes > 1:
            return self.call(self.vectors.bits(source, target), e)
        if source.kind == target.kind or is_narrow(source) or is_narrow(target) or (source.is_int and target.is_int):
            return Code(f"({element_type(target)}){self.code(e).within(_ATOM)}", _PRODUCT)
        number, count = (source, target) if source.is_float else (target, source)
        unsigned = f"u{count.bits}"
        if source.is_float:
            code = self.call(f"{unsigned}_of_{short_name(number)}", e)
            return code if count.kind == "uint" else Code(f"({element_type(target)}){code.text}", _PRODUCT)
        return self.call(f"{short_name(number)}_of_{unsigned}", e)

    def float_function(self, e: Call, d: DType) -> Code:
        op, (a, *more) = e.op, e.args
        f = "f" if d.bits == 32 else ""
        is_vector = d.lanes > 1
        if op in mathfuncs.FUNCTIONS and (d.bits == 32 or op in ("sigmoid", "gelu")):
            return self.code(mathfuncs.FUNCTIONS[op](*e.args))
        match op:
            case "rounded":
                return self.code(a)
            case "isnan":
                return self.compare(NE(a, a))
            case "isinf":
                return self.compare(EQ(Call("abs", (a,), d), Const(math.inf, d)))
            case "neg" if not is_vector:
                return Code(f"-{self.code(a).within(_ATOM)}", _PRODUCT)
            case "fma" if is_vector:
                return self.call(self.vectors.fma(d), *e.args)
            case "to_int" if is_vector:  # of a value known to be in range
                return self.call(self.vectors.truncate(d, e.dtype), a)
            case "to_int":
                return Code(f"({element_type(e.dtype)}){self.code(a).within(_ATOM)}", _PRODUCT)
            case "rsqrt":
                root = self.call(self.vectors.unary("sqrt", d) if is_vector else f"sqrt{f}", a)
                if is_vector:
                    return self.call(self.vectors.binary("div", d), Const(1.0, d), root.text)
                return Code(f"1 / {root.text}", _PRODUCT)
            case "scale2":
                return self.code(mathfuncs.scale2(*e.args))
            case "fmod" | "pow" if is_vector:
                return self.call(self.vectors.binary(op, d), a, *more)
            case "fma" | "fmod" | "pow":
                return self.call(f"{op}{f}", a, *more)
        if op in _ROUNDING or op in _LIBM or op == "neg":
            return self.call(self.vectors.unary(op, d) if is_vector else f"{_ROUNDING.get(op, op)}{f}", a)
        raise InternalError(f"no C code for {op} of {d}")

    # memory

    def address(self, buffer: Buffer, index: Expr) -> str:
        return f"&{self.buffers[buffer]}[{self.text(index)}]"

    def place(self, buffer: Buffer, index: Expr) -> tuple[str, Expr, list[Expr]]:
        """How the lanes of an access lie: the kind, the first element, what else tells."""
        if isinstance(index, Ramp):
            if isinstance(index.stride, Const) and index.stride.value == 1:
                return "", index.base, []
            return "every", index.base, [index.stride]
        return "gather", Const(0, int64), [index]

    def load(self, e: Load) -> Code:
        (index,) = e.indices
        d = e.dtype
        if d.lanes == 1:
            element = f"{self.buffers[e.buffer]}[{self.text(index)}]"
            if e.mask is None:
                return Code(element)
            return Code(f"{self.code(e.mask).within(_SUM)} ? {element} : 0", _OTHER)
        how, first, more = self.place(e.buffer, index)
        mask, scalar = self.masks(e.mask)
        code = self.call(self.vectors.load(d, how, bool(mask)), self.address(e.buffer, first), *more, *mask)
        if scalar is None:
            return code
        zero = self.call(self.vectors.fill(d), "0")
        return Code(f"{self.code(scalar).within(_SUM)} ? {code.text} : {zero.text}", _OTHER)

    def masks(self, mask: Expr | None) -> tuple[list[Expr], Expr | None]:
        """A mask by lanes, or one for all of them."""
        if mask is None:
            return [], None
        if isinstance(mask, Broadcast):
            return [], mask.value
        return ([mask], None) if mask.dtype.lanes > 1 else ([], mask)


def literal(value: int | float | bool, d: DType) -> str:
    """A constant in C, to the last bit."""
    if d.is_bool:
        return str(int(bool(value)))
    if d.is_float:
        number = d.numpy.type(value)
        if d.bits == 16:
            return f"{int(number.view('uint16')):#06x}"
        if math.isnan(number) or math.isinf(number):
            return "NAN" if math.isnan(number) else "INFINITY" if number > 0 else "-INFINITY"
        return str(number) + ("f" if d.bits == 32 else "") if "." in str(number) else f"{float(number).hex()}{'f' if d.bits == 32 else ''}"  # fmt: skip
    number = int(value)
    if number == -(2**63):
        return "(-9223372036854775807 - 1)"
    if d.kind == "uint":
        return f"{number}u"
    return str(number)
