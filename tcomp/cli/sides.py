"""Libraries side by side, each in a process of its own, timed turn by turn.

A process serves one library for all cases of a run, so that no library shares threads, allocators or caches with another; a
library that ends its process (it has been seen) loses that case alone. Before a turn all processes must be idle: threads that spin
after their last call would take a core from the next side. tcomp itself may be an older checkout, so that before and after are raced
like any other two.
"""

from __future__ import annotations

import importlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_BEGIN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("sides", sys.argv[1])
sides = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sides)
sides.serve(int(sys.argv[2]), sys.argv[3], sys.argv[4])
"""
"""This file by its path, so that a process may hold another checkout of tcomp than the one that it stands in."""

BEFORE = "before"
"""The name of the side that an older checkout is."""


Task = tuple[str, str, tuple[Any, ...]]
"""(module, function, arguments): what a process is asked to make. The function, called with the library's name and these arguments,
returns a function of no arguments that computes the case, and a dict of what is to be told of it."""


class Missing(Exception):
    """A library that cannot do a case, or whose process has ended over it."""


class Side:
    """A process of one library."""

    def __init__(self, library: str, checkout: str = "") -> None:
        self.library, self.checkout = library, checkout
        self._begin()

    def _begin(self) -> None:
        self.pipe, there = Pipe()
        command = [sys.executable, "-c", _BEGIN, __file__, str(there.fileno()), self.library, self.checkout]
        self.process = subprocess.Popen(command, pass_fds=[there.fileno()])
        there.close()

    def ask(self, *request: Any) -> Any:
        """The answer of the process.

        Raises:
            Missing: the library cannot; the process is a new one where it has ended.
        """
        try:
            self.pipe.send(request)
            is_answer, answer = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = self.process.wait()
            self._begin()
            raise Missing(f"{self.library} ended with status {code}") from None
        if not is_answer:
            raise Missing(f"{self.library}: {answer}")
        return answer

    def wait_until_idle(self, limit: float) -> None:
        """Sleep until no thread of the process has run for a few milliseconds, or the limit is over."""
        end, quiet = time.perf_counter() + limit, 0
        while quiet < 3 and time.perf_counter() < end:
            time.sleep(0.001)
            quiet = 0 if self._runs() else quiet + 1

    def _runs(self) -> bool:
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/stat"):
            try:
                if task.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
            except OSError:  # it has ended
                continue
        return False

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.wait()


def race(sides: Sequence[Side], task: Task, seconds: float, per_turn: float = 0.003) -> dict[str, Any]:
    """Time a task turn by turn.

    Args:
        seconds: for each side, about; per_turn: calls are repeated to fill this time.

    Returns:
        For each library that can: what `load` told, with "result", and "seconds", those of a call in each turn.
    """
    found: dict[str, Any] = {}
    for side in sides:
        try:
            found[side.library] = {**side.ask("load", task), "seconds": []}
        except Missing as error:
            print(error, file=sys.stderr)
    taking = [s for s in sides if s.library in found]
    once = {s.library: min(_turn(s, 1, 1), _turn(s, 1, 1)) for s in taking}
    taking = [s for s in taking if math.isfinite(once[s.library])]
    rounds = max(5, min(40, int(seconds * len(taking) / max(2.5 * sum(once.values()), 0.004 * len(taking)))))
    for turn in range(rounds):
        first = turn % len(taking)
        for side in taking[first:] + taking[:first]:
            for other in taking:
                other.wait_until_idle(0.3)
            calls = max(1, min(200, int(per_turn / max(once[side.library], 1e-7))))
            found[side.library]["seconds"].append(_turn(side, calls, max(calls // 4, 2)))
    for side in taking:
        side.ask("drop")
    return {n: r for n, r in found.items() if r["seconds"] and all(map(math.isfinite, r["seconds"]))}


def _turn(side: Side, calls: int, before: int) -> float:
    """Seconds of a call; infinite where the process has ended."""
    try:
        return side.ask("turn", calls, before)
    except Missing as error:
        print(error, file=sys.stderr)
        return math.inf


def serve(handle: int, library: str, checkout: str) -> None:
    """Answer requests: the name of a method of `_Served`, and its arguments."""
    if checkout:
        sys.path.insert(0, checkout)
        tcomp = importlib.import_module("tcomp")  # before anything else does
        del sys.path[0]
        assert Path(str(tcomp.__file__)).is_relative_to(Path(checkout).resolve()), tcomp.__file__
    pipe, state = Connection(handle), _Served(library)
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(state, name)(*arguments)))
        except Exception as error:  # whatever a library raises
            pipe.send((False, f"{type(error).__name__}: {error}"))


class _Served:
    """What a process holds of its library."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.run: Callable[[], Any] | None = None

    def load(self, task: Task) -> Mapping[str, Any]:
        module, function, arguments = task
        self.run, told = getattr(importlib.import_module(module), function)(self.library, *arguments)
        assert self.run is not None
        return {**told, "result": self.run()}

    def turn(self, calls: int, before: int) -> float:
        """Seconds of a call."""
        run = self.run
        assert run is not None, "nothing is loaded"
        for _ in range(before):
            run()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    def spell(self, seconds: float, afterwards: float) -> tuple[float, float]:
        """The median seconds of the calls in a spell, and of processor time in the moments after it."""
        run = self.run
        assert run is not None, "nothing is loaded"
        for _ in range(3):
            run()
        found, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        used = time.process_time()
        time.sleep(afterwards)
        return statistics.median(found), time.process_time() - used

    def drop(self) -> None:
        self.run = None
