"""Where threads wait: between statements that touch each other's elements, and nowhere else."""

from collections.abc import Callable
from typing import Any

import numpy as np

import tcomp
from tcomp import te
from tcomp.codegen.lowering.syncs import place_syncs
from tcomp.ir.printer import text
from tcomp.ir.stmt import Sync, walk_statements
from tcomp.schedule import Schedule

N = 64
A = te.placeholder((N,), name="A")


def two_stages(index: Callable[[Any], Any]) -> Schedule:
    """A shared stage by the threads of a block, read at another index by loops of their own."""
    s = te.compute((N,), lambda i: A[i] * 2.0, name="S")
    sch = Schedule(te.create_prim_func([A, te.compute((N,), lambda i: s[index(i)] + 1.0, name="B")], "stages"))
    sch.set_scope("S", 0, "shared")
    for name in ("S", "B"):
        sch.bind(sch.get_loops(name)[0], "threadIdx.x")
    return sch


def syncs(sch: Schedule) -> list[str]:
    return [s.scope for s in walk_statements(place_syncs(sch.func).body) if isinstance(s, Sync)]


def test_threads_wait_for_what_others_write() -> None:
    sch = two_stages(lambda i: N - 1 - i)
    placed = place_syncs(sch.func)
    assert syncs(sch) == ["shared"]
    lines = [line.strip() for line in text(placed).splitlines()]
    first, second = (i for i, line in enumerate(lines) if line.startswith("for "))
    assert first < lines.index("sync shared") < second
    x = np.arange(N, dtype=np.float32)
    for target in ("cpu", "reference"):
        assert (tcomp.compile(sch, target=target)(x) == x[::-1] * 2 + 1).all()


def test_none_is_needed_where_each_thread_reads_what_it_wrote() -> None:
    assert not syncs(two_stages(lambda i: i))


def test_other_thread_counts_are_other_threads() -> None:
    s = te.compute((N,), lambda i: A[i] * 2.0, name="S")
    sch = Schedule(te.create_prim_func([A, te.compute((N // 2,), lambda i: s[i], name="B")], "half"))
    for name in ("S", "B"):
        sch.bind(sch.get_loops(name)[0], "threadIdx.x")
    assert syncs(sch) == ["shared"], "the threads of the two loops need not be the same"


def test_iterations_wait_for_each_other() -> None:
    """A tile of shared memory that each iteration fills anew."""
    a = te.placeholder((8, N), name="A")
    s = te.compute((8, N), lambda i, j: a[i, j] * 2.0, name="S")
    sch = Schedule(te.create_prim_func([a, te.compute((8, N), lambda i, j: s[i, N - 1 - j], name="B")], "tiles"))
    sch.set_scope("S", 0, "shared")
    rows, columns = sch.get_loops("B")
    sch.compute_at("S", rows)
    for loop in (sch.get_loops("S")[-1], columns):
        sch.bind(loop, "threadIdx.x")
    assert syncs(sch) == ["shared", "shared"], "one before the reads, one before the next tile is written"
    assert syncs(bound_to_blocks(sch, rows)) == ["shared"], "a block has one tile"


def bound_to_blocks(sch: Schedule, loop: Any) -> Schedule:
    sch.bind(loop, "blockIdx.x")
    return sch


def test_blocks_wait_for_each_other_between_nests() -> None:
    s = te.compute((8, N), lambda i, j: te.exp(A[j]), name="S")
    sch = Schedule(te.create_prim_func([A, te.compute((8, N), lambda i, j: s[7 - i, j], name="B")], "nests"))
    for name in ("S", "B"):
        rows, columns = sch.get_loops(name)
        sch.bind(rows, "blockIdx.x")
        sch.bind(columns, "threadIdx.x")
    assert syncs(sch) == ["global"]


def test_kernels_without_bound_loops_stay_the_same() -> None:
    func = te.create_prim_func([A, te.compute((N,), lambda i: A[i] + 1.0, name="B")], "plain")
    assert place_syncs(func) is func
