"""The ceilings of a CPU, measured: multiply-adds on registers and nothing else, memory and nothing else."""

from __future__ import annotations

import numpy as np

from .. import te
from ..compiler import compile
from ..schedule.schedule import Schedule
from ..target import Target

CHAINS = 24
"""Independent accumulators: enough to hide the latency of two multiply-add units, few enough for the registers."""


def fma_peak(num_threads: int | None = None, steps: int = 400_000, repeat: int = 7) -> float:
    """Float32 GFLOP/s of fused multiply-adds, the best of several runs.

    Each of the accumulators, a vector register each, runs acc = acc * c + x. The recurrence is no reduction in the strict
    sense (it does not commute); nothing here reorders it.

    Args:
        num_threads: threads; by default the cores of this machine.
    """
    target = Target.parse("cpu")
    tasks, lanes = num_threads or target.num_cores, target.lanes(4)
    chains = min(CHAINS, target.num_registers - 4)
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
