"""The entry function of a module: the kernel calls of the whole model, in one native function."""

from __future__ import annotations

from llvmlite import ir

from ...runtime.extents import Code, Extent
from ...runtime.program import ENTRY, TABLES, Argument, Copy, Program
from .types import I1, I32, I64, PTR


def entry_module(program: Program) -> str:
    """LLVM text of `void tcomp_main(ptr args, ptr consts, ptr arena, ptr dims)`, which runs the program's steps in order."""
    module = ir.Module("entry")
    f = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR] * 4), ENTRY)
    tables = dict(zip(TABLES, f.args))
    builder = ir.IRBuilder(f.append_basic_block("entry"))

    def pointer(a: Argument) -> ir.Value:
        at = ir.Constant(I64, a.index)
        if a.kind == "arena":
            return builder.gep(tables["arena"], [at], source_etype=ir.IntType(8))
        element = I64 if a.kind == "dims" else PTR
        return builder.load(builder.gep(tables[a.kind], [at], source_etype=element), typ=element)

    def size(nbytes: int | Extent) -> ir.Value:
        return ir.Constant(I64, nbytes) if isinstance(nbytes, int) else _computed(builder, nbytes.code, tables["dims"])

    def call(name: str) -> None:
        builder.call(ir.Function(module, ir.FunctionType(ir.VoidType(), []), name), [])

    call("tcomp_begin_run")
    if program.flush_denormals:
        flush = ir.Function(module, ir.FunctionType(I32, []), "tcomp_flush_denormals")
        mode = builder.call(flush, [])
    for step in program.steps:
        if isinstance(step, Copy):
            t = ir.FunctionType(ir.VoidType(), [PTR, PTR, I64, I1])
            copy = module.globals.get("llvm.memcpy.p0.p0.i64") or ir.Function(module, t, "llvm.memcpy.p0.p0.i64")
            arguments = [pointer(step.target), pointer(step.source), size(step.nbytes), ir.Constant(I1, 0)]
            builder.call(copy, arguments)
            continue
        values = [pointer(a) for a in step.arguments]
        t = ir.FunctionType(ir.VoidType(), [v.type for v in values])
        kernel = module.globals.get(step.symbol) or ir.Function(module, t, step.symbol)
        builder.call(kernel, values)
    if program.flush_denormals:
        restore = ir.Function(module, ir.FunctionType(ir.VoidType(), [I32]), "tcomp_restore_mode")
        builder.call(restore, [mode])
    call("tcomp_end_run")
    builder.ret_void()
    return str(module)


def _computed(builder: ir.IRBuilder, code: Code, dims: ir.Value) -> ir.Value:
    """The value of an extent, of numbers that are at least 0."""
    if isinstance(code, int):
        return ir.Constant(I64, code)
    if code[0] == "dim":
        return builder.load(builder.gep(dims, [ir.Constant(I64, code[1])], source_etype=I64), typ=I64)
    a, b = (_computed(builder, c, dims) for c in code[1:])
    match code[0]:
        case "min" | "max":
            return builder.select(builder.icmp_signed("<" if code[0] == "min" else ">", a, b), a, b)
        case "//":
            return builder.sdiv(a, b)
        case "%":
            return builder.srem(a, b)
        case _:
            return {"+": builder.add, "-": builder.sub, "*": builder.mul}[code[0]](a, b)
