"""A lowered PrimFunc -> CUDA C."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from ...dtype import DType, int64
from ...errors import UnsupportedError
from ...ir.arith import dims_env, interval, simplify
from ...ir.expr import (
    Add,
    BinaryExpr,
    Broadcast,
    Buffer,
    Call,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Load,
    Mul,
    Ramp,
    Select,
    Sub,
    Var,
    const,
)
from ...ir.node import children
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Allocate, For, Let, Prefetch, Stmt, Store, Sync, sub_statements
from ..c.expr import Code
from ..c.kernel import WORDS, KernelPrinter
from ..c.types import element_type
from ..lowering.common import Env, extend
from .accesses import WIDEST, run_bytes
from .launches import is_of_warp
from .vectors import TILE_SIZE, CudaVectors

_RESERVED = re.compile(
    WORDS + r"|threadIdx|blockIdx|blockDim|gridDim|warpSize|class|template|new|delete|this|bool|float\d|int\d|__.*"
)
LARGEST = (1 << 31) - 1


class CudaPrinter(KernelPrinter):
    """Writes one launch as a `__global__` function.

    Args:
        func: what the launch runs, its parameters what it uses. block: threads along x, y, z.
        pool: places of shared buffers, where they are more than code may declare.
    """

    reserved = _RESERVED

    def __init__(
        self, func: PrimFunc, name: str, vectors: CudaVectors, block: tuple[int, ...], pool: Mapping[Buffer, int]
    ) -> None:
        super().__init__(func, name, vectors)
        self.pool = pool
        self.cuda = vectors
        self.threads = block
        self.indices: set[Var] = set()
        self.index_type = "int" if fits_int(func.body, dims_env(func.dims)) else "int64_t"

    def head(self) -> str:
        return f"KERNEL({max(prod(self.threads), 1)})"

    # statements

    def stmt(self, s: Stmt) -> None:
        match s:
            case Sync():
                self.line("__syncthreads();")
            case Prefetch():
                pass  # the threads of other warps run meanwhile
            case For() if s.kind == "bound" and not s.thread.startswith("vthread"):
                self.bound(s)
            case _:
                super().stmt(s)

    def bound(self, s: For) -> None:
        word = self._name(s.var.name)
        self.variables[s.var] = word
        self._counts(s.var)
        self.line(f"const {self.index_type} {word} = {s.thread};")
        self.stmt(s.body)

    def parallel(self, s: For) -> None:
        self.loop(s)  # what is to run side by side is bound

    def loop(self, s: For) -> None:
        self._counts(s.var)
        if s.kind in ("unrolled", "bound"):
            self.line("UNROLL")
        super().loop(s)

    def _counts(self, v: Var) -> None:
        self.naturals.add(v)
        self.indices.add(v)

    def allocate(self, s: Allocate) -> None:
        b, (size,) = s.buffer, s.buffer.shape
        if not isinstance(size, Const) or b.scope not in ("local", "warp", "shared"):
            raise UnsupportedError(
                f"kernel {self.func.name} cannot keep {b.name} in {b.scope} memory",
                why="its size is known only when the kernel runs", hint="split its loops by constants",
            )  # fmt: skip
        word = self._name(b.name)
        self.buffers[b] = word
        if b.scope == "warp":
            self.line(f"{self.cuda.tile(s)} {word}[{max(size.value // TILE_SIZE, 1)}];")
            self.stmt(s.body)
            return
        count = max(int(size.value), 1)
        if b in self.pool:
            self.line(f"POOLED({element_type(b.dtype)}, {count}, {word}, {self.pool[b]});")
        else:
            self.line(f"{'SHARED ' if b.scope == 'shared' else ''}{element_type(b.dtype)} {word}[{count}];")
        self.stmt(s.body)

    def store(self, s: Store) -> None:
        if not is_of_warp(s):
            super().store(s)
            return
        assert isinstance(s.value, Call)
        args = [self.operand(e) for e in s.value.args if not (isinstance(e, Load) and e.buffer is s.buffer)]
        self.line(f"{s.value.op}({', '.join([self.tile(s.buffer, s.indices[0]), *args])});")
        self.forget()

    def operand(self, e: Expr) -> str:
        """An argument of a function on tiles: the place of a load, the value of anything else."""
        return self.tile(e.buffer, e.indices[0]) if isinstance(e, Load) else self.text(e)

    def tile(self, buffer: Buffer, index: Expr) -> str:
        """Where a tile is: in registers, or its first element in memory."""
        self.forget()
        first = index.base if isinstance(index, Ramp) else index
        if buffer.scope == "warp":
            first = simplify(first // TILE_SIZE, {})
        return self.address(buffer, first)

    # expressions

    def type_of(self, e: Expr) -> str:
        if e.dtype == int64 and self._is_index(e):
            return self.index_type
        return super().type_of(e)

    def _is_index(self, e: Expr) -> bool:
        """Whether a value is made of loop variables and literals alone, and so is an `index_type` in C."""
        match e:
            case Var():
                return e in self.indices
            case Const():
                return True
            case Add() | Sub() | Mul():
                return self._is_index(e.a) and self._is_index(e.b)
            case FloorDiv(b=Const(value=by)) | FloorMod(b=Const(value=by)):
                is_shift = by > 0 and int(by) & (int(by) - 1) == 0
                return self._is_index(e.a) and (is_shift or (by > 0 and self.is_natural(e.a)))
            case _:
                return False

    def place(self, buffer: Buffer, index: Expr) -> tuple[str, Expr, list[Expr]]:
        how, first, more = super().place(buffer, index)
        size = buffer.dtype.itemsize
        is_apart = buffer.scope == "shared" and run_bytes(index, size) == size  # else each thread would ask its address
        if not how and (buffer.scope == "local" or is_apart):  # registers have no addresses: element by element
            return "every", first, [const(1)]
        if not how and run_bytes(index, size) == min(index.dtype.lanes * size, WIDEST):
            return "wide", first, more
        return how, first, more

    def function(self, e: Call) -> Code:
        if e.op.startswith("threads_"):
            value, count = e.args
            assert isinstance(count, Const)
            rows = prod(self.threads[1:])
            name = self.cuda.across_threads(e.op.removeprefix("threads_"), e.dtype, int(count.value), rows)
            return self.call(name, value)
        return super().function(e)

    def float_function(self, e: Call, d: DType) -> Code:
        (a, *_) = e.args
        if e.op == "rounded" and isinstance(a, Mul):
            return self.call(self.cuda.rounded_product(d), a.a, a.b)
        if e.op == "fma" and d.lanes > 1:
            return self.call(self.cuda.fma(d), *e.args)
        return super().float_function(e, d)


def fits_int(s: Stmt, env: Env) -> bool:
    """Whether all that is computed of loop variables and literals fits in 32 bits, so that C may compute with int."""
    if isinstance(s, (For, Let)):
        inner = extend(env, s)
    else:
        inner = env
    own = [x for x in children(s) if isinstance(x, Expr)]
    return all(_fits(e, env) for e in own) and all(fits_int(x, inner) for x in sub_statements(s))


def _fits(e: Expr, env: Env) -> bool:
    if e.dtype.element == int64 and isinstance(e, (Var, BinaryExpr, Ramp, Broadcast, Select)) and _is_known(e, env):
        last = e.base + e.stride * (e.lanes - 1) if isinstance(e, Ramp) else e
        for x in (e.base, last) if isinstance(e, Ramp) else (e,) if e.dtype.lanes == 1 else ():
            low, high = interval(x, env)
            if low is None or high is None or low < -LARGEST or high > LARGEST:
                return False
    return all(_fits(x, env) for x in children(e) if isinstance(x, Expr))


def _is_known(e: Expr, env: Env) -> bool:
    """Whether a value depends on variables of known ranges alone: others are 64 bits wide in C, and so is what is computed of them."""
    if isinstance(e, Var):
        return e in env
    if isinstance(e, (Load, Call)):
        return False
    return all(_is_known(x, env) for x in children(e) if isinstance(x, Expr))
