"""The interpreter of loop IR: slow, plain, and the oracle that tells which layer broke.

A PrimFunc at any stage (blocks, flattened loops, vectors) becomes a Python function over NumPy arrays, one statement a
line, that checks every index and computes every operation in the dtype that the IR says. It shares no code with the
native code generator. Parallel, vectorized and unrolled loops run one iteration after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import DType, int64
from ..errors import InternalError
from .convert import convert
from .expr import (
    And,
    BinaryExpr,
    Broadcast,
    Buffer,
    Call,
    Cast,
    CompareExpr,
    Const,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    Load,
    Max,
    Min,
    Not,
    Or,
    Ramp,
    Select,
    Var,
)
from .philox import philox
from .primfunc import PrimFunc
from .reduction import start_empty
from .stmt import Allocate, Block, For, If, Let, Prefetch, Seq, Stmt, Store, Sync


class OutOfBounds(InternalError):
    """A program touched an element that its buffer does not have."""


def load(array: np.ndarray, name: str, index: tuple[Any, ...], mask: Any = None) -> Any:
    if mask is None:
        _check(array, name, index)
        return array[index]
    lanes = np.broadcast(mask, *index).shape
    mask, index = np.broadcast_to(mask, lanes), tuple(np.broadcast_to(i, lanes) for i in index)
    out = np.zeros(lanes, array.dtype)
    safe = tuple(i[mask] for i in index)
    _check(array, name, safe)
    out[mask] = array[safe]
    return out if lanes else out[()]


def store(array: np.ndarray, name: str, index: tuple[Any, ...], value: Any, mask: Any = None) -> None:
    if mask is not None:
        lanes = np.broadcast(mask, value, *index).shape
        mask = np.broadcast_to(mask, lanes)
        index, value = tuple(np.broadcast_to(i, lanes)[mask] for i in index), np.broadcast_to(value, lanes)[mask]
    _check(array, name, index)
    array[index] = value


def _check(array: np.ndarray, name: str, index: tuple[Any, ...]) -> None:
    for i, extent in zip(index, array.shape):
        if type(i) is int and 0 <= i < extent:
            continue  # nearly all of them
        if (i.size and (i.min() < 0 or i.max() >= extent)) if isinstance(i, np.ndarray) else not 0 <= i < extent:
            shown = ", ".join(str(np.asarray(x).tolist()) for x in index)
            raise OutOfBounds(f"{name}[{shown}] is outside its shape {array.shape}")


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _erfc(x: Any) -> Any:
    return np.vectorize(math.erfc, otypes=[np.float64])(x)


_FUNCTIONS: dict[str, Any] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "erf": _erf,
    "gelu": lambda x: np.maximum(x, 0.0) - 0.5 * np.abs(x) * _erfc(np.abs(x) * math.sqrt(0.5)),
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "pow": np.power,
}
"""Computed in float64 and rounded once."""

_EXACT: dict[str, Any] = {
    "rounded": np.positive,
    "neg": np.negative,
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "fmod": np.fmod,
    "any": np.any,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "philox": lambda *words: philox(*words)[0],
}


def _dot(acc: Any, a: Any, b: Any) -> Any:
    """acc[i] + the sum of a[i * g + k] * b[i * g + k] over the group, in the accumulator's dtype."""
    products = np.asarray(a).astype(acc.dtype) * np.asarray(b).astype(acc.dtype)
    return acc + products.reshape(len(acc), -1).sum(axis=1, dtype=acc.dtype)


_DOTS: dict[str, Any] = {"dot_u8i8": _dot, "dot_bf16": _dot}


def _call(op: str, dtype: np.dtype, *args: Any) -> Any:
    if op in _FUNCTIONS:
        return np.asarray(_FUNCTIONS[op](*(np.asarray(a, np.float64) for a in args))).astype(dtype)[()]
    if op == "fma":
        a, b, c = (np.asarray(x, np.longdouble) for x in args)
        return np.asarray(a * b + c).astype(dtype)[()]
    if op in _DOTS:
        return _DOTS[op](*args)
    if op == "bitcast":
        return np.asarray(args[0]).view(dtype)[()]
    return np.asarray(_EXACT[op](*args)).astype(dtype)[()]


def _floor_divide(kind: str, a: Any, b: Any) -> Any:
    """Division by zero gives 0 for the quotient and the remainder, as the generated code does."""
    safe = np.where(np.equal(b, 0), 1, b)
    result = np.where(np.equal(b, 0), 0, (np.floor_divide if kind == "//" else np.mod)(a, safe))
    return result[()]


