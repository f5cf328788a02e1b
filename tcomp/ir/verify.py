"""What a well-formed program is, at each level. Messages point into the printed text."""

from __future__ import annotations

from ..errors import VerifyError
from .expr import Buffer, Const, Expr, Load, Var
from .graph import Binding, Cond, ConstRef, FuncCall, Function, Scan, Value
from .module import IRModule
from .node import walk
from .primfunc import PrimFunc
from .printer import excerpt
from .query import free_vars
from .stmt import Allocate, Block, For, If, Let, Prefetch, Seq, Stmt, Store


def verify(x: IRModule | Function | PrimFunc) -> None:
    """Check a program.

    Raises:
        VerifyError: it is not well formed; the excerpt marks the place.
    """
    match x:
        case IRModule():
            for name, f in x.functions.items():
                if name != f.name:
                    raise VerifyError(f"the module calls a function {name!r} that calls itself {f.name!r}")
                verify(f)
                if isinstance(f, Function):
                    _verify_references(x, f)
        case Function():
            _verify_graph(x)
        case PrimFunc():
            _PrimFuncVerifier(x).run()


def _verify_graph(f: Function) -> None:
    defined: set[Value] = set()

    def define(value: Value, place: object) -> None:
        if value in defined:
            raise VerifyError(f"value {value.name} is defined twice", excerpt=excerpt(f, {place: "again here"}))
        defined.add(value)

    for p in f.params:
        define(p, f)
    for b in f.bindings:
        for arg in b.call.args:
            if isinstance(arg, Value) and arg not in defined:
                raise VerifyError(
                    f"value {arg.name} is used before it is defined", excerpt=excerpt(f, {b: f"uses {arg.name}"})
                )
        for r in b.results:
            define(r, b)
    for out in f.results:
        if isinstance(out, Value) and out not in defined:
            raise VerifyError(f"result {out.name} of {f.name} is never defined", excerpt=excerpt(f, {f: "here"}))


def _verify_references(m: IRModule, f: Function) -> None:
    for b in f.bindings:
        if isinstance(b.call, FuncCall) and b.call.callee not in m.functions:
            raise VerifyError(f"no function {b.call.callee!r} in the module", excerpt=excerpt(f, {b: "called here"}))
        if isinstance(b.call, (Scan, Cond)):
            for body in b.call.bodies:
                why = _misfit(m.functions.get(body), b)
                if why:
                    raise VerifyError(f"it cannot run {body!r}: {why}", excerpt=excerpt(f, {b: "here"}))
        for arg in b.call.args:
            if isinstance(arg, ConstRef):
                array = m.constants.get(arg.name)
                if array is None or tuple(array.shape) != arg.type.shape or array.dtype != arg.type.dtype.numpy:
                    have = "is missing" if array is None else f"is {array.dtype}{list(array.shape)}"
                    raise VerifyError(
                        f"constant {arg.name} should be {arg.type} but {have}", excerpt=excerpt(f, {b: "used here"})
                    )


def _misfit(body: Function | PrimFunc | None, b: Binding) -> str:
    """Why a graph function cannot be run by a scan or a cond; empty where it can."""
    if not isinstance(body, Function):
        return "the module has no such graph function"
    call = b.call
    assert isinstance(call, (Scan, Cond))
    given = [a.type for a in call.inputs]
    made = [r.type for r in b.results]
    if isinstance(call, Scan):
        end = call.num_carried + call.num_scanned
        if len(given) < end or any(t.shape[:1] != (call.length,) for t in given[call.num_carried : end]):
            return f"the scanned tensors do not have {call.length} rows"
        given[call.num_carried : end] = [t.row for t in given[call.num_carried : end]]
        if any(t.shape[:1] != (call.length,) for t in made[call.num_carried :]):
            return f"the stacked results do not have {call.length} rows"
        if made[: call.num_carried] != given[: call.num_carried]:
            return "the carried tensors change their types"
        made[call.num_carried :] = [t.row for t in made[call.num_carried :]]
    for what, wanted, types in (
        ("takes", [p.type for p in body.params], given),
        ("makes", [r.type for r in body.results], made),
    ):
        if wanted != types:
            return f"it {what} ({', '.join(map(str, wanted))}), not ({', '.join(map(str, types))})"
    return ""


