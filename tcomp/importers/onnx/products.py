"""Matrix products and what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import product, scaled
from .node import Node
from .table import MICROSOFT, converts


@converts("MatMul")
def matmul(c: Node) -> Operand:
    return product(c, c[0], c[1])


@converts("Gemm")
def gemm(c: Node) -> Operand:
    a, b = c[0], c[1]
    alpha, beta = c.attr("alpha", 1.0), c.attr("beta", 1.0)
    turned = (bool(c.attr("transA", 0)), bool(c.attr("transB", 0)))
    if a.type.ndim != 2 or b.type.ndim != 2:
        raise c.refuse(f"it takes two matrices, not {a.type} and {b.type}")
    y: Operand = c.g.op("matmul", a, b, transposed=turned)
    if alpha != 1.0:
        y = scaled(c, y, alpha)
    if c.has(2) and beta != 0.0:
        y = c.g.op("add", y, c[2] if beta == 1.0 else scaled(c, c[2], beta))
    return y


@converts("FusedMatMul", domain=MICROSOFT)
def fused_matmul(c: Node) -> Operand:
    turned = (bool(c.attr("transA", 0)), bool(c.attr("transB", 0)))
    if c.attr("transBatchA", 0) or c.attr("transBatchB", 0):
        raise c.refuse("transBatchA and transBatchB are not read")
    y: Operand = c.g.op("matmul", c[0], c[1], transposed=turned)
    alpha = c.attr("alpha", 1.0)
    return y if alpha == 1.0 else scaled(c, y, alpha)


@converts("Einsum")
def einsum(c: Node) -> Operand:
    return c.g.op("einsum", *c.all(), equation=c.needed("equation", str))


@converts("Det")
def det(c: Node) -> Operand:
    """By minors: small matrices only."""
    n = c.static()[-1]
    if n > 4:
        raise c.refuse(f"matrices of {n} rows", "up to 4")
    x = c[0]

    def entry(i: int, j: int) -> Operand:
        g = c.g
        row = g.op("take", x, c.constant(np.asarray(i)), axis=x.type.ndim - 2)
        return g.op("take", row, c.constant(np.asarray(j)), axis=x.type.ndim - 2)

    def minor(rows: tuple[int, ...], columns: tuple[int, ...]) -> Operand:
        if len(rows) == 1:
            return entry(rows[0], columns[0])
        total: Any = None
        for at, j in enumerate(columns):
            part = c.g.op("multiply", entry(rows[0], j), minor(rows[1:], columns[:at] + columns[at + 1 :]))
            total = part if total is None else c.g.op("subtract" if at % 2 else "add", total, part)
        return total

    return minor(tuple(range(n)), tuple(range(n)))
