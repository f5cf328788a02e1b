"""Vectorized loops -> vector expressions: ramps, broadcasts and masks."""

from __future__ import annotations

from math import gcd

from ...dtype import int64
from ...errors import InternalError
from ...ir.arith import dims_env, interval, linear, simplify
from ...ir.expr import (
    LE,
    LT,
    BinaryExpr,
    Broadcast,
    Call,
    Cast,
    CompareExpr,
    Const,
    Expr,
    Load,
    Not,
    Ramp,
    Select,
    Var,
    const,
)
from ...ir.node import rewrite, substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars
from ...ir.stmt import Allocate, For, If, Let, Prefetch, Seq, Stmt, Store, Sync, map_statements, seq
from .common import Env, extend


def vectorize_loops(func: PrimFunc) -> PrimFunc:
    """Run each vectorized loop's iterations in the lanes of vectors.

    An offset that is linear in the loop variable becomes a ramp (contiguous where the stride is 1); conditions on the
    loop variable become masks of the loads and stores that they guard. A loop of which conditions let a single lane store to a place
    that is the same for all runs iteration by iteration.
    """

    def visit(s: Stmt, env: Env) -> Stmt:
        if isinstance(s, (For, Let)):
            inner = extend(env, s)
            if isinstance(s, For) and s.kind == "vectorized":
                try:
                    return _Vectorizer(s.var, s.extent.value, inner).stmt(s.body, None)
                except _OnePlace:
                    return with_fields(s, kind="serial")
            return map_statements(s, lambda x: visit(x, inner))
        return map_statements(s, lambda x: visit(x, env))

    return with_fields(func, body=visit(func.body, dims_env(func.dims)))


class _OnePlace(Exception):
    """Lanes store values of their own to one element: no two of them are on, or the schedule would have been refused."""


