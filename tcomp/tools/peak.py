"""The ceilings of a CPU, measured: multiply-adds on registers and nothing else, memory and nothing else."""

from __future__ import annotations

import numpy as np

from .. import te
from ..compiler import compile
from ..memory import aligned_empty
from ..schedule.schedule import Schedule
from ..target import Target

CHAINS = 24
"""Independent accumulators: enough to hide the latency of two multiply-add units, few enough for the registers."""

FUNCTIONS = 1 << 16
"""Elements of an elementary function: so many that the call itself does not count."""


def fma_peak(num_threads: int | None = None, steps: int = 400_000, repeat: int = 7, chains: int = CHAINS) -> float:
    """Float32 GFLOP/s of fused multiply-adds, the best of several runs.

    Each of the accumulators, a vector register each, runs acc = acc * c + x. The recurrence is no reduction in the strict
    sense (it does not commute); nothing here reorders it.

    Args:
        num_threads: threads; by default the cores of this machine. chains: independent accumulators; one shows the latency.
    """
    target = Target.parse("cpu")
    tasks, lanes = num_threads or target.num_cores, target.lanes(4)
    chains = min(chains, target.num_registers - 4)
    x = te.placeholder((tasks, lanes), name="x")
    s = te.reduce_axis(steps, "s")
    recurrence = te.comm_reducer(lambda a, b: a * 0.999 + b, lambda t: 0.0, name="recurrence")
    y = te.compute((tasks, chains, lanes), lambda t, c, l: recurrence(x[t, l], axis=s), name="y")
    sch = Schedule(te.create_prim_func([x, y], "fma_peak"))
    write = sch.cache_write("y", 0, "local")
    task, chain, lane = sch.get_loops(write)
    sch.compute_at("y", task)
    loops = sch.get_loops("y")
    own, step = loops[1:-1], loops[-1]
    sch.reorder(step, *own)
    init = sch.decompose_reduction("y", step)
    for inner in (own, sch.get_loops(init)[-len(own) :], [chain, lane]):
        for loop in inner[:-1]:
            sch.unroll(loop)
        sch.vectorize(inner[-1])
    if tasks > 1:
        sch.parallel(task)
    exe = compile(sch, num_threads=tasks)
    timing = exe.time(np.ones((tasks, lanes), "float32"), repeat=repeat, warmup=2)
    return 2.0 * tasks * chains * lanes * steps / timing.best / 1e9


def memory_bandwidth(num_threads: int | None = None, nbytes: int = 1 << 28, repeat: int = 5) -> float:
    """GB/s of b = a + 1 over arrays far larger than the caches, the best of several runs; reads and writes counted.

    Args:
        num_threads: threads; by default the cores of this machine. nbytes: of one array.
    """
    target = Target.parse("cpu")
    tasks, lanes = num_threads or target.num_cores, target.lanes(4)
    x = te.placeholder((tasks, nbytes // 4 // tasks), name="x")
    y = te.compute(x.shape, lambda t, i: x[t, i] + 1.0, name="y")
    sch = Schedule(te.create_prim_func([x, y], "memory_bandwidth"))
    task, i = sch.get_loops("y")
    sch.vectorize(sch.split(i, [None, lanes])[1])
    if tasks > 1:
        sch.parallel(task)
    exe = compile(sch, num_threads=tasks)
    data = np.ones((tasks, nbytes // 4 // tasks), "float32")
    timing = exe.time(data, repeat=repeat, warmup=1)
    return 2.0 * data.nbytes / timing.best / 1e9


def read_bandwidth(nbytes: int, repeat: int = 7) -> float:
    """GB/s that one core reads from a working set, in order and over and over: the level of memory that just holds it delivers them.

    Vectors are added to independent accumulators, so that additions wait for loads and not for each other.

    Args:
        nbytes: of the working set.
    """
    target = Target.parse("cpu")
    lanes, chains = target.lanes(4), min(16, target.num_registers - 4)
    rows = max(1, nbytes // (4 * lanes * chains))
    rounds = max(1, (1 << 26) // nbytes)
    x = te.placeholder((rows, chains, lanes), name="x")
    again, row = te.reduce_axis(rounds, "again"), te.reduce_axis(rows, "row")
    y = te.compute((chains, lanes), lambda c, l: te.sum(x[row, c, l], axis=(again, row)), name="y")
    sch = Schedule(te.create_prim_func([x, y], "read_bandwidth"))
    write = sch.cache_write("y", 0, "local")
    chain, lane, *reduced = sch.get_loops("y")
    sch.reorder(*reduced, chain, lane)
    init = sch.decompose_reduction("y", reduced[0])
    for outer, inner in ((chain, lane), tuple(sch.get_loops(init)[-2:]), tuple(sch.get_loops(write))):
        sch.unroll(outer)
        sch.vectorize(inner)
    exe = compile(sch, num_threads=1)
    data = aligned_empty(4 * rows * chains * lanes).view(np.float32).reshape(rows, chains, lanes)
    data[:] = 1.0
    timing = exe.time(data, repeat=repeat, warmup=1)
    return 4.0 * rows * chains * lanes * rounds / timing.best / 1e9


def function_seconds(repeat: int = 50) -> float:
    """Seconds of an exponential function of one float32 element, one core."""
    x = te.placeholder((FUNCTIONS,), name="x")
    exe = compile(
        te.create_prim_func([x, te.compute((FUNCTIONS,), lambda i: te.exp(x[i]), name="y")], "exp"), num_threads=1
    )
    return exe.time(np.zeros(FUNCTIONS, "float32"), repeat=repeat).best / FUNCTIONS
