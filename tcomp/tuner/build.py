"""Candidates -> code, in processes that may be lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from ..backends.workers import Worker, WorkerError
from ..codegen.build import Scheduled, make_kernel
from ..codegen.llvm.generator import LlvmGenerator
from ..errors import TcompError
from ..ir.equal import structural_hash
from ..ir.primfunc import PrimFunc
from ..target import CpuTarget
from .space import Candidate, Space

ALIKE = "scheduled as another one"
"""Why nothing was built of a candidate that differs in no loop from one that was."""


@dataclass(frozen=True, slots=True)
class Built:
    """The code of a candidate.

    Attributes:
        code: empty where there is none; reason then says why. program: the same for candidates that are scheduled alike.
    """

    candidate: Candidate
    code: bytes = b""
    symbol: str = ""
    program: str = ""
    reason: str = ""


def build(
    func: PrimFunc, target: CpuTarget, candidate: Candidate, known: frozenset[str] = frozenset(), key: str = ""
) -> Built:
    """Schedule a kernel and make its code; what is refused is told. A function of plain data, for any executor.

    Args:
        known: programs of which no code is needed. key: of the kernel, whose space is kept for the next candidate.
    """
    try:
        scheduled = _space(key, func, target).schedule(candidate).func
        program = hashlib.blake2b(structural_hash(scheduled).encode(), digest_size=12).hexdigest()
        if program in known:
            return Built(candidate, program=program, reason=ALIKE)
        kernel = make_kernel(func, LlvmGenerator(target), lambda _: Scheduled(scheduled, "tuned"), candidate.to_json())
        return Built(candidate, kernel.emit(), kernel.symbol, program)
    except TcompError as error:
        return Built(candidate, reason=error.what)


_spaces: dict[tuple[str, str], Space] = {}
"""Of the kernels that this process built last."""
KEPT = 8


def _space(key: str, func: PrimFunc, target: CpuTarget) -> Space:
    found = _spaces.get((key, target.text)) if key else None
    if found is None:
        found = Space(func, target)
        if key:
            while len(_spaces) >= KEPT:
                _spaces.pop(next(iter(_spaces)))
            _spaces[key, target.text] = found
    return found


class LocalExecutor(Executor):
    """Runs functions in processes of this machine, one at a time in each. What takes longer than a limit, or ends its process, is lost alone:
    its future fails with TimeoutError or OSError, and the next one gets a new process. What a function raises is a WorkerError here.

    Args:
        workers: processes. limit_s: seconds that a call may take. memory_bytes: address space that a process may have; 0 for no limit.
    """

    def __init__(self, workers: int, limit_s: float = 6.0, memory_bytes: int = 4 << 30) -> None:
        self._limit, self._memory = limit_s, memory_bytes
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(workers)
        self._started: list[Worker] = []
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        worker = Worker(self._memory)
        self._started.append(worker)
        self._idle.put(worker)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._run, fn, args, kwargs)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        worker = self._idle.get()
        try:
            found = worker.ask(partial(fn, **kwargs), args, self._limit)
        except OSError:  # TimeoutError is one
            worker.close()
            self._start()
            raise
        except WorkerError:
            self._idle.put(worker)
            raise
        self._idle.put(worker)
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._started:
            worker.close()
