"""Fourier transforms, and what goes with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import cut, padded
from .node import Node
from .table import converts
from .types import dtype_of


def transformed(c: Node, x: Operand, length: int, inverse: bool, onesided: bool, whole: int | None = None) -> Operand:
    """The discrete Fourier transform of rows, as a product with the matrix of roots of unity.

    Args:
        x: (..., n, 1 or 2): real numbers, or real and imaginary parts. length: elements that are transformed.
        whole: of a one-sided inverse, the elements of the (real) result.
    """
    n = x.type.shape[-2]
    used = length if whole is None else length // 2 + 1
    if n != used:
        widths = [(0, 0)] * x.type.ndim
        widths[-2] = (0, used - n)
        x = padded(c, x, widths)
    count = whole or (length // 2 + 1 if onesided else length)
    angle = 2 * np.pi * np.outer(np.arange(used), np.arange(count)) / length * (1 if inverse else -1)
    scale = np.ones(used)
    if whole is not None:  # the other half is the conjugate of this one
        scale = np.where((np.arange(used) == 0) | (2 * np.arange(used) == length), 1.0, 2.0)
    factor = scale[:, None] / (length if inverse else 1)
    cos, sin = (c.constant(f(angle) * factor, x) for f in (np.cos, np.sin))
    last = x.type.ndim - 1
    rows = [c.reshape(cut(c, x, [i], [i + 1], [last]), x.type.shape[:-1]) for i in range(x.type.shape[-1])]

    def product(row: Operand, matrix: Operand) -> Operand:
        flat = row if row.type.ndim > 1 else c.reshape(row, (1, *row.type.shape))
        y = c.g.op("matmul", flat, matrix)
        return c.reshape(y, (*row.type.shape[:-1], count))

    real = product(rows[0], cos)
    if len(rows) == 2:
        real = c.g.op("subtract", real, product(rows[1], sin))
    parts = [real]
    if whole is None:
        imaginary = product(rows[0], sin)
        if len(rows) == 2:
            imaginary = c.g.op("add", imaginary, product(rows[1], cos))
        parts.append(imaginary)
    shaped = [c.reshape(p, (*p.type.shape, 1)) for p in parts]
    return shaped[0] if len(shaped) == 1 else c.g.op("concat", *shaped, axis=last)


@converts("DFT")
def dft(c: Node) -> Operand:
    x = c[0]
    ndim = x.type.ndim
    if c.version >= 20:
        axis = int(c.value(2).reshape(-1)[0]) if c.has(2) else -2
    else:
        axis = c.attr("axis", 1)
    axis = c.place(axis, ndim)
    inverse, onesided = bool(c.attr("inverse", 0)), bool(c.attr("onesided", 0))
    order = [*(d for d in range(ndim - 1) if d != axis), axis, ndim - 1]
    back = [int(i) for i in np.argsort(order)]
    moved = c.transpose(x, order)
    n = c.static()[axis]
    if inverse and onesided:
        length = int(c.value(1).reshape(-1)[0]) if c.has(1) else 2 * (n - 1)
        return c.transpose(transformed(c, moved, length, True, False, whole=length), back)
    length = int(c.value(1).reshape(-1)[0]) if c.has(1) else n
    return c.transpose(transformed(c, moved, length, inverse, onesided), back)


@converts("STFT")
def stft(c: Node) -> Operand:
    x, step = c[0], int(c.value(1).reshape(-1)[0])
    if x.type.ndim == 2:
        x = c.reshape(x, (*x.type.shape, 1))
    whole = x.type.extents[1]
    length = int(c.value(3).reshape(-1)[0]) if c.has(3) else c.static(2)[0]
    frames = (whole - length) // step + 1
    places = np.arange(frames)[:, None] * step + np.arange(length)
    cuts = c.g.op("take", x, c.constant(places), axis=1)
    if c.has(2):
        cuts = c.g.op("multiply", cuts, c.reshape(c[2], (length, 1)))
    return transformed(c, cuts, length, False, bool(c.attr("onesided", 1)))


@converts("MelWeightMatrix")
def mel_weight_matrix(c: Node) -> Operand:
    bands, length, rate = (int(c.value(i).reshape(-1)[0]) for i in range(3))
    low, high = (float(c.value(i).reshape(-1)[0]) for i in (3, 4))
    rows = length // 2 + 1
    mel = [2595 * np.log10(1 + f / 700) for f in (low, high)]
    edges = np.arange(bands + 2) * (mel[1] - mel[0]) / (bands + 2) + mel[0]
    bins = ((length + 1) * (700 * (10 ** (edges / 2595) - 1)) // rate).astype(int)
    matrix = np.zeros((rows, bands))
    for i in range(bands):
        first, centre, last = bins[i : i + 3]
        if centre == first:
            matrix[centre, i] = 1
        for j in range(first, centre + 1 if centre > first else first):
            matrix[j, i] = (j - first) / (centre - first)
        for j in range(centre, last):
            matrix[j, i] = (last - j) / (last - centre)
    return c.constant(matrix.astype(dtype_of(c.attr("output_datatype", 1)).numpy))


@converts("TfIdfVectorizer")
def tf_idf_vectorizer(c: Node) -> Operand:
    """How often sequences of integers stand in each row, with up to so many skipped between neighbours."""
    if "pool_strings" in c.attrs:
        raise c.refuse("it counts texts")
    g, pool = c.g, np.array(c.ints("pool_int64s") or [], np.int64)
    starts, columns = c.ints("ngram_counts") or [], np.array(c.ints("ngram_indexes") or [])
    shortest, longest, most = (
        c.needed("min_gram_length", int),
        c.needed("max_gram_length", int),
        c.needed("max_skip_count", int),
    )
    x = c.cast(c[0], "int64")
    rows = x if x.type.ndim == 2 else c.reshape(x, (1, *x.type.shape))
    width = rows.type.extents[1]
    counts: list[Any] = [None] * len(columns)
    at = 0
    for k, start in enumerate(starts, start=1):
        end = starts[k] if k < len(starts) else len(pool)
        grams = pool[start:end].reshape(-1, k)
        if shortest <= k <= longest and len(grams):
            total = _matches(c, rows, grams, width, most if k > 1 else 0)
            for i in range(len(grams)):
                counts[at + i] = cut(c, total, [i], [i + 1], [1])
        at += len(grams)
    zero = c.zeros((rows.type.shape[0], 1), x.type.dtype)
    placed: list[Any] = [zero] * (int(columns.max()) + 1)
    weights = np.ones(len(placed))
    given = c.attr("weights", [])
    for i, column in enumerate(columns):
        placed[column] = counts[i] if counts[i] is not None else zero
        weights[column] = given[i] if given else 1.0
    y = c.cast(g.op("concat", *placed, axis=1), "float32")
    mode = c.needed("mode", str)
    if mode == "IDF":
        y = c.cast(g.op("greater", y, c.constant(0, y)), "float32")
    if mode != "TF":
        y = g.op("multiply", y, c.constant(weights, y))
    return y if x.type.ndim == 2 else c.reshape(y, (len(placed),))


def _matches(c: Node, rows: Operand, grams: np.ndarray, width: int, most: int) -> Any:
    """(rows, grams): how often each stands there."""
    g, k, total = c.g, grams.shape[1], None
    for skip in range(most + 1):
        places = width - (k - 1) * (skip + 1)
        if places < 1:
            break
        same: Any = None
        for j in range(k):
            part = cut(c, rows, [j * (skip + 1)], [j * (skip + 1) + places], [1])
            hit = g.op("equal", c.reshape(part, (*part.type.shape, 1)), c.constant(grams[:, j]))
            same = hit if same is None else g.op("logical_and", same, hit)
        found = g.op("sum", c.cast(same, "int64"), axes=(1,))
        total = found if total is None else g.op("add", total, found)
    return total if total is not None else c.zeros((rows.type.shape[0], len(grams)), rows.type.dtype)
