"""How long scheduling itself takes: a long schedule of a matrix product, in Python time.

python -m benchmarks.schedule_time [--size 1024] [--repeat 20]
"""

from __future__ import annotations

import statistics
import time

import typer

from tcomp import Schedule, te
from tcomp.ir import PrimFunc
from tcomp.schedule import library


def kernel(n: int) -> PrimFunc:
    """C = A B, then D = max(C, 0)."""
    a, b, k = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B"), te.reduce_axis(n, "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    return te.create_prim_func([a, b, te.compute((n, n), lambda i, j: te.maximum(c[i, j], 0.0), name="D")], "matmul")


def schedule(func: PrimFunc) -> Schedule:
    """A register tile with packed operands, threads, and the notes that a careful author leaves."""
    sch = Schedule(func)
    sch.set_scope("C", 0, "local")
    outer, inner = library.tile_write_back(sch, "D", [6], 4, 16)
    outer = [outer[-1], *outer[:-1]]
    sch.reorder(*outer)
    sch.compute_at("C", outer[-1])
    reduce = library.accumulate_tile(sch, "C", 2, 4, 16)
    library.unroll_and_vectorize(sch, inner)
    library.pack_operand(sch, "C", "B", outer[0], 16)
    rows = sch.read_at(outer[1], "C", "A", "local")
    library.vectorize_innermost(sch, rows, 16, 2)
    sch.storage_align(rows, 0, 0, 16, 1)
    k0, k1 = sch.split(reduce[0], [None, 4])
    sch.unroll(k1)
    k_block, _ = sch.split(k0, [None, 8])
    sch.pragma(k_block, "prefetch", 4)
    _, i = sch.split(outer[1], [None, 4])
    sch.unroll(sch.add_unit_loop(i))
    sch.reorder_block_iter_var("C", [1, 0, 2])
    for block in ("C", "D", rows):
        sch.annotate(block, "note", "hot")
        sch.unannotate(block, "note")
    j_block, _ = sch.split(outer[0], [None, 2])
    sch.parallel(j_block)
    sch.annotate(j_block, "note", "one task each")
    return sch


def main(size: int = 1024, repeat: int = 20) -> None:
    func = kernel(size)
    steps = len(schedule(func).history)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        schedule(func)
        seconds.append(time.perf_counter() - start)
    best, median = 1e3 * min(seconds), 1e3 * statistics.median(seconds)
    print(f"{steps} steps on a {size} x {size} x {size} product: best {best:.1f} ms, median {median:.1f} ms")


if __name__ == "__main__":
    typer.run(main)
