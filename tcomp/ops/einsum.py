"""Sums of products by Einstein's convention."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..ir.graph import Operand
from .composite import composite


@composite
def einsum(g: Any, *operands: Operand, equation: str) -> Operand:
    """As `numpy.einsum` has it, "..." included: operands are contracted from left to right, each pair by one batched matrix product."""
    inputs, result = parse(equation, [x.type.ndim for x in operands])
    terms = [_plain(g, x, letters) for x, letters in zip(operands, inputs)]
    total, own = terms[0]
    for n, (other, letters) in enumerate(terms[1:], start=1):
        later = set(result).union(*(t[1] for t in terms[n + 1 :]))
        total, own = _contract(g, total, own, other, letters, later)
    total, own = _sum_out(g, total, own, set(result))
    return _permuted(g, total, [own.index(x) for x in result])


def parse(equation: str, ndims: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; digits stand for the axes of "...".

    Raises:
        ShapeError: an equation that cannot be read, or is for other operands.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ndims):
        raise ShapeError(f"einsum {equation!r} is for {len(inputs)} operands, got {len(ndims)}")
    spans = [n - len(t.replace("...", "")) for t, n in zip(inputs, ndims) if "..." in t]
    more = "".join(chr(0x100 + i) for i in range(max(spans, default=0)))
    inputs = [
        t.replace("...", more[len(more) - (n - len(t.replace("...", ""))) :] if n > len(t) - 3 else "")
        for t, n in zip(inputs, ndims)
    ]
    letters = "".join(inputs)
    if not arrow:
        result = more + "".join(sorted(x for x, n in Counter(letters).items() if n == 1 and x not in more))
    result = result.replace("...", more)
    if not all(x.isalpha() for x in letters + result):
        raise ShapeError(f"einsum {equation!r}", why="only letters, commas, ... and -> are known")
    if len(set(result)) < len(result) or not set(result) <= set(letters):
        raise ShapeError(f"einsum {equation!r}", why="the result names a letter twice, or one that no operand has")
    for own, n in zip(inputs, ndims):
        if len(own) != n:
            raise ShapeError(f"einsum {equation!r}", why=f"{own!r} names {len(own)} axes, the operand has {n}")
    return inputs, result


def _permuted(g: Any, x: Operand, axes: list[int]) -> Any:
    return x if axes == list(range(len(axes))) else g.transpose(x, axes=tuple(axes))


def _plain(g: Any, x: Operand, letters: str) -> tuple[Any, str]:
    """An operand whose letters all differ: repeated ones become a diagonal."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            i = letters.index(letter)
            j = letters.index(letter, i + 1)
            others = [d for d in range(x.type.ndim) if d not in (i, j)]
            n, rest = x.type.shape[i], [x.type.shape[d] for d in others]
            flat = g.reshape(_permuted(g, x, [i, j, *others]), shape=(n * n, *rest))
            x = g.take(flat, g.constant(np.arange(n) * (n + 1)), axis=0)
            letters = letter + "".join(letters[d] for d in others)
    return x, letters


def _sum_out(g: Any, x: Operand, letters: str, kept: set[str]) -> tuple[Any, str]:
    gone = tuple(d for d, letter in enumerate(letters) if letter not in kept)
    if not gone:
        return x, letters
    integers = {"out_dtype": x.type.dtype.name} if x.type.dtype.is_int else {}
    return g.sum(x, axes=gone, **integers), "".join(letter for letter in letters if letter in kept)


def _contract(g: Any, a: Operand, own: str, b: Operand, other: str, later: set[str]) -> tuple[Any, str]:
    """The product of two operands, summed over the letters that nothing needs later."""
    a, own = _sum_out(g, a, own, later | set(other))
    b, other = _sum_out(g, b, other, later | set(own))
    size: dict[str, Any] = {}
    for letters, t in ((own, a.type), (other, b.type)):
        for letter, e in zip(letters, t.shape):
            if size.get(letter, 1) == 1:
                size[letter] = e
            elif e not in (1, size[letter]):
                raise ShapeError(f"einsum: axis {letter} has {size[letter]} and {e} elements")
    shared = [x for x in own if x in other]
    batch, summed = [x for x in shared if x in later], [x for x in shared if x not in later]
    rows, columns = [x for x in own if x not in shared], [x for x in other if x not in shared]

    def matrices(t: Operand, letters: str, *groups: list[str]) -> Any:
        wide = tuple(size[x] for x in letters)
        t = t if t.type.shape == wide else g.broadcast_to(t, shape=wide)
        moved = _permuted(g, t, [letters.index(x) for group in groups for x in group])
        return g.reshape(moved, shape=tuple(prod(size[x] for x in group) for group in groups))

    y = g.matmul(matrices(a, own, batch, rows, summed), matrices(b, other, batch, summed, columns))
    if y.type.dtype != a.type.dtype:
        y = g.cast(y, dtype=a.type.dtype.name)
    order = [*batch, *rows, *columns]
    return g.reshape(y, shape=tuple(size[x] for x in order)), "".join(order)