class _Vectorizer:
    def __init__(self, var: Var, lanes: int, env: Env) -> None:
        self.env = env
        self.var = var
        self.lanes = lanes
        self.vectors: dict[Var, Var] = {}

    def varies(self, e: Expr) -> bool:
        used = free_vars(e)
        return self.var in used or bool(used & self.vectors.keys())

    def wide(self, e: Expr, mask: Expr | None) -> Expr:
        """The expression in all lanes."""
        return self.widened(self.expr(e, mask))

    def widened(self, v: Expr) -> Expr:
        return v if v.dtype.lanes == self.lanes else Broadcast(v, self.lanes)

    def is_alike(self, e: CompareExpr) -> bool:
        """Whether a comparison of integers comes out alike in all lanes, though its sides differ: where it is of x + lane with 0, x a multiple of
        the number of lanes, as at the end of rows of which the vectors are whole parts."""
        if e.a.dtype != int64 or not isinstance(e, (LT, LE)):
            return False
        form = linear(e.a - e.b, self.env)
        step = form.terms.get(self.var, 0)
        rest = form.without(self.var)
        if not step or any(self.varies(t) for t in rest.terms):
            return False
        ends = (0, step * (self.lanes - 1))
        grain = gcd(*rest.terms.values())
        # values below 0 (or up to 0) lie on one side of a multiple of the grain, and all lanes between two of them
        first = (rest.constant + min(ends) - isinstance(e, LE)) // grain if grain else 0
        last = (rest.constant + max(ends) - isinstance(e, LE)) // grain if grain else 0
        return bool(grain) and first == last

    def expr(self, e: Expr, mask: Expr | None) -> Expr:
        """The expression: a vector where it varies between lanes, else the scalar itself."""
        if not self.varies(e):
            return e if mask is None else self.uniform(e, mask)
        if e.dtype.is_int and e.dtype.bits == 64:
            form = linear(e)
            stride = form.terms.get(self.var, 0)
            rest = form.without(self.var).expr()
            if stride and not self.varies(rest):
                return Ramp(rest, const(stride), self.lanes)
        if isinstance(e, CompareExpr) and self.is_alike(e):
            return self.expr(simplify(substitute(e, {self.var: const(0)}), self.env), mask)
        match e:
            case Var():
                return self.vectors[e]
            case Load():
                return self.load(e, mask)
            case BinaryExpr():
                a, b = self.expr(e.a, mask), self.expr(e.b, mask)
                if a.dtype.lanes == b.dtype.lanes == 1:  # conditions that are alike in all lanes
                    return type(e)(a, b)
                return type(e)(self.widened(a), self.widened(b))
            case Not():
                return Not(self.expr(e.a, mask))
            case Select():
                return Select(self.wide(e.cond, mask), self.wide(e.then, mask), self.wide(e.orelse, mask))
            case Cast():
                return Cast(e.dtype.with_lanes(self.lanes), self.wide(e.value, mask))
            case Call():
                return Call(e.op, tuple(self.wide(a, mask) for a in e.args), e.dtype.with_lanes(self.lanes))
            case _:
                raise InternalError(f"vectorize: cannot widen {type(e).__name__}")

    def uniform(self, e: Expr, mask: Expr) -> Expr:
        """What all lanes share. A load that might leave its buffer happens only where some lane is on."""

        def post(x: object) -> object:
            if isinstance(x, Load):
                low, high = interval(x.indices[0], self.env)
                size = x.buffer.shape[0]
                if low is None or low < 0 or high is None or not isinstance(size, Const) or high >= size.value:
                    on = _any_lane(mask)
                    return with_fields(x, mask=on if x.mask is None else on & x.mask)
            return x

        return rewrite(e, post)

    def load(self, e: Load, mask: Expr | None) -> Expr:
        own = None if e.mask is None else self.wide(e.mask, mask)  # it may load, too
        (index,) = e.indices
        both = own if mask is None else mask if own is None else own & mask
        return with_fields(e, indices=(self.wide(index, mask),), mask=both)

    def stmt(self, s: Stmt, mask: Expr | None) -> Stmt:
        match s:
            case Seq(stmts):
                return seq(self.stmt(x, mask) for x in stmts)
            case Store():
                return self.store(s, mask)
            case Sync():
                return s  # all lanes have come there
            case Prefetch():
                return substitute(s, {self.var: const(0)})  # the first lane's will do
            case For():
                self.env = extend(self.env, s)
                return with_fields(s, body=self.stmt(s.body, mask))
            case Allocate():
                return with_fields(s, body=self.stmt(s.body, mask))
            case If():
                return self.branch(s, mask)
            case Let():
                if not self.varies(s.value):
                    self.env = extend(self.env, s)
                    return with_fields(s, body=self.stmt(s.body, mask))
                wide = Var(s.var.name, s.var.dtype.with_lanes(self.lanes))
                value = self.wide(s.value, mask)
                self.vectors[s.var] = wide
                return Let(wide, value, self.stmt(s.body, mask))
            case _:
                raise InternalError(f"vectorize: unexpected {type(s).__name__}")

    def store(self, s: Store, mask: Expr | None) -> Stmt:
        (index,) = s.indices
        if not self.varies(index):
            if self.varies(s.value):
                raise _OnePlace
            return s if mask is None else If(_any_lane(mask), s)
        return with_fields(s, indices=(self.wide(index, mask),), value=self.wide(s.value, mask), mask=mask)

    def branch(self, s: If, mask: Expr | None) -> Stmt:
        if not self.varies(s.cond):
            then = self.stmt(s.then, mask)
            return with_fields(s, then=then, orelse=None if s.orelse is None else self.stmt(s.orelse, mask))
        found = [(c, self.expr(c, mask)) for c in conjuncts(s.cond)]
        alike = all_of([v for _, v in found if v.dtype.lanes == 1])
        if alike is not None and (s.orelse is None or all(v.dtype.lanes == 1 for _, v in found)):
            others = all_of([c for c, v in found if v.dtype.lanes > 1])
            then = self.stmt(s.then if others is None else If(others, s.then), mask)
            return If(alike, then, None if s.orelse is None else self.stmt(s.orelse, mask))
        cond = self.wide(s.cond, mask)
        then = self.stmt(s.then, cond if mask is None else mask & cond)
        if s.orelse is None:
            return then
        return seq([then, self.stmt(s.orelse, ~cond if mask is None else mask & ~cond)])


def _any_lane(mask: Expr) -> Expr:
    """Whether some lane is on: what does not vary between lanes is stored where any of them would."""
    return Call("any", (mask,), mask.dtype.element)
