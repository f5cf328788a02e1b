"""A kernel with its symbolic extents at their largest: what rules that plan by numbers look at."""

from __future__ import annotations

from typing import Any

from .arith import simplify
from .expr import Buffer, Expr, Var, const
from .node import Node, rewrite, substitute, with_fields
from .primfunc import PrimFunc
from .stmt import For, IterVar


def at_largest(func: PrimFunc) -> PrimFunc:
    """The same loops, blocks and names over buffers of known shapes. The kernel itself where its extents have no bounds (the attribute
    `dim_max`)."""
    bounds = func.attrs.get("dim_max", ())
    if not func.dims or len(bounds) != len(func.dims):
        return func
    sizes: dict[Any, Any] = {v: const(n) for v, n in zip(func.dims, bounds)}

    def known(e: Expr) -> Expr:
        return simplify(substitute(e, sizes))

    def buffer(b: Buffer) -> Buffer:
        return with_fields(
            b, shape=tuple(map(known, b.shape)), strides=None if b.strides is None else tuple(map(known, b.strides))
        )

    buffers = {b: buffer(b) for b in (*func.buffers, *func.allocs)}

    def post(x: Node) -> Node:
        return with_fields(x, extent=simplify(x.extent)) if isinstance(x, (For, IterVar)) else x

    body = rewrite(substitute(func.body, {**sizes, **buffers}), post)
    params = tuple(buffers[p] for p in func.params if not isinstance(p, Var))
    allocs = tuple(buffers[b] for b in func.allocs)
    return with_fields(func, params=params, body=body, allocs=allocs)
