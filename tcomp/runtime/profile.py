"""Measuring programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from .call import Runner
from .program import Program
from .report import Profile, ProfileRow, Timing


def time_runs(
    runner: Runner,
    arrays: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    dims: Sequence[int],
    repeat: int,
    warmup: int,
) -> Timing:
    """Time runs, results written to the same arrays each time."""
    seconds = []
    for i in range(warmup + max(repeat, 1)):
        start = time.perf_counter()
        runner.run(arrays, results, dims)
        if i >= warmup:
            seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds))


def profile_kernels(
    program: Program,
    runner: Runner,
    arrays: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    dims: Sequence[int],
    repeat: int,
) -> Profile:
    """Time each kernel on its own, in the order of a run."""
    runner.prepare()
    device = runner.library.device
    arena = device.allocate(program.arena_bytes)
    start_of_arena = device.address(arena)
    tables = {
        "args": [device.address(a) for a in (*arrays, *results)],
        "consts": [device.address(c) for c in runner.constants],
        "dims": list(dims),
    }
    calls = []
    for k in program.kernels:
        values = [start_of_arena + a.index if a.kind == "arena" else tables[a.kind][a.index] for a in k.arguments]
        calls.append((runner.library.kernel(k.symbol, [a.kind for a in k.arguments]), values))
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(max(repeat, 1)):
        for (function, values), record in zip(calls, seconds):
            start = time.perf_counter()
            function(*values)
            device.synchronize()
            record.append(time.perf_counter() - start)
    return Profile(
        tuple(ProfileRow(k.name, median(s), k.flops, k.nbytes, k.origin) for k, s in zip(program.kernels, seconds))
    )
