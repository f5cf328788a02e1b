"""A lowered PrimFunc -> an LLVM module with one exported function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from ...errors import InternalError
from ...ir.expr import Buffer, Const, Expr, Load, Var
from ...ir.names import plain_name, unique_name
from ...ir.node import walk
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Allocate, For, If, Let, Prefetch, Seq, Stmt, Store, Sync, walk_statements
from .expr import Abilities, ExprEmitter
from .types import I8, I64, PTR, memory_type, opaque, value_type

STACK_LIMIT = 64 * 1024
"""Buffers of up to this many bytes live on the stack, larger ones come from scratch.ll."""
SCRATCH_ALIGN = 64

PARALLEL_FOR = "tcomp_parallel_for"
_BODY = ir.FunctionType(ir.VoidType(), [PTR, I64, I64])


def kernel_module(func: PrimFunc, symbol: str, cpu: Abilities) -> str:
    """The text of an LLVM module that defines `symbol`, taking a pointer for each buffer and an i64 for each extent.

    Args:
        func: a function that went through all lowering steps.
    """
    module = ir.Module(symbol)
    params = [PTR if isinstance(p, Buffer) else I64 for p in func.params]
    f = ir.Function(module, ir.FunctionType(ir.VoidType(), params), symbol)
    f.attributes.add("nounwind")
    aliased = frozenset(func.params[i] for pair in func.attrs.get("aliases", ()) for i in pair)
    written = {s.buffer for s in walk_statements(func.body) if isinstance(s, Store)}
    read_only = frozenset(p for p in func.params if isinstance(p, Buffer)) - written - aliased
    emitter = _KernelEmitter(module, f, symbol, cpu, aliased, read_only)
    names: set[str] = set()
    for p, arg in zip(func.params, f.args):
        arg.name = unique_name(plain_name(p.name), names)
        if isinstance(p, Buffer):
            if p not in aliased:
                arg.add_attribute("noalias")
            emitter.buffers[p] = arg
        else:
            emitter.variables[p] = arg
    emitter.stmt(func.body)
    emitter.builder.ret_void()
    emitter.leave()
    width = f'"prefer-vector-width"="{cpu.vector_bits}" "min-legal-vector-width"="{cpu.vector_bits}"'
    return str(module).replace(" nounwind\n", f" nounwind {width}\n")


class _KernelEmitter(ExprEmitter):
    """Emits statements.

    Attributes:
        aliased: buffers that share their address with another one.
    """

    def __init__(
        self,
        module: ir.Module,
        f: ir.Function,
        symbol: str,
        cpu: Abilities,
        aliased: frozenset[Buffer],
        read_only: frozenset[Buffer],
    ) -> None:
        self.cpu = cpu
        self.aliased = aliased
        self.function = f
        self.entry = f.append_basic_block("entry")
        start = f.append_basic_block("start")
        super().__init__(module, ir.IRBuilder(start))
        self.read_only = read_only
        self.symbol = symbol
        self.regions = 0
        ir.IRBuilder(self.entry).branch(start)

    def stmt(self, s: Stmt) -> None:
        match s:
            case Seq(stmts):
                for x in stmts:
                    self.stmt(x)
            case Store():
                self.memo.clear()
                self.store(s)
                self.memo.clear()
            case For():
                self.parallel(s) if s.kind == "parallel" else self.loop(s)
            case If():
                self.branch(s)
            case Let():
                self.memo.clear()
                self.variables[s.var] = self.value(s.value)
                self.memo.clear()
                self.stmt(s.body)
            case Prefetch():
                self.memo.clear()
                self.prefetch(s)
            case Allocate():
                self.allocate(s)
            case Sync():
                pass  # bound loops run one after another
            case _:
                raise InternalError(f"no LLVM code for {type(s).__name__}")

    def scalar(self, e: Expr) -> ir.Value:
        self.memo.clear()
        result = self.value(e)
        self.memo.clear()
        return result

    @contextmanager
    def counting(self, var: Var, first: ir.Value, end: ir.Value) -> Iterator[None]:
        """A loop of a variable over first <= var < end."""
        before = self.builder.block
        head = self.builder.append_basic_block(f"{plain_name(var.name)}.head")
        body = self.builder.append_basic_block(f"{plain_name(var.name)}.body")
        exit_ = self.builder.append_basic_block(f"{plain_name(var.name)}.exit")
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.builder.phi(I64, name=plain_name(var.name))
        index.add_incoming(first, before)
        self.builder.cbranch(self.builder.icmp_signed("<", index, end), body, exit_)
        self.builder.position_at_end(body)
        self.variables[var] = index
        yield
        index.add_incoming(self.builder.add(index, ir.Constant(I64, 1), flags=("nsw", "nuw")), self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(exit_)

    def loop(self, s: For) -> None:
        with self.counting(s.var, ir.Constant(I64, 0), self.scalar(s.extent)):
            self.stmt(s.body)

    def branch(self, s: If) -> None:
        cond = self.scalar(s.cond)
        if s.orelse is None:
            with self.builder.if_then(cond):
                self.stmt(s.then)
            return
        with self.builder.if_else(cond) as (then, orelse):
            with then:
                self.stmt(s.then)
            with orelse:
                self.stmt(s.orelse)

    def allocate(self, s: Allocate) -> None:
        b = s.buffer
        (size,) = b.shape
        align = max(b.align, 64)
        if isinstance(size, Const) and size.value * b.dtype.itemsize <= STACK_LIMIT:
            at_entry = ir.IRBuilder(self.entry)
            at_entry.position_before(self.entry.terminator)
            slot = at_entry.alloca(ir.ArrayType(memory_type(b.dtype), max(size.value, 1)), name=plain_name(b.name))
            slot.align = align
            self.buffers[b] = opaque(at_entry, slot)
            self.own.add(b)
            self.stmt(s.body)
            return
        nbytes = self.builder.mul(self.scalar(size), ir.Constant(I64, b.dtype.itemsize))
        take = self.declare("tcomp_take", ir.FunctionType(PTR, [I64]))
        take.return_value.add_attribute("noalias")
        give = self.declare("tcomp_give", ir.FunctionType(ir.VoidType(), [PTR]))
        spare = align if align > SCRATCH_ALIGN else 0
        pointer = self.builder.call(take, [self.builder.add(nbytes, ir.Constant(I64, spare))], name=plain_name(b.name))
        self.buffers[b] = pointer
        if spare:
            above = self.builder.neg(self.builder.ptrtoint(pointer, I64))
            self.buffers[b] = self.builder.gep(
                pointer, [self.builder.and_(above, ir.Constant(I64, align - 1))], source_etype=I8
            )
        there = self.builder.icmp_unsigned("!=", self.builder.ptrtoint(pointer, I64), ir.Constant(I64, 0))
        with self.builder.if_then(there):
            self.stmt(s.body)
            self.builder.call(give, [pointer])

    def parallel(self, s: For) -> None:
        """Outline the body: `body(context, begin, end)` runs a range of iterations, in any thread."""
        captured_vars, captured_buffers = _captures(s)
        variables = [v for v in captured_vars if v in self.variables]
        buffers = [b for b in captured_buffers if b in self.buffers]
        types = [value_type(v.dtype) for v in variables] + [PTR] * len(buffers)
        context_type = ir.LiteralStructType(types or [I8])
        at_entry = ir.IRBuilder(self.entry)
        at_entry.position_before(self.entry.terminator)
        context = opaque(at_entry, at_entry.alloca(context_type, name="context"))
        for i, value in enumerate([self.variables[v] for v in variables] + [self.buffers[b] for b in buffers]):
            self.builder.store(value, self._field(context, context_type, i))
        body = ir.Function(self.module, _BODY, f"{self.symbol}.body{self.regions}.{plain_name(s.var.name)}")
        self.regions += 1
        body.linkage = "internal"
        body.attributes.add("nounwind")
        self._outline(body, s, variables, buffers, context_type)
        runtime = self.declare(PARALLEL_FOR, ir.FunctionType(ir.VoidType(), [I64, PTR, PTR]))
        self.builder.call(runtime, [self.scalar(s.extent), opaque(self.builder, body), context])
        self.hand_over()

    def _field(self, context: ir.Value, t: ir.Type, i: int, builder: ir.IRBuilder | None = None) -> ir.Value:
        at = [ir.Constant(ir.IntType(32), 0), ir.Constant(ir.IntType(32), i)]
        return (builder or self.builder).gep(context, at, source_etype=t)

    def _outline(
        self, body: ir.Function, s: For, variables: list[Var], buffers: list[Buffer], context_type: ir.Type
    ) -> None:
        """The body takes what it uses out of the context, and hands it to a function that holds the loop: so it is known of the
        buffers that they do not overlap."""
        context, begin, end = body.args
        at_start = ir.IRBuilder(body.append_basic_block("entry"))
        types = [value_type(v.dtype) for v in variables] + [PTR] * len(buffers)
        values = [at_start.load(self._field(context, context_type, i, at_start), typ=t) for i, t in enumerate(types)]
        chunk = ir.Function(
            self.module, ir.FunctionType(ir.VoidType(), [*types, I64, I64]), body.name.replace(".body", ".chunk")
        )
        chunk.linkage = "internal"
        chunk.attributes.add("nounwind")
        chunk.attributes.add("noinline")
        at_start.call(chunk, [*values, begin, end])
        at_start.ret_void()
        inner = _KernelEmitter(self.module, chunk, body.name, self.cpu, self.aliased, self.read_only)
        for v, arg in zip(variables, chunk.args):
            inner.variables[v] = arg
        for b, arg in zip(buffers, chunk.args[len(variables) :]):
            if b not in self.aliased:
                arg.add_attribute("noalias")
            inner.buffers[b] = arg
        *_, first, last = chunk.args
        with inner.counting(s.var, first, last):
            inner.stmt(s.body)
        inner.builder.ret_void()
        inner.leave()


def _captures(s: For) -> tuple[list[Var], list[Buffer]]:
    """What a loop's body uses, in order of first use."""
    variables: dict[Var, None] = {}
    buffers: dict[Buffer, None] = {}
    for x in walk(s):
        if isinstance(x, Var):
            variables[x] = None
        elif isinstance(x, (Store, Load, Prefetch)):
            buffers[x.buffer] = None
    return list(variables), list(buffers)
