"""Maps between index spaces: (i, j) -> (i // 16, j, i % 16)."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ExprError
from .expr import Add, BinaryExpr, Const, Expr, FloorDiv, FloorMod, Mul, Sub, Var, as_index, binary, const
from .node import Node, node, substitute, walk
from .query import int_of

_OPERATORS = {ast.Add: Add, ast.Sub: Sub, ast.Mult: Mul, ast.FloorDiv: FloorDiv, ast.Mod: FloorMod}


@node
class IndexMap(Node):
    """An integer function of several indices.

    Attributes:
        params: the source's indices; exprs: the target's, in terms of these.
    """

    params: tuple[Var, ...]
    exprs: tuple[Expr, ...]

    @staticmethod
    def parse(source: IndexMap | str | Callable[..., Any], ndim: int | None = None) -> IndexMap:
        """The map that a function, or its text, describes.

        Args:
            source: a function of indices that returns an index or a tuple of them; or Python text such as
                "lambda i, j: (i // 16, j, i % 16)", in which only + - * // % and integers may occur.
            ndim: how many indices it must take.

        Raises:
            ExprError: the text is something else, or the number of indices is wrong.
        """
        if isinstance(source, str):
            result = _parse_text(source)
        elif isinstance(source, IndexMap):
            result = source
        elif callable(source):
            names: list[str | None] = [
                p.name if p.kind is not p.VAR_POSITIONAL else None
                for p in inspect.signature(source).parameters.values()
            ]
            if None in names:
                names = [*(n for n in names if n), *(f"i{d}" for d in range(len(names) - 1, ndim or 0))]
            params = tuple(Var(n) for n in names if n)
            raw = source(*params)
            result = IndexMap(params, tuple(as_index(e) for e in (raw if isinstance(raw, (tuple, list)) else (raw,))))
        else:
            raise ExprError(f"{source!r} is no index map", hint="lambda i, j: (i // 16, j, i % 16)")
        if ndim is not None and len(result.params) != ndim:
            raise ExprError(f"the index map {result} takes {len(result.params)} indices, here there are {ndim}")
        for e in result.exprs:
            for x in walk(e):
                if not isinstance(x, (Var, Const, Add, Sub, Mul, FloorDiv, FloorMod)):
                    raise ExprError(f"an index map is made of + - * // %, not {type(x).__name__}")
        return result

    def __str__(self) -> str:
        names = ", ".join(v.name for v in self.params)
        return f"lambda {names}: ({', '.join(map(_show, self.exprs))},)"

    def __call__(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        """The map of some indices."""
        at = dict(zip(self.params, indices))
        return tuple(substitute(e, at) for e in self.exprs)


def _show(e: Expr) -> str:
    if isinstance(e, BinaryExpr):
        return f"({_show(e.a)} {e.symbol} {_show(e.b)})"
    return e.name if isinstance(e, Var) else str(int_of(e))


def _parse_text(text: str) -> IndexMap:
    wrong = ExprError(f"{text!r} is no index map", hint='"lambda i, j: (i // 16, j, i % 16)"')
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not isinstance(tree, ast.Lambda):
        raise wrong
    params = {a.arg: Var(a.arg) for a in tree.args.args}

    def visit(x: ast.expr) -> Expr:
        match x:
            case ast.BinOp() if type(x.op) in _OPERATORS:
                return binary(_OPERATORS[type(x.op)], visit(x.left), visit(x.right))
            case ast.UnaryOp(op=ast.USub()):
                return binary(Sub, const(0), visit(x.operand))
            case ast.Constant(value=int()) if not isinstance(x.value, bool):
                return const(x.value)
            case ast.Name() if x.id in params:
                return params[x.id]
        raise wrong

    items = tree.body.elts if isinstance(tree.body, ast.Tuple) else [tree.body]
    try:
        return IndexMap(tuple(params.values()), tuple(visit(x) for x in items))
    except RecursionError:
        raise wrong from None
