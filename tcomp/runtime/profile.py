"""Measuring programs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np

from .call import Runner
from .program import Launch, Program
from .report import Profile, ProfileRow, Timing
from .steps import StepRunner


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
    """Time each kernel call on its own, in the order of a run; the trips of a loop add up."""
    runner.prepare()
    device = runner.library.device
    arena = device.allocate(program.arena_bytes)
    placed = {id(a): device.argument(a) for a in (*arrays, *results)}
    addresses = {
        "args": [device.address(placed[id(a)]) for a in (*arrays, *results)],
        "consts": [device.address(c) for c in runner.constants],
        "dims": list(dims),
    }
    functions = {s.symbol: runner.library.kernel(s.symbol, [a.kind for a in s.arguments]) for s in program.kernels}
    spent: dict[int, float] = {}
    calls: Counter[int] = Counter()

    def launch(step: Launch, values: list[int]) -> None:
        function = functions[step.symbol]
        start = time.perf_counter()
        function(*values)
        device.synchronize()
        spent[id(step)] += time.perf_counter() - start
        calls[id(step)] += 1

    steps = StepRunner(program, device, addresses, device.address(arena), launch)
    seconds: list[list[float]] = [[] for _ in program.kernels]
    for _ in range(max(repeat, 1)):
        spent = {id(k): 0.0 for k in program.kernels}
        calls.clear()
        steps.run()
        for k, record in zip(program.kernels, seconds):
            record.append(spent[id(k)])
    return Profile(
        tuple(
            ProfileRow(k.name, median(s), k.flops * calls[id(k)], k.nbytes * calls[id(k)], k.origin, calls[id(k)])
            for k, s in zip(program.kernels, seconds)
        )
    )
