"""The entry function of a module: the kernel calls of the whole model, in one native function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from llvmlite import ir

from ...runtime.extents import Code, Extent
from ...runtime.program import ENTRY, TABLES, Argument, Branch, Clear, Copy, Launch, Loop, Program, Step
from .types import I1, I8, I32, I64, PTR

_VOID = ir.VoidType()


def entry_module(program: Program, name: str = ENTRY, symbols: Mapping[str, str] | None = None) -> str:
    """LLVM text of `i32 tcomp_main(ptr args, ptr consts, ptr arena, ptr dims)`, which runs the program's steps in order, and returns 0, or 2
    where memory ran out.

    Args:
        name: of the function. symbols: what is called in place of a kernel, by its symbol.
    """
    writer = _EntryWriter(name, symbols or {})
    failures = writer.call("tcomp_failures", I32)
    writer.call("tcomp_begin_run", _VOID)
    if program.flush_denormals:
        mode = writer.call("tcomp_flush_denormals", I32)
    writer.steps(program.steps)
    if program.flush_denormals:
        writer.call("tcomp_restore_mode", _VOID, mode)
    writer.call("tcomp_end_run", _VOID)
    now = writer.call("tcomp_failures", I32)
    code = writer.builder.select(writer.builder.icmp_signed("==", now, failures), I32(0), I32(2))
    writer.builder.ret(code)
    return str(writer.module)


class _EntryWriter:
    """Writes steps behind one another."""

    def __init__(self, name: str, symbols: Mapping[str, str]) -> None:
        self.symbols = symbols
        self.module = ir.Module("entry")
        self.function = ir.Function(self.module, ir.FunctionType(I32, [PTR] * 4), name)
        self.tables = dict(zip(TABLES, self.function.args))
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.trips: list[ir.Value] = []

    def call(self, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
        """A call of a function that is defined elsewhere."""
        known = self.module.globals.get(name)
        return self.builder.call(
            known or ir.Function(self.module, ir.FunctionType(result, [v.type for v in values]), name), values
        )

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Launch():
                    self.call(self.symbols.get(step.symbol, step.symbol), _VOID, *map(self.pointer, step.arguments))
                case Copy():
                    values = [self.pointer(step.target), self.pointer(step.source), self.size(step.nbytes)]
                    self.call("llvm.memcpy.p0.p0.i64", _VOID, *values, ir.Constant(I1, 0))
                case Clear():
                    values = [self.pointer(step.target), ir.Constant(I8, 0), self.size(step.nbytes)]
                    self.call("llvm.memset.p0.i64", _VOID, *values, ir.Constant(I1, 0))
                case Loop():
                    self.loop(step)
                case Branch():
                    self.branch(step)
                case _:
                    assert_never(step)

    def loop(self, step: Loop) -> None:
        """for i in range(rows): at = i, or rows - 1 - i."""
        builder, one = self.builder, ir.Constant(I64, 1)
        rows = self.size(step.length)
        if step.count is not None:
            asked = builder.load(self.pointer(step.count), typ=I64)
            rows = builder.select(builder.icmp_signed("<", asked, rows), asked, rows)
        before = builder.block
        head, body, end = (self.function.append_basic_block(name) for name in ("loop", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(I64)
        i.add_incoming(ir.Constant(I64, 0), before)
        builder.cbranch(builder.icmp_signed("<", i, rows), body, end)
        builder.position_at_end(body)
        self.trips.append(builder.sub(builder.sub(rows, one), i) if step.reverse else i)
        self.steps(step.steps)
        self.trips.pop()
        i.add_incoming(builder.add(i, one), builder.block)
        builder.branch(head)
        builder.position_at_end(end)

    def branch(self, step: Branch) -> None:
        builder = self.builder
        flag = builder.load(self.pointer(step.condition), typ=I8)
        then, orelse, end = (self.function.append_basic_block(name) for name in ("then", "else", "after"))
        builder.cbranch(builder.icmp_unsigned("!=", flag, ir.Constant(I8, 0)), then, orelse)
        for block, steps in ((then, step.then), (orelse, step.orelse)):
            builder.position_at_end(block)
            self.steps(steps)
            builder.branch(end)
        builder.position_at_end(end)

    def pointer(self, a: Argument) -> ir.Value:
        """An address, or an extent's value."""
        builder, at = self.builder, ir.Constant(I64, a.index)
        if a.kind == "arena":
            base = builder.gep(self.tables["arena"], [at], source_etype=I8)
        else:
            element = I64 if a.kind == "dims" else PTR
            base = builder.load(builder.gep(self.tables[a.kind], [at], source_etype=element), typ=element)
        for loop, nbytes in a.strides:
            moved = builder.mul(self.trips[loop], self.size(nbytes))
            base = builder.gep(base, [moved], source_etype=I8)
        return base

    def size(self, nbytes: int | Extent) -> ir.Value:
        return ir.Constant(I64, nbytes) if isinstance(nbytes, int) else self.computed(nbytes.code)

    def computed(self, code: Code) -> ir.Value:
        """The value of an extent, of numbers that are at least 0."""
        builder, dims = self.builder, self.tables["dims"]
        if isinstance(code, int):
            return ir.Constant(I64, code)
        if code[0] == "dim":
            return builder.load(builder.gep(dims, [ir.Constant(I64, code[1])], source_etype=I64), typ=I64)
        a, b = map(self.computed, code[1:])
        match code[0]:
            case "min" | "max":
                return builder.select(builder.icmp_signed("<" if code[0] == "min" else ">", a, b), a, b)
            case "//":
                return builder.sdiv(a, b)
            case "%":
                return builder.srem(a, b)
            case _:
                return {"+": builder.add, "-": builder.sub, "*": builder.mul}[code[0]](a, b)
