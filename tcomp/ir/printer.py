"""Programs as text for people, and excerpts with places marked, for messages."""

from __future__ import annotations

from typing import Any, assert_never

from ..errors import mark_lines
from .expr import (
    Add,
    And,
    BinaryExpr,
    Broadcast,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Max,
    Min,
    Not,
    Or,
    Ramp,
    Select,
    Sub,
    Var,
)
from .graph import Binding, Cond, ConstRef, FuncCall, Function, OpCall, Scan, Value
from .module import IRModule
from .names import printable_name, unique_name
from .node import Node
from .primfunc import PrimFunc
from .query import conjuncts
from .stmt import Allocate, Block, For, If, Let, Prefetch, Seq, Stmt, Store, Sync

_PRECEDENCE = {"or": 1, "and": 2, "==": 4, "!=": 4, "<": 4, "<=": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
_INFIX = {"bitand": "&", "bitor": "|", "bitxor": "^", "shl": "<<", "shr": ">>"}


class Printer:
    """Collects the lines of a program and which node each line shows.

    Names that clash are told apart by a number behind them.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.nodes: dict[int, int] = {}
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()

    def name(self, x: Any) -> str:
        known = self._names.get(x)
        if known is None:
            known = self._names[x] = unique_name(printable_name(x.name), self._taken)
        return known

    def emit(self, depth: int, line: str, *nodes: Any) -> None:
        for n in nodes:
            self.nodes.setdefault(id(n), len(self.lines))
        self.lines.append("  " * depth + line)

    # expressions

    def expr(self, e: Expr, outer: int = 0) -> str:
        match e:
            case Const():
                return self._const(e)
            case Var():
                return self.name(e)
            case Min() | Max():
                return f"{e.symbol}({self.expr(e.a)}, {self.expr(e.b)})"
            case BinaryExpr():
                level = _PRECEDENCE[e.symbol]
                tight = level + (0 if isinstance(e, (Add, Sub, And, Or)) and not isinstance(e, Sub) else 1)
                text = f"{self.expr(e.a, level)} {e.symbol} {self.expr(e.b, tight)}"
                return f"({text})" if level < outer else text
            case Load():
                mask = f" if {self.expr(e.mask)}" if e.mask is not None else ""
                return f"{self.name(e.buffer)}[{self._indices(e.indices)}{mask}]"
            case Call() if e.op in _INFIX:
                return f"({self.expr(e.args[0], 7)} {_INFIX[e.op]} {self.expr(e.args[1], 7)})"
            case Call():
                target = f", {e.dtype}" if e.op == "bitcast" else ""
                return f"{e.op}({', '.join(map(self.expr, e.args))}{target})"
            case Cast():
                return f"{e.dtype}({self.expr(e.value)})"
            case Select():
                return f"select({self.expr(e.cond)}, {self.expr(e.then)}, {self.expr(e.orelse)})"
            case Not():
                return f"not ({self.expr(e.a)})"
            case Ramp():
                return f"ramp({self.expr(e.base)}, {self.expr(e.stride)}, {e.lanes})"
            case Broadcast():
                return f"broadcast({self.expr(e.value)}, {e.lanes})"
            case _:
                return self._foreign(e)

    def _foreign(self, e: Any) -> str:
        """Expressions of other rooms bring their own text: `__text__(expr -> str)`."""
        show = getattr(e, "__text__", None)
        return show(self.expr) if show else repr(e)

    def _const(self, e: Const) -> str:
        if e.dtype.is_bool:
            return "True" if e.value else "False"
        if e.dtype.is_float:
            digits = f"{e.value:.9g}" if e.dtype.bits <= 32 else repr(e.value)
            digits += ".0" if digits.lstrip("-").isdigit() else ""
            return digits if e.dtype.name == "float32" else f"{e.dtype}({digits})"
        return str(e.value) if e.dtype.name == "int64" else f"{e.dtype}({e.value})"

    def _indices(self, indices: tuple[Expr, ...]) -> str:
        return ", ".join(map(self.expr, indices))

    def buffer_type(self, b: Buffer) -> str:
        extra = "" if b.scope == "global" else f", {b.scope}"
        strides = "" if b.strides is None else f", strides=({self._indices(b.strides)})"
        rules = "".join(f", stride of axis {d} = {o} mod {f}" for d, f, o in b.stride_rules)
        return f"{b.dtype}[{self._indices(b.shape)}]{extra}{strides}{rules}"

    # statements

    def stmt(self, s: Stmt, depth: int) -> None:
        match s:
            case For():
                kind = "" if s.kind == "serial" else f"{s.thread or s.kind}: "
                notes = "".join(f"  # {k}={v}" for k, v in s.annotations.items())
                self.emit(depth, f"for {self.name(s.var)} in {kind}range({self.expr(s.extent)}):{notes}", s, s.var)
                self.stmt(s.body, depth + 1)
            case Block():
                self._block(s, depth)
            case Store():
                mask = f" if {self.expr(s.mask)}" if s.mask is not None else ""
                self.emit(
                    depth,
                    f"{self.name(s.buffer)}[{self._indices(s.indices)}] = {self.expr(s.value)}{mask}",
                    s,
                    s.buffer,
                )
            case Seq():
                for x in s.stmts:
                    self.stmt(x, depth)
                if not s.stmts:
                    self.emit(depth, "pass", s)
            case If():
                self.emit(depth, f"if {self.expr(s.cond)}:", s)
                self.stmt(s.then, depth + 1)
                if s.orelse is not None:
                    self.emit(depth, "else:")
                    self.stmt(s.orelse, depth + 1)
            case Let():
                self.emit(depth, f"{self.name(s.var)} = {self.expr(s.value)}", s, s.var)
                self.stmt(s.body, depth)
            case Prefetch():
                self.emit(depth, f"prefetch {self.name(s.buffer)}[{self._indices(s.indices)}]", s)
            case Sync():
                self.emit(depth, f"sync {s.scope}", s)
            case Allocate():
                self.emit(depth, f"{self.name(s.buffer)} = alloc({self.buffer_type(s.buffer)})", s, s.buffer)
                self.stmt(s.body, depth)
            case _:
                raise TypeError(f"not a statement: {s!r}")

    def _block(self, s: Block, depth: int) -> None:
        iters = []
        for it in s.iters:
            kind = "reduce" if it.kind == "reduce" else "over"
            iters.append(f"{self.name(it.var)} {kind} {self.expr(it.extent)} = {self.expr(it.binding)}")
        where = f" where {' and '.join(self.expr(c, 3) for c in conjuncts(s.where))}" if s.where is not None else ""
        notes = "".join(f"  # {k}={v}" for k, v in s.annotations.items())
        self.emit(
            depth,
            f"block {printable_name(s.name)}({'; '.join(iters)}){where}:{notes}",
            s,
            s.name,
            *(it.var for it in s.iters),
        )
        if s.init is not None:
            self.emit(depth + 1, "init:")
            self.stmt(s.init, depth + 2)
        self.stmt(s.body, depth + 1)

    # functions

    def primfunc(self, f: PrimFunc) -> None:
        outputs = set(f.outputs)
        params = []
        for p in f.params:
            if isinstance(p, Var):
                params.append(f"{self.name(p)}: {p.dtype}")
            else:
                params.append(f"{'out ' if p in outputs else ''}{self.name(p)}: {self.buffer_type(p)}")
        self.emit(0, f"def {printable_name(f.name)}({', '.join(params)}):", f)
        for b in f.allocs:
            self.emit(1, f"{self.name(b)} = alloc({self.buffer_type(b)})", b)
        self.stmt(f.body, 1)

    def function(self, f: Function) -> None:
        params = ", ".join(
            [*(f"{self.name(p)}: {p.type}" for p in f.params), *(f"{d.name}: {d.dtype}" for d in f.dims)]
        )
        results = ", ".join(str(r.type) for r in f.results)
        self.emit(0, f"graph {printable_name(f.name)}({params}) -> {results}:", f)
        for b in f.bindings:
            self.binding(b)
        self.emit(1, f"return {', '.join(self._operand(r) for r in f.results)}")

    def binding(self, b: Binding) -> None:
        args = [self._operand(a) for a in b.call.args]
        if isinstance(b.call, OpCall):
            args += [f"{k}={v!r}" if not hasattr(v, "lanes") else f"{k}={v}" for k, v in b.call.attrs.items()]
        if isinstance(b.call, FuncCall):
            args += [self.expr(e) for e in b.call.dims]
        if isinstance(b.call, Scan):
            args = self._scan_args(b.call)
        names = ", ".join(f"{self.name(r)}: {r.type}" for r in b.results)
        origin = f"  # {printable_name(b.origin)}" if b.origin else ""
        self.emit(1, f"{names} = {_head(b.call)}({', '.join(args)}){origin}", b, *b.results)

    def _scan_args(self, call: Scan) -> list[str]:
        """The arguments of a scan, each group with its role."""
        groups = {"": call.args[: call.num_carried], "over": call.scanned, "with": call.captured}
        args = [
            ", ".join(map(self._operand, group)) if not role else f"{role}=({', '.join(map(self._operand, group))})"
            for role, group in groups.items()
            if group
        ]
        count = [f"count={self._operand(call.args[-1])}"] if call.has_count else []
        length = call.length if isinstance(call.length, int) else self.expr(call.length)
        return [*args, f"length={length}", *count, *(["reverse=True"] if call.reverse else [])]

    def _operand(self, a: Value | ConstRef) -> str:
        return f"const {a.name}" if isinstance(a, ConstRef) else self.name(a)

    def module(self, m: IRModule) -> None:
        for name, array in m.constants.items():
            self.emit(0, f"const {name}: {array.dtype}{list(array.shape)}")
        for f in m.functions.values():
            if self.lines:
                self.emit(0, "")
            inner = Printer()
            inner.node(f)
            self.lines += inner.lines

    def node(self, x: Node) -> None:
        match x:
            case PrimFunc():
                self.primfunc(x)
            case Function():
                self.function(x)
            case IRModule():
                self.module(x)
            case Binding():
                self.binding(x)
            case Stmt():
                self.stmt(x, 0)
            case OpCall() | FuncCall() | Scan() | Cond():
                self.emit(0, f"{_head(x)}({', '.join(self._operand(a) for a in x.args)})")
            case Buffer():
                self.emit(0, f"{printable_name(x.name)}: {self.buffer_type(x)}")
            case Value():
                self.emit(0, f"{printable_name(x.name)}: {x.type}")
            case Expr():
                self.emit(0, self.expr(x))
            case _:
                self.emit(0, repr(x))


def _head(call: OpCall | FuncCall | Scan | Cond) -> str:
    """What is called."""
    match call:
        case OpCall():
            return call.op
        case FuncCall():
            return f"@{call.callee}"
        case Scan():
            return f"scan @{call.body}"
        case Cond():
            return f"cond @{call.then} else @{call.orelse}"
        case _:
            assert_never(call)


def text(x: Node) -> str:
    """A program, a part of one, or an expression as text for people."""
    printer = Printer()
    printer.node(x)
    return "\n".join(printer.lines)


def excerpt(x: Node, marks: dict[Any, str], context: int = 4) -> str:
    """The lines of a program around some nodes, each with its note behind a `# <-`.

    Args:
        marks: notes by node: a statement, a loop variable, a buffer, a block name's Block.
    """
    printer = Printer()
    printer.node(x)
    lines = {printer.nodes[id(n)]: note for n, note in marks.items() if id(n) in printer.nodes}
    return mark_lines(printer.lines, lines, context)
