"""Timing several implementations of one thing, fairly.

All of them run in one process, turn by turn, so that whatever else the machine does hits all alike. A turn times several calls
in a row and begins with calls that are not counted, so that no side pays for waking up its threads. Before a turn the process
must be idle: threads of other libraries spin for tens of milliseconds after their last call, and would take a core from the
next side. A claim is a ratio of medians.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcomp.runtime.report import Timing

TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Result:
    """The time of each call, and the relative error against float64."""

    timing: Timing
    error: float

    @property
    def median(self) -> float:
        return self.timing.median

    @property
    def best(self) -> float:
        return self.timing.best


def wait_until_idle(limit: float) -> None:
    """Sleep until no other thread of the process has run for a few milliseconds, or the limit is over."""
    end, quiet = time.perf_counter() + limit, 0
    while quiet < 3 and time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        time.sleep(0.001 if TASKS.is_dir() else 0.02)
        if TASKS.is_dir():
            busy = _other_thread_runs()
        else:  # the clock of a process advances by ticks, hence the longer look
            busy = time.process_time() - used > 0.1 * (time.perf_counter() - start)
        quiet = 0 if busy else quiet + 1


def _other_thread_runs() -> bool:
    """Whether the system says of another thread that it is running: a thread that waits by spinning is."""
    own = str(threading.get_native_id())
    for task in TASKS.iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state == "R" and task.name != own:
            return True
    return False


def interleaved(
    sides: Mapping[str, Callable[[], np.ndarray]],
    reference: np.ndarray,
    rounds: int = 40,
    seconds_per_turn: float = 0.01,
    settle: float = 0.3,
) -> dict[str, Result]:
    """Time functions turn by turn.

    Args:
        sides: functions that each compute the same array.
        reference: the result in float64.
        rounds: turns of each side; the order changes from round to round.
        seconds_per_turn: calls are repeated to fill this time.
        settle: at most this many seconds before a turn are spent waiting until no thread of the process runs.
    """
    scale = float(np.sqrt(np.square(reference).sum())) or 1.0
    errors, calls = {}, {}
    for name, f in sides.items():
        errors[name] = float(np.sqrt(np.square(np.asarray(f(), np.float64) - reference).sum())) / scale
        start = time.perf_counter()
        f()
        calls[name] = max(1, min(200, int(seconds_per_turn / max(time.perf_counter() - start, 1e-7))))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            f = sides[name]
            wait_until_idle(settle)
            for _ in range(max(calls[name] // 4, 2)):
                f()
            start = time.perf_counter()
            for _ in range(calls[name]):
                f()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return {name: Result(Timing(tuple(s)), errors[name]) for name, s in seconds.items()}