class Emitter:
    """Writes a PrimFunc as Python lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[Any, str] = {}
        self.scope: dict[str, Any] = {
            "np": np, "_load": load, "_store": store, "_convert": convert, "_call": _call, "_div": _floor_divide,
        }  # fmt: skip

    def name(self, x: Var | Buffer) -> str:
        if x not in self.names:
            self.names[x] = f"{'v' if isinstance(x, Var) else 'b'}{len(self.names)}"
        return self.names[x]

    def emit(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def type(self, d: DType) -> str:
        key = f"t_{d.element}"
        self.scope[key] = d.numpy
        return key

    def indices(self, indices: Sequence[Expr]) -> str:
        return f"({''.join(self.expr(i) + ', ' for i in indices)})"

    def expr(self, e: Expr) -> str:
        match e:
            case Var():
                return self.name(e)
            case Const():
                return self.const(e)
            case CompareExpr():
                return f"({self.expr(e.a)} {e.symbol} {self.expr(e.b)})"
            case And() | Or():
                if e.dtype.lanes == 1:
                    return f"({self.expr(e.a)} {e.symbol} {self.expr(e.b)})"
                return f"({self.expr(e.a)} {'&' if isinstance(e, And) else '|'} {self.expr(e.b)})"
            case Not():
                return f"np.logical_not({self.expr(e.a)})"
            case BinaryExpr():
                return self.arithmetic(e)
            case Load():
                mask = "" if e.mask is None else f", {self.expr(e.mask)}"
                return f"_load({self.name(e.buffer)}, {e.buffer.name!r}, {self.indices(e.indices)}{mask})"
            case Select():
                if e.cond.dtype.lanes == 1:
                    return f"({self.expr(e.then)} if {self.expr(e.cond)} else {self.expr(e.orelse)})"
                return f"np.where({self.expr(e.cond)}, {self.expr(e.then)}, {self.expr(e.orelse)})"
            case Cast():
                return f"_convert({self.expr(e.value)}, {self.type(e.dtype)})"
            case Call():
                args = "".join(f", {self.expr(a)}" for a in e.args)
                return f"_call({e.op!r}, {self.type(e.dtype)}{args})"
            case Ramp():
                return f"({self.expr(e.base)} + {self.expr(e.stride)} * np.arange({e.lanes}))"
            case Broadcast():
                return f"np.full({e.lanes}, {self.expr(e.value)})"
            case _:
                raise InternalError(f"the interpreter does not know {type(e).__name__}")

    def const(self, e: Const) -> str:
        if e.dtype == int64 or e.dtype.is_bool:
            return repr(e.value)
        key = f"c{len(self.scope)}"
        self.scope[key] = e.dtype.numpy.type(e.value)
        return key

    def arithmetic(self, e: BinaryExpr) -> str:
        a, b = self.expr(e.a), self.expr(e.b)
        match e:
            case Min():
                return f"np.minimum({a}, {b})"
            case Max():
                return f"np.maximum({a}, {b})"
            case FloorDiv() | FloorMod():
                if isinstance(e.b, Const) and e.b.value != 0:
                    return f"({a} {e.symbol} {b})"
                return f"_div({e.symbol!r}, {a}, {b})"
            case Div() if e.dtype.bits == 16:
                return f"_convert(np.float32({a}) / np.float32({b}), {self.type(e.dtype)})"
            case _:
                return f"({a} {e.symbol} {b})"

    def stmt(self, s: Stmt, depth: int) -> None:
        match s:
            case For():
                self.emit(depth, f"for {self.name(s.var)} in range({self.expr(s.extent)}):")
                self.stmt(s.body, depth + 1)
            case Block():
                self.block(s, depth)
            case Store():
                mask = "" if s.mask is None else f", {self.expr(s.mask)}"
                target = f"{self.name(s.buffer)}, {s.buffer.name!r}, {self.indices(s.indices)}"
                self.emit(depth, f"_store({target}, {self.expr(s.value)}{mask})")
            case Seq():
                for x in s.stmts:
                    self.stmt(x, depth)
                if not s.stmts:
                    self.emit(depth, "pass")
            case If():
                self.emit(depth, f"if {self.expr(s.cond)}:")
                self.stmt(s.then, depth + 1)
                if s.orelse is not None:
                    self.emit(depth, "else:")
                    self.stmt(s.orelse, depth + 1)
            case Let():
                self.emit(depth, f"{self.name(s.var)} = {self.expr(s.value)}")
                self.stmt(s.body, depth)
            case Prefetch() | Sync():
                self.emit(depth, "pass")
            case Allocate():
                self.allocate(s.buffer, depth)
                self.stmt(s.body, depth)
            case _:
                raise InternalError(f"the interpreter does not know {type(s).__name__}")

    def allocate(self, b: Buffer, depth: int) -> None:
        """A poisoned buffer: NaN, or a value that stands out, shows a read before the first write."""
        shape = self.indices(b.shape)
        poison = "np.nan" if b.dtype.is_float else "77" if not b.dtype.is_bool else "True"
        self.emit(depth, f"{self.name(b)} = np.full({shape}, {poison}, {self.type(b.dtype)})")

    def source(self, func: PrimFunc) -> tuple[str, dict[str, Any]]:
        """A whole function, named `run`, and the names that it needs."""
        return self.function(start_empty(func))

    def function(self, func: PrimFunc) -> tuple[str, dict[str, Any]]:
        """The same of a function whose reductions over nothing are seen to."""
        self.emit(0, f"def run({', '.join(self.name(p) for p in func.params)}):")
        for b in func.allocs:
            self.allocate(b, 1)
        self.stmt(func.body, 1)
        return "\n".join(self.lines), self.scope

    def block(self, s: Block, depth: int) -> None:
        if s.where is not None:
            self.emit(depth, f"if {self.expr(s.where)}:")
            depth += 1
        for it in s.iters:
            self.emit(depth, f"{self.name(it.var)} = {self.expr(it.binding)}")
        if s.init is not None:
            first = " and ".join(f"{self.name(it.var)} == 0" for it in s.reduce)
            self.emit(depth, f"if {first}:")
            self.stmt(s.init, depth + 1)
        self.stmt(s.body, depth)


def python_source(func: PrimFunc) -> tuple[str, dict[str, Any]]:
    """The Python text of a function, and the names that it needs."""
    return Emitter().source(func)


def interpreted(func: PrimFunc) -> Callable[..., None]:
    """A kernel as a function over NumPy arrays: one for each buffer parameter, then an int for each symbolic extent. It writes the
    outputs in place, and raises OutOfBounds where the program touches an element that a buffer does not have."""
    source, scope = python_source(func)
    exec(compile(source, f"<interpreter of {func.name}>", "exec"), scope)
    run = scope["run"]

    def call(*args: Any) -> None:
        with np.errstate(all="ignore"):
            run(*args)

    return call


def interpret(func: PrimFunc, *args: Any) -> None:
    """Run a kernel on NumPy arrays, writing its outputs in place.

    Args:
        args: one array for each buffer parameter, then an int for each symbolic extent.

    Raises:
        OutOfBounds: the program touched an element that a buffer does not have.
    """
    interpreted(func)(*args)


def poisoned(func: PrimFunc, dims: Mapping[Var, int] | None = None) -> list[np.ndarray]:
    """Arrays for the outputs of a kernel, filled with NaN, or with a value that stands out: what stays so was never written."""
    return [
        np.full(
            tuple(evaluate(e, dims or {}) for e in b.shape),
            np.nan if b.dtype.is_float else 77 if not b.dtype.is_bool else 1,
            b.dtype.numpy,
        )
        for b in func.outputs
    ]


def run(func: PrimFunc, inputs: Sequence[np.ndarray], dims: Mapping[Var, int] | None = None) -> list[np.ndarray]:
    """The outputs of a kernel for some inputs; output buffers are made here, filled with poison, or where they lie in an input's place with
    its elements."""
    sizes = dict(dims or {})
    outputs = poisoned(func, sizes)
    for i, o in func.attrs.get("in_place", ()):
        outputs[o - len(func.inputs)] = np.array(inputs[i], func.buffers[o].dtype.numpy)
    interpret(func, *inputs, *outputs, *(sizes[v] for v in func.dims))
    return outputs


def evaluate(e: Expr, sizes: Mapping[Var, int]) -> int:
    """The value of an expression of symbolic extents."""
    emitter = Emitter()
    code = emitter.expr(e)
    return int(eval(code, {**emitter.scope, **{emitter.names[v]: n for v, n in sizes.items() if v in emitter.names}}))
