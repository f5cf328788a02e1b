"""Loads and stores: contiguous, strided, masked; and what the emitters share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ...dtype import DType
from ...ir.expr import Add, BinaryExpr, Buffer, Const, Expr, Load, Ramp, Sub, Var
from ...ir.node import walk
from ...ir.stmt import Prefetch, Store
from .types import I1, I8, I32, I64, PTR, key_of, literal, mangled, memory_type, opaque, undefined


def is_contiguous(index: Expr) -> bool:
    """Whether a vector of offsets is a run of neighbours."""
    return isinstance(index, Ramp) and isinstance(index.stride, Const) and index.stride.value == 1


@dataclass
class _Kept:
    """The value at a place, and the instruction that stored it in this block, if one did."""

    value: ir.Value | None = None
    store: ir.Instruction | None = None


class MemoryEmitter:
    """State of one LLVM function being written, and its memory accesses.

    Attributes:
        variables: LLVM values of IR variables; buffers: base pointers.
        memo: values of expressions already emitted in the current statement, by identity.
        read_only: buffers that the function does not write, nor any that may overlap them.
        own: buffers on the stack of the function, which nobody else sees.
    """

    def __init__(self, module: ir.Module, builder: ir.IRBuilder) -> None:
        self.module = module
        self.builder = builder
        self.variables: dict[Var, ir.Value] = {}
        self.buffers: dict[Buffer, ir.Value] = {}
        self.memo: dict[int, tuple[Expr, ir.Value]] = {}
        self.read_only: frozenset[Buffer] = frozenset()
        self.own: set[Buffer] = set()
        self._block: ir.Block | None = None
        self._known: dict[tuple[Any, ...], ir.Value] = {}
        self._kept: dict[Buffer, tuple[tuple[DType, int], dict[int, _Kept]]] = {}
        self._useless: set[ir.Instruction] = set()
        self._fixed: dict[int, tuple[BinaryExpr, bool]] = {}

    def once(self, key: tuple[Any, ...], make: Callable[[], ir.Value]) -> ir.Value:
        """A value that depends on nothing but its key; one of the same key that was made in this block serves again.

        Unrolled loops ask for the same indices and elements over and over. LLVM would find that out, but printing and reading what it then
        removes takes most of the time to build such a kernel.
        """
        self._enter()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = make()
        return found

    def _enter(self) -> None:
        """Forget what was known in another block."""
        if self._block is not self.builder.block:
            self.leave()
            self._block, self._known, self._kept, self._fixed = self.builder.block, {}, {}, {}

    def is_fixed(self, e: BinaryExpr) -> bool:
        """Whether an expression reads no memory, and so has one value in a block. It is held as long as the block is known, since its identity
        stands for it there."""
        self._enter()
        if id(e) not in self._fixed:
            self._fixed[id(e)] = e, not any(isinstance(x, Load) for x in walk(e))
        return self._fixed[id(e)][1]

    def leave(self) -> None:
        """Take the stores out of the last block that others behind them have made useless."""
        if self._block is not None and self._useless:
            self._block.instructions[:] = [i for i in self._block.instructions if i not in self._useless]
            self._useless = set()

    def kept(self, buffer: Buffer, index: Expr, d: DType) -> _Kept | None:
        """What this block has stored to, or loaded from, a place of a buffer on the stack, if the place is a constant and nothing else may have
        changed it: accumulators of unrolled loops, which LLVM would take out of memory, too, but only after it has read all that."""
        if buffer not in self.own:
            return None
        self._enter()
        at = index.base if isinstance(index, Ramp) else index
        if not isinstance(at, Const) or not (index is at or is_contiguous(index)):
            self.lost(buffer)
            return None
        kind = d, int(at.value) % d.lanes
        if buffer not in self._kept or self._kept[buffer][0] != kind:  # places of another kind may overlap
            self._kept[buffer] = kind, {}
        return self._kept[buffer][1].setdefault(int(at.value), _Kept())

    def value(self, e: Expr) -> ir.Value:
        raise NotImplementedError

    def constant(self, value: object, d: DType) -> ir.Value:
        raise NotImplementedError

    def declare(self, name: str, t: ir.FunctionType) -> ir.Function:
        known = self.module.globals.get(name)
        return known if known is not None else ir.Function(self.module, t, name)

    def intrinsic(self, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
        return self.builder.call(self.declare(name, ir.FunctionType(result, [a.type for a in args])), args)

    def splat(self, v: ir.Value, lanes: int) -> ir.Value:
        """A scalar in all lanes."""
        if isinstance(v.type, ir.VectorType):
            return v
        if isinstance(v, ir.Constant) and v.constant is not ir.Undefined:
            return literal(v.type, v.constant, lanes)

        def make() -> ir.Value:
            none = undefined(v.type, lanes)
            one = self.builder.insert_element(none, v, ir.Constant(I32, 0))
            return self.builder.shuffle_vector(one, none, literal(I32, 0, lanes))

        return self.once(("splat", key_of(v), lanes), make)

    def address(self, buffer: Buffer, index: ir.Value) -> ir.Value:
        """Pointer(s) to the element(s) at an offset."""
        t = memory_type(buffer.dtype)
        base = self.buffers[buffer]
        return self.once((buffer, key_of(index)), lambda: self.builder.gep(base, [index], source_etype=t))

    def place(self, buffer: Buffer, index: Expr) -> ir.Value:
        """Pointer to the element at an index. Copies of unrolled loops, whose indices differ in what is added last, share the rest."""
        if isinstance(index, (Add, Sub)) and isinstance(index.b, Const):
            base = self.place(buffer, index.a)
            offset = int(index.b.value) * (-1 if isinstance(index, Sub) else 1)
            t = memory_type(buffer.dtype)
            key = ("beside", key_of(base), offset, buffer.dtype)
            return self.once(key, lambda: self.builder.gep(base, [ir.Constant(I64, offset)], source_etype=t))
        return self.address(buffer, self.value(index))

    def plain_load(self, buffer: Buffer, at: ir.Value, d: DType) -> ir.Value:
        """A load without a mask, as it lies in memory."""

        def make() -> ir.Value:
            return self.builder.load(at, align=d.itemsize, typ=memory_type(d))

        return self.once(("load", key_of(at), d), make) if buffer in self.read_only else make()

    def load(self, e: Load) -> ir.Value:
        (index,) = e.indices
        kept = self.kept(e.buffer, index, e.dtype) if e.mask is None else None
        if kept is None:
            self.lost(e.buffer)
            return self.load_anew(e, index)
        if kept.value is None:
            kept.value = self.load_anew(e, index)
        return kept.value

    def hand_over(self) -> None:
        """Others read and write the function's own buffers now: what was stored counts, and nothing that is kept."""
        self._kept = {}

    def lost(self, buffer: Buffer) -> None:
        """Forget what is kept of a buffer."""
        self._kept.pop(buffer, None)

    def load_anew(self, e: Load, index: Expr) -> ir.Value:
        d = e.dtype
        mask = None if e.mask is None else self.value(e.mask)
        if d.lanes == 1:
            return self.from_memory(self.load_scalar(e, mask), d)
        t = memory_type(d)
        align = ir.Constant(I32, d.itemsize)
        if is_contiguous(index):
            at = self.place(e.buffer, index.base)
            if mask is None:
                return self.from_memory(self.plain_load(e.buffer, at, d), d)
            args = [at, align, self.splat(mask, d.lanes), self.zero(t)]
            return self.from_memory(self.intrinsic(f"llvm.masked.load.{mangled(d)}.p0", t, args), d)
        pointers = self.pointers(e.buffer, self.value(index), d.lanes)
        lanes = self.lanes_on(mask, d.lanes)
        name = f"llvm.masked.gather.{mangled(d)}.v{d.lanes}p0"
        return self.from_memory(self.intrinsic(name, t, [pointers, align, lanes, self.zero(t)]), d)

    def load_scalar(self, e: Load, mask: ir.Value | None) -> ir.Value:
        at = self.place(e.buffer, e.indices[0])
        if mask is None:
            return self.plain_load(e.buffer, at, e.dtype)
        # without a branch: where the mask is off, a zero is read instead
        safe = self.builder.select(mask, at, self.zeros())
        return self.builder.load(safe, align=e.dtype.itemsize, typ=memory_type(e.dtype))

    def zeros(self) -> ir.Value:
        """A constant of 16 zero bytes."""
        name = "tcomp.zeros"
        if name not in self.module.globals:
            g = ir.GlobalVariable(self.module, ir.ArrayType(I8, 16), name)
            g.linkage, g.global_constant, g.align = "internal", True, 16
            g.initializer = ir.Constant(g.value_type, bytearray(16))
        return opaque(self.builder, self.module.globals[name])

    def store(self, s: Store) -> None:
        (index,) = s.indices
        d = s.value.dtype
        result = self.value(s.value)
        value = self.to_memory(result, d)
        kept = self.kept(s.buffer, index, d) if s.mask is None else None
        if s.mask is not None:
            self.lost(s.buffer)
        if kept is not None:
            if kept.store is not None:  # which nobody has read from memory
                self._useless.add(kept.store)
            at = self.place(s.buffer, index.base if isinstance(index, Ramp) else index)
            kept.value, kept.store = result, self.builder.store(value, at, align=d.itemsize)
            return
        if index.dtype.lanes == 1:
            self.builder.store(value, self.place(s.buffer, index), align=d.itemsize)
            return
        mask = None if s.mask is None else self.value(s.mask)
        align = ir.Constant(I32, d.itemsize)
        if is_contiguous(index):
            at = self.place(s.buffer, index.base)
            if mask is None:
                self.builder.store(value, at, align=d.itemsize)
            else:
                lanes = self.splat(mask, d.lanes)
                lanes = (
                    self.builder.and_(lanes, self.unknown_true(d.lanes))
                    if d.itemsize < (4 if d.is_float else 8)
                    else lanes
                )
                args = [value, at, align, lanes]
                self.intrinsic(f"llvm.masked.store.{mangled(d)}.p0", ir.VoidType(), args)
            return
        pointers = self.pointers(s.buffer, self.value(index), d.lanes)
        args = [value, pointers, align, self.lanes_on(mask, d.lanes)]
        self.intrinsic(f"llvm.masked.scatter.{mangled(d)}.v{d.lanes}p0", ir.VoidType(), args)

    def unknown_true(self, lanes: int) -> ir.Value:
        """A mask with all lanes on, which the optimizer does not know.

        LLVM 22 turns a masked store of truncated values whose mask is a constant with one lane on into a scalar store of the
        values before truncation (x86 with AVX-512), and so overwrites the neighbour.
        """
        one = self.builder.asm(ir.FunctionType(I32, [I32]), "", "=r,0", [ir.Constant(I32, 1)], False)
        return self.splat(self.builder.trunc(one, I1), lanes)

    def prefetch(self, s: Prefetch) -> None:
        """To be read soon, kept in all caches from that level on; an address outside of memory does no harm."""
        at = self.place(s.buffer, s.indices[0])
        args = [at, ir.Constant(I32, 0), ir.Constant(I32, 4 - s.level), ir.Constant(I32, 1)]
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), args)

    def pointers(self, buffer: Buffer, index: ir.Value, lanes: int) -> ir.Value:
        """A vector of pointers; through integers, since llvmlite's GEP knows scalar bases only."""
        base = self.splat(self.builder.ptrtoint(self.buffers[buffer], I64), lanes)
        size = literal(I64, buffer.dtype.itemsize, lanes)
        offset = self.builder.mul(self.splat(index, lanes), size)
        return self.builder.inttoptr(self.builder.add(base, offset), ir.VectorType(PTR, lanes))

    def lanes_on(self, mask: ir.Value | None, lanes: int) -> ir.Value:
        if mask is None:
            return literal(I1, 1, lanes)
        return self.splat(mask, lanes)

    def zero(self, t: ir.Type) -> ir.Value:
        is_float = isinstance(t.element, (ir.FloatType, ir.DoubleType, ir.HalfType))
        return literal(t.element, 0.0 if is_float else 0, t.count)

    def from_memory(self, v: ir.Value, d: DType) -> ir.Value:
        if not d.is_bool:
            return v
        return self.builder.icmp_unsigned("!=", v, literal(I8, 0, d.lanes))

    def to_memory(self, v: ir.Value, d: DType) -> ir.Value:
        return self.builder.zext(v, memory_type(d)) if d.is_bool else v
