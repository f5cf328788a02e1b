"""Executables timed beside others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np

from ..memory import aligned_copy
from ..runtime.executable import Executable
from ..tuner.measure import UNALIGNED, Interval, interval_of

ROUNDS, REMADE, MOST_REMADE = 9, 2, 6
"""Pairs of turns; times that executables are made for that, as often first as last, since some kernels feel where their weights lie; and times
at most where that does not decide yet."""
TURN_S, LEAST_RUNS, MOST_RUNS = 2e-3, 3, 500
"""Seconds of a turn, and the runs that it has."""
PROFILES = 9
"""Pairs of profiles that tell how kernels do inside a model."""

Executables = Sequence[Executable]
"""Copies that run at once, in threads of their own."""


def compare(
    make: Callable[[bool], Executables],
    arrays: Sequence[np.ndarray],
    remade: int = REMADE,
    is_decided: Callable[[Interval], bool] = lambda _: True,
) -> Interval:
    """The ratio of the times of two models, on inputs that begin at a cache line and on others, in turns.

    Args:
        make: gives one (False) or the other (True). arrays: inputs. remade: times that both are made. is_decided: whether an interval tells
            enough; else they are made a few times more.
    """
    ratios: list[float] = []
    for number in range(max(remade, MOST_REMADE)):
        if number >= remade and is_decided(interval_of(ratios)):
            break
        turned = (number + number // 2) % 2 == 1  # not always with the same arrays
        made = {which: make(which) for which in (turned, not turned)}
        placed = [aligned_copy(a, UNALIGNED * (number % 2)) for a in arrays]
        ratios += pairs_of(made[False], made[True], placed)
    return interval_of(ratios)


def pairs_of(
    before: Executables, after: Executables, arrays: Sequence[np.ndarray], rounds: int = ROUNDS
) -> list[float]:
    """Ratios of two models' times in turns that follow each other, whoever goes first."""
    with ThreadPoolExecutor(len(before)) as pool:

        def turn(copies: Executables, repeat: int) -> float:
            if len(copies) == 1:
                return copies[0].time(*arrays, repeat=repeat, warmup=1).median
            times = pool.map(lambda e: e.time(*arrays, repeat=repeat, warmup=1).median, copies)
            return sum(times) / len(copies)

        usual = min(turn(copies, LEAST_RUNS) for copies in (before, after))
        repeat = min(max(LEAST_RUNS, int(TURN_S / max(usual, 1e-7))), MOST_RUNS)
        ratios = []
        for number in range(rounds):
            pair = (before, after) if number % 2 else (after, before)
            times = {id(copies): turn(copies, repeat) for copies in pair}
            ratios.append(times[id(before)] / times[id(after)])
    return ratios


def in_model(
    before: Executable, after: Executable, arrays: Sequence[np.ndarray], groups: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """How many times as fast groups of kernels are in one model as in another, between the kernels around them.

    Args:
        groups: names of kernels, by that of a group.
    """
    ratios: dict[str, list[float]] = defaultdict(list)
    for number in range(PROFILES):
        times = {}
        for exe in (before, after) if number % 2 else (after, before):
            rows = exe.profile(*arrays, repeat=3).rows
            times[id(exe)] = {g: sum(r.seconds for r in rows if r.name in names) for g, names in groups.items()}
        for group in groups:
            ratios[group].append(times[id(before)][group] / (times[id(after)][group] or 1e-9))
    return {group: median(found) for group, found in ratios.items()}
