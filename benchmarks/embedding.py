"""python -m benchmarks.embedding: the gradient and the update of an embedding, beside touching the same rows in torch and NumPy.

The step is gradient descent on a table of --rows x --width float32 for --tokens random tokens. tcomp's time is that of a call of the
model that adds up the gradient and changes the table, in place. torch's is `index_add_`, NumPy's a read and a write of these rows by an index
array (which keeps one of equal tokens only, so it does less). Each library has a process of its own; they run turn by turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import typer

import tcomp
from tcomp.target import Target

Size = tuple[int, int, int, int]
"""Rows and width of the table, tokens, threads."""
Update = Callable[[], float]
"""Takes a step; the seconds that it took."""


def _data(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, width, tokens, _ = size
    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, width)).astype("float32")
    return table, rng.integers(0, rows, tokens), rng.standard_normal((tokens, width)).astype("float32")


def _tcomp(size: Size) -> Update:
    table, places, slices = _data(size)
    g = tcomp.GraphBuilder()
    w, index, grads = g.input("w", table.shape), g.input("index", places.shape, "int64"), g.input("grads", slices.shape)
    zeros = g.broadcast_to(g.constant(np.zeros((), np.float32)), shape=table.shape)
    step = g.multiply(g.scatter_add(zeros, index, grads), g.input("rate", ()))
    exe = tcomp.compile(g.build(g.subtract(w, step), updates={w: 0}), num_threads=size[-1])
    want, rate = table.astype("float64"), np.array(0.1, np.float32)
    np.subtract.at(want, places, 0.1 * slices.astype("float64"))
    exe(table, places, slices, rate)
    assert np.abs(table - want).max() < 1e-5
    return _timed(lambda: exe(table, places, slices, rate))


def _torch(size: Size) -> Update:
    import torch

    torch.set_num_threads(size[-1])
    table, places, slices = map(torch.from_numpy, _data(size))
    return _timed(lambda: table.index_add_(0, places, slices, alpha=-0.1))


def _numpy(size: Size) -> Update:
    table, places, slices = _data(size)

    def touch() -> None:
        table[places] -= np.float32(0.1) * slices

    return _timed(touch)


def _timed(f: Callable[[], Any]) -> Update:
    def update() -> float:
        start = time.perf_counter()
        f()
        return time.perf_counter() - start

    return update


SIDES: dict[str, Callable[[Size], Update]] = {"tcomp": _tcomp, "torch": _torch, "NumPy": _numpy}
_own: list[Update] = []
"""The side of this process."""


def _begin(name: str, size: Size) -> None:
    _own.append(SIDES[name](size))


def _turn() -> float:
    return min(_own[0]() for _ in range(3))


def main(rows: int = 50_000, width: int = 256, tokens: int = 1024, turns: int = 50, threads: int = 2) -> None:
    """Print the median time of each side, and how it compares with tcomp's."""
    size = (rows, width, tokens, threads)
    pools = {name: ProcessPoolExecutor(1, get_context("spawn"), _begin, (name, size)) for name in SIDES}
    seconds: dict[str, list[float]] = {name: [pool.submit(_turn).result()] for name, pool in pools.items()}
    for _ in range(turns):
        for name, pool in pools.items():
            seconds[name].append(pool.submit(_turn).result())
    print(f"{Target.parse('cpu')}, {threads} threads: {rows} x {width}, {tokens} tokens")
    median = {name: float(np.median(found)) for name, found in seconds.items()}
    for name, value in median.items():
        print(f"{name:<8}{1e6 * value:>10.1f} us {value / median['tcomp']:>7.2f} of tcomp's")


if __name__ == "__main__":
    typer.run(main)