class _PrimFuncVerifier:
    """Scopes of variables and buffers, unique loops and blocks, index counts and dtypes."""

    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.buffers: set[Buffer] = {*func.buffers, *func.allocs}
        self.bound: set[Var] = set(func.dims)
        self.blocks: set[str] = set()
        self.dims = set(func.dims)
        self.inside = ""

    def fail(self, what: str, place: object, note: str = "here") -> None:
        raise VerifyError(f"{self.func.name}: {what}", excerpt=excerpt(self.func, {place: note}))

    def run(self) -> None:
        for b in (*self.func.buffers, *self.func.allocs):
            for e in b.shape:
                if not free_vars(e) <= self.dims:
                    self.fail(f"the shape of {b.name} mentions a variable that is no parameter", b)
        self.stmt(self.func.body, frozenset(self.dims))

    def stmt(self, s: Stmt, scope: frozenset[Var]) -> None:
        match s:
            case Seq():
                for x in s.stmts:
                    self.stmt(x, scope)
            case For():
                self.bind(s.var, s)
                if not free_vars(s.extent) <= self.dims:
                    self.fail(f"the extent of loop {s.var.name} depends on another loop", s)
                self.stmt(s.body, scope | {s.var})
            case Block():
                if self.inside:
                    self.fail(f"block {s.name} stands inside block {self.inside}", s)
                self.block(s, scope)
            case Prefetch():
                for e in s.indices:
                    self.expr(e, scope, s)
                self.access(s.buffer, s.indices, s)
            case Store():
                for e in (*s.indices, s.value, *(() if s.mask is None else (s.mask,))):
                    self.expr(e, scope, s)
                self.access(s.buffer, s.indices, s)
                if s.buffer in self.func.inputs:
                    self.fail(f"it writes to {s.buffer.name}, an input", s)
                if s.value.dtype.element != s.buffer.dtype:
                    self.fail(f"a {s.value.dtype} value is stored in {s.buffer.name}, which is {s.buffer.dtype}", s)
            case If():
                self.expr(s.cond, scope, s)
                self.stmt(s.then, scope)
                if s.orelse is not None:
                    self.stmt(s.orelse, scope)
            case Let():
                self.expr(s.value, scope, s)
                self.bind(s.var, s)
                self.stmt(s.body, scope | {s.var})
            case Allocate():
                if s.buffer in self.buffers:
                    self.fail(f"buffer {s.buffer.name} is allocated twice", s)
                self.buffers.add(s.buffer)
                self.stmt(s.body, scope)

    def block(self, s: Block, scope: frozenset[Var]) -> None:
        if s.name in self.blocks:
            self.fail(f"two blocks are named {s.name}", s)
        self.blocks.add(s.name)
        for it in s.iters:
            self.expr(it.binding, scope, s)
            self.bind(it.var, s)
        if s.where is not None:
            self.expr(s.where, scope, s)
        inner = frozenset(it.var for it in s.iters) | self.dims
        self.inside = s.name
        if s.init is not None:
            if not s.is_reduction:
                self.fail(f"block {s.name} has an init but no reduce iterator", s)
            self.stmt(s.init, inner)
        self.stmt(s.body, inner)
        self.inside = ""

    def bind(self, var: Var, place: object) -> None:
        if var in self.bound:
            self.fail(f"variable {var.name} is bound twice", place)
        self.bound.add(var)

    def expr(self, e: Expr, scope: frozenset[Var], place: Stmt) -> None:
        for x in walk(e):
            if type(x) is Const:
                continue
            if type(x) is Var:
                if x not in scope:
                    self.fail(f"variable {x.name} is used outside the loop or block that binds it", place)
            elif type(x) is Load:
                self.access(x.buffer, x.indices, place)
            elif not isinstance(x, Expr):
                self.fail(f"{type(x).__name__} stands where an expression should", place)

    def access(self, buffer: Buffer, indices: tuple[Expr, ...], place: Stmt) -> None:
        if buffer not in self.buffers:
            self.fail(f"buffer {buffer.name} is neither a parameter nor allocated", place)
        if len(indices) != buffer.ndim:
            self.fail(f"{buffer.name} has {buffer.ndim} dimensions but {len(indices)} indices", place)
        if any(not i.dtype.is_int for i in indices):
            self.fail(f"an index of {buffer.name} is not an integer", place)
