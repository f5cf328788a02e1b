"""A lowered PrimFunc -> a C function."""

from __future__ import annotations

import re

from ...errors import InternalError
from ...ir.expr import Buffer, Const, Expr, Load, Var
from ...ir.names import plain_name, printable_name, unique_name
from ...ir.node import walk
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Allocate, For, If, Let, Prefetch, Seq, Stmt, Store, Sync, walk_statements
from .expr import ExprPrinter
from .types import element_type, scalar_type
from .vectors import Vectors

STACK_LIMIT = 64 * 1024
"""Buffers of up to this many bytes live on the stack, larger ones come from tcomp_take."""
WORDS = (
    r"auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|restrict|return|"
    r"short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while|[a-z]+\d*_t|[A-Z]+|(i|u|f|bf)(8|16|32|64)(x\d+)?(_.*)?|m\d+(_.*)?|t\d+|"
    r"tcomp_.*|context|begin|end"
)
"""Words that are C's, or this file's own."""
_RESERVED = re.compile(WORDS)


def kernel_function(func: PrimFunc, name: str, vectors: Vectors, comment: str = "") -> str:
    """The text of `static void name(...)`, taking a pointer for each buffer and an int64_t for each extent; functions for its parallel loops
    stand before it.

    Args:
        func: a function that went through all lowering steps. vectors: gets what the text uses.
    """
    return KernelPrinter(func, name, vectors).function_text(comment)


