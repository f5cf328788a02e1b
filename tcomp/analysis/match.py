"""Whether loops are those of a description, over other buffers: how a tensor intrinsic finds its operands."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from ..ir.arith import Env, linear, simplify
from ..ir.expr import Add, BinaryExpr, Buffer, Expr, Load, Mul, Var
from ..ir.node import Node, substitute
from ..ir.query import free_vars
from ..ir.stmt import For, Stmt, Store


class MismatchError(Exception):
    """Where the loops differ from the description."""


class Operand(NamedTuple):
    """What stands for a buffer of the description: a buffer, the index of the first element that is used, and, of a flat one, the elements from
    one row to the next (0 where the description tells them)."""

    buffer: Buffer
    index: tuple[Expr, ...]
    step: int


class _Matcher:
    def __init__(self, env: Env, apart: frozenset[str]) -> None:
        self.env, self.apart = dict(env), apart
        self.loops: dict[Var, Expr] = {}
        self.found: dict[Buffer, Operand] = {}

    def stmt(self, want: Stmt, have: Stmt) -> None:
        if isinstance(want, For) and isinstance(have, For):
            if want.extent != have.extent:
                raise MismatchError(f"loop {have.var.name} has another extent than the description's {want.var.name}")
            self.loops[want.var] = have.var
            self.stmt(want.body, have.body)
        elif isinstance(want, Store) and isinstance(have, Store) and have.mask is None:
            self.access(want.buffer, want.indices, have.buffer, have.indices)
            if not self.expr(want.value, have.value):
                raise MismatchError("what it stores is not what the description stores")
        else:
            raise MismatchError("the loops are nested otherwise than the description's")

    def access(self, want: Buffer, wi: tuple[Expr, ...], have: Buffer, hi: tuple[Expr, ...]) -> None:
        if want.dtype != have.dtype:
            raise MismatchError(f"{have.name} is {have.dtype}, the description's {want.name} is {want.dtype}")
        rank, step = len(wi), 0
        if want.name in self.apart and len(hi) == 1:
            hi, step = self.in_rows(want, wi, have, hi[0])
        if len(hi) < rank:
            raise MismatchError(f"{have.name} has fewer dimensions than the description's {want.name}")
        if want.name not in self.apart and have.shape[len(hi) - rank + 1 :] != want.shape[1:]:
            raise MismatchError(
                f"{have.name} does not lie in memory as the description's {want.name}: other inner extents"
            )
        lead = len(hi) - rank
        base = list(hi[:lead])
        for w, h in zip(wi, hi[lead:]):
            base.append(simplify(h - substitute(w, self.loops), self.env))
        inner = set(self.loops.values())
        if any(free_vars(b) & inner for b in base):
            raise MismatchError(f"{have.name} is not used along the loops as the description's {want.name}")
        here = Operand(have, tuple(base), step)
        if self.found.setdefault(want, here) != here:
            raise MismatchError(f"{have.name} is used at another place than the description's {want.name}")

    def in_rows(self, want: Buffer, wi: tuple[Expr, ...], have: Buffer, offset: Expr) -> tuple[tuple[Expr, ...], int]:
        """A flat index as a row and the offset without it, and how far the rows are apart."""
        row = substitute(wi[0], self.loops)
        form = linear(offset, self.env)
        step = form.terms.get(row, 0)
        if step <= 0:
            raise MismatchError(f"{have.name} has no rows as the description's {want.name}")
        return (row, form.without(row).expr()), step

    def expr(self, want: Expr, have: Expr) -> bool:
        if isinstance(want, Load) and isinstance(have, Load) and have.mask is None:
            self.access(want.buffer, want.indices, have.buffer, have.indices)
            return True
        if type(want) is not type(have):
            return False
        if isinstance(want, (Add, Mul)) and isinstance(have, BinaryExpr):
            before = dict(self.found)
            try:
                if self.expr(want.a, have.a) and self.expr(want.b, have.b):
                    return True
            except MismatchError:
                pass
            self.found = before
            return self.expr(want.a, have.b) and self.expr(want.b, have.a)
        for f in fields(want):
            x, y = getattr(want, f.name), getattr(have, f.name)
            if isinstance(x, tuple) and len(x) == len(y):
                if not all(self.expr(p, q) for p, q in zip(x, y)):
                    return False
            elif isinstance(x, Node):
                if not self.expr(x, y):
                    return False
            elif x != y:
                return False
        return True


def match(description: Stmt, stmt: Stmt, env: Env, apart: frozenset[str] = frozenset()) -> dict[str, Operand]:
    """What stands for the description's buffers, by their names.

    Args:
        apart: buffers of two dimensions whose rows may lie any number of elements apart.

    Raises:
        MismatchError: the statement computes something else, or over operands that lie otherwise in memory.
    """
    matcher = _Matcher(env, apart)
    matcher.stmt(description, stmt)
    return {want.name: operand for want, operand in matcher.found.items()}
