"""Sums of products by Einstein's convention, as transposes and matrix products."""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np

from ..autograd import Tensor
from ..registry import ops


def einsum(spec: str, *operands: Tensor) -> Tensor:
    """The sum over all letters that the result does not name of the operands' product, as `numpy.einsum` has it.

    Operands are contracted from left to right, each pair by one batched matrix product, so gradients and compilation need
    nothing of their own.

    Args:
        spec: such as "bij,bjk->bik"; without "->" the result has the letters that stand once, in alphabetical order.

    Raises:
        ValueError: a spec that cannot be read, or extents that do not agree.
    """
    inputs, result = _parse(spec, operands)
    terms = [_plain(a, letters) for a, letters in zip(operands, inputs)]
    total, own = terms[0]
    for n, (other, letters) in enumerate(terms[1:], start=1):
        later = set(result).union(*(t[1] for t in terms[n + 1 :]))
        total, own = _contract(total, own, other, letters, later)
    total, own = _sum_out(total, own, set(result))
    return ops.permute(total, [own.index(x) for x in result])


def _parse(spec: str, operands: tuple[Tensor, ...]) -> tuple[list[str], str]:
    text = spec.replace(" ", "")
    left, arrow, result = text.partition("->")
    inputs = left.split(",")
    letters = "".join(inputs)
    if not arrow:
        result = "".join(sorted(x for x, n in Counter(letters).items() if n == 1))
    if not all(x.isalpha() for x in letters + result):
        raise ValueError(f"einsum {spec!r}: only letters, commas and -> are known")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum {spec!r} is for {len(inputs)} operands, got {len(operands)}")
    if len(set(result)) < len(result) or not set(result) <= set(letters):
        raise ValueError(f"einsum {spec!r}: the result names a letter twice, or one that no operand has")
    extents: dict[str, int] = {}
    for own, a in zip(inputs, operands):
        if len(own) != a.ndim:
            raise ValueError(f"einsum {spec!r}: {own!r} names {len(own)} axes, the operand has {a.ndim}")
        for letter, extent in zip(own, a.shape):
            if extents.setdefault(letter, extent) != extent:
                raise ValueError(f"einsum {spec!r}: axis {letter} has {extents[letter]} and {extent} elements")
    return inputs, result


def _plain(a: Tensor, letters: str) -> tuple[Tensor, str]:
    """An operand whose letters all differ: repeated ones become a diagonal."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            i = letters.index(letter)
            j = letters.index(letter, i + 1)
            others = [d for d in range(a.ndim) if d not in (i, j)]
            n = a.shape[i]
            rest = [a.shape[d] for d in others]
            flat = ops.reshape(ops.permute(a, (i, j, *others)), (n * n, *rest))
            a = ops.take(flat, np.arange(n) * (n + 1))
            letters = letter + "".join(letters[d] for d in others)
    return a, letters


def _sum_out(a: Tensor, letters: str, kept: set[str]) -> tuple[Tensor, str]:
    gone = tuple(d for d, x in enumerate(letters) if x not in kept)
    return (ops.summation(a, gone) if gone else a), "".join(x for x in letters if x in kept)


def _contract(a: Tensor, own: str, b: Tensor, other: str, later: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the letters that nothing needs later."""
    a, own = _sum_out(a, own, later | set(other))
    b, other = _sum_out(b, other, later | set(own))
    shared = [x for x in own if x in other]
    batch = [x for x in shared if x in later]
    summed = [x for x in shared if x not in later]
    rows = [x for x in own if x not in shared]
    columns = [x for x in other if x not in shared]
    size = {**dict(zip(own, a.shape)), **dict(zip(other, b.shape))}

    def matrices(t: Tensor, letters: str, *groups: list[str]) -> Tensor:
        moved = ops.permute(t, [letters.index(x) for group in groups for x in group])
        return ops.reshape(moved, [prod(size[x] for x in group) for group in groups])

    product = ops.matmul(matrices(a, own, batch, rows, summed), matrices(b, other, batch, summed, columns))
    order = [*batch, *rows, *columns]
    return ops.reshape(product, [size[x] for x in order]), "".join(order)