class KernelPrinter(ExprPrinter):
    """Writes statements.

    Attributes:
        index_type: of loop variables. reserved: words that are not free for names.
    """

    index_type = "int64_t"
    reserved = _RESERVED

    def __init__(self, func: PrimFunc, name: str, vectors: Vectors) -> None:
        super().__init__(vectors)
        self.func, self.name = func, name
        self.aliased = frozenset(func.params[i] for pair in func.attrs.get("aliases", ()) for i in pair)
        self.written = {s.buffer for s in walk_statements(func.body) if isinstance(s, Store)}
        self.names: set[str] = set()
        self.helpers: list[str] = []

    def function_text(self, comment: str) -> str:
        params = []
        for p in self.func.params:
            word = self._name(p.name)
            if isinstance(p, Buffer):
                self.buffers[p] = word
                params.append(self._pointer(p, word))
            else:
                self.variables[p] = word
                params.append(f"int64_t {word}")
        used = {*_used(self.func.body, Var), *_used(self.func.body, Buffer)}
        for p, word in ({**self.buffers, **self.variables}).items():
            if p not in used:
                self.line(f"(void){word};")
        self.stmt(self.func.body)
        head = f"/* {printable_name(comment).replace('*/', '* /')} */\n" if comment else ""
        body = "\n".join(self.lines)
        own = f"{head}{self.head()} {self.name}({', '.join(params) or 'void'}) {{\n{body}\n}}\n"
        return "\n".join([*self.helpers, own])

    def head(self) -> str:
        """What stands before the function's name."""
        return "KERNEL void"

    def _name(self, word: str) -> str:
        plain = plain_name(word).replace(".", "_")
        if not re.match(r"[A-Za-z_]", plain) or self.reserved.fullmatch(plain):
            plain = f"{plain}_" if re.match(r"[A-Za-z_]", plain) else f"x{plain}"
        return unique_name(plain, self.names)

    def _pointer(self, b: Buffer, word: str) -> str:
        const = "" if b in self.written else "const "
        return f"{const}{element_type(b.dtype)} *{'' if b in self.aliased else 'RESTRICT '}{word}"

    # statements

    def stmt(self, s: Stmt) -> None:
        match s:
            case Seq(stmts):
                for x in stmts:
                    self.stmt(x)
            case Store():
                self.store(s)
            case For():
                self.parallel(s) if s.kind == "parallel" else self.loop(s)
            case If():
                self.branch(s)
            case Let():
                value = self.bare(s.value)
                self.variables[s.var] = self._name(s.var.name)
                if self.is_natural(s.value):
                    self.naturals.add(s.var)
                self.line(f"const {self.type_of(s.value)} {self.variables[s.var]} = {value};")
                self.stmt(s.body)
            case Prefetch():
                self.line(f"PREFETCH({self.buffers[s.buffer]} + ({self.bare(s.indices[0])}), {s.level});")
            case Allocate():
                self.allocate(s)
            case Sync():
                pass  # bound loops run one after another
            case _:
                raise InternalError(f"no C code for {type(s).__name__}")

    def bare(self, e: Expr) -> str:
        """An expression at a place where memory may have changed since the last."""
        self.forget()
        text = self.text(e)
        self.forget()
        return text

    def block(self, head: str, body: Stmt, end: str = "}") -> None:
        self.line(f"{head}{{")
        with self.scope():
            self.stmt(body)
        self.line(end)

    def loop(self, s: For) -> None:
        word = self._name(s.var.name)
        extent = self.bare(s.extent)
        self.variables[s.var] = word
        self.naturals.add(s.var)
        self.block(f"for ({self.index_type} {word} = 0; {word} < {extent}; {word}++) ", s.body)

    def branch(self, s: If) -> None:
        cond = self.bare(s.cond)
        self.block(f"if ({cond}) ", s.then)
        if s.orelse is not None:
            self.block("else ", s.orelse)

    def allocate(self, s: Allocate) -> None:
        b, (size,) = s.buffer, s.buffer.shape
        word, t = self._name(b.name), element_type(b.dtype)
        self.buffers[b] = word
        if isinstance(size, Const) and size.value * b.dtype.itemsize <= STACK_LIMIT:
            self.line("{")
            with self.scope():
                self.line(f"{t} {word}[{max(size.value, 1)}] ALIGNED;")
                self.stmt(s.body)
        else:
            nbytes = self.bare(size)
            self.line("{")
            with self.scope():
                self.line(f"{t} *RESTRICT {word} = tcomp_take(({nbytes}) * (int64_t)sizeof *{word});")
                self.block(f"if ({word}) ", s.body)
                self.line(f"tcomp_give({word});")
        self.line("}")

    def store(self, s: Store) -> None:
        self.forget()
        (index,) = s.indices
        d = s.value.dtype
        value = self.text(s.value)
        if index.dtype.lanes == 1:
            place = f"{self.buffers[s.buffer]}[{self.text(index)}]"
            if s.mask is not None:
                place = f"if ({self.text(s.mask)}) {place}"
            self.line(f"{place} = {value};")
        else:
            how, first, more = self.place(s.buffer, index)
            mask, scalar = self.masks(s.mask)
            call = self.call(self.vectors.store(d, how, bool(mask)), self.address(s.buffer, first), *more, value, *mask)
            self.line(f"{call.text};" if scalar is None else f"if ({self.text(scalar)}) {call.text};")
        self.forget()

    def parallel(self, s: For) -> None:
        """The body becomes a function of a range of iterations, which any thread may run; what it uses is handed over in a struct."""
        variables = [v for v in _used(s, Var) if v in self.variables]
        buffers = [b for b in _used(s, Buffer) if b in self.buffers]
        extent = self.bare(s.extent)
        name = f"{self.name}_{len(self.helpers)}"
        inner = KernelPrinter(self.func, name, self.vectors)
        fields, params, args = [], [], []
        for v in variables:
            word = inner.variables[v] = inner._name(v.name)
            fields.append(f"{scalar_type(v.dtype)} {word}")
            params.append(fields[-1])
            args.append(f"c->{word}")
        for b in buffers:
            word = inner.buffers[b] = inner._name(b.name)
            fields.append(f"{'' if b in self.written else 'const '}{element_type(b.dtype)} *{word}")
            params.append(self._pointer(b, word))
            args.append(f"c->{word}")
        index = inner.variables[s.var] = inner._name(s.var.name)
        inner.naturals = {*self.naturals, s.var}
        inner.block(f"for (int64_t {index} = begin; {index} < end; {index}++) ", s.body)
        self.helpers += inner.helpers
        self.helpers.append(
            f"struct {name} {{ {' '.join(f'{x};' for x in fields or ['char none'])} }};\n"
            f"KERNEL void {name}_range({', '.join([*params, 'int64_t begin', 'int64_t end'])}) {{\n" + "\n".join(inner.lines) + "\n}\n"
            f"static void {name}(void *context, int64_t begin, int64_t end) {{\n  const struct {name} *c = context;\n"
            f"{'' if fields else '  (void)c;'}  {name}_range({', '.join([*args, 'begin', 'end'])});\n}}\n"
        )  # fmt: skip
        given = [*(self.variables[v] for v in variables), *(self.buffers[b] for b in buffers)]
        self.line("{")
        self.line(f"  struct {name} context = {{{', '.join(given) or '0'}}};")
        self.line(f"  tcomp_parallel_for({extent}, {name}, &context);")
        self.line("}")


def _used(s: Stmt, kind: type) -> list:
    """The variables, or the buffers, that a statement uses, in order."""
    found: dict = {}
    for x in walk(s):
        if isinstance(x, Var) and kind is Var:
            found[x] = None
        elif isinstance(x, (Store, Load, Prefetch)) and kind is Buffer:
            found[x.buffer] = None
    return list(found)
