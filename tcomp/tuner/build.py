"""Candidates -> code, in processes that may be lost."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ..backends.workers import receive, send
from ..codegen.build import Scheduled, make_kernel
from ..codegen.llvm.generator import LlvmGenerator
from ..errors import TcompError
from ..ir.equal import structural_hash
from ..ir.primfunc import PrimFunc
from ..target import CpuTarget
from .space import Candidate, Space

resource: Any
try:
    import resource
except ImportError:  # a system without limits of processes
    resource = None


START_S = 120.0
"""Seconds that a process may take to begin, on a busy machine."""
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


def build(func: PrimFunc, target: CpuTarget, candidate: Candidate, known: frozenset[str] = frozenset()) -> Built:
    """Schedule a kernel and make its code; what is refused is told. A function of plain data, for any executor.

    Args:
        known: programs of which no code is needed.
    """
    try:
        scheduled = Space(func, target).schedule(candidate).func
        program = hashlib.blake2b(structural_hash(scheduled).encode(), digest_size=12).hexdigest()
        if program in known:
            return Built(candidate, program=program, reason=ALIKE)
        kernel = make_kernel(func, LlvmGenerator(target), lambda _: Scheduled(scheduled, "tuned"), candidate.to_json())
        return Built(candidate, kernel.emit(), kernel.symbol, program)
    except TcompError as error:
        return Built(candidate, reason=error.what)


class LocalExecutor(Executor):
    """Runs functions in processes of this machine, one at a time in each. What takes longer than a limit, or ends its process, is lost alone:
    its future fails with TimeoutError or OSError, and the next one gets a new process.

    Such a process is `python -c "...serve()"`, so that the user's script is not run again.

    Args:
        workers: processes. limit_s: seconds that a call may take. memory_bytes: address space that a process may have; 0 for no limit.
    """

    def __init__(self, workers: int, limit_s: float = 6.0, memory_bytes: int = 4 << 30) -> None:
        self._limit, self._memory = limit_s, memory_bytes
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(workers)
        self._started: list[_Worker] = []
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        worker = _Worker(self._memory)
        self._started.append(worker)
        self._idle.put(worker)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._run, fn, args, kwargs)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        worker = self._idle.get()
        try:
            is_result, answer = worker.ask((fn, args, kwargs), self._limit)
        except OSError:  # TimeoutError is one
            worker.close()
            self._start()
            raise
        self._idle.put(worker)
        if not is_result:
            raise answer
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._started:
            worker.close()


class _Worker:
    """A process that answers calls."""

    def __init__(self, memory_bytes: int) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from tcomp.tuner.build import serve; serve({memory_bytes})"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._is_ready = False

    def ask(self, call: Any, limit_s: float) -> Any:
        """The answer: (whether it is a result, that or an exception).

        Raises:
            TimeoutError: it took too long. OSError: the process has ended.
        """
        if not self._is_ready:
            self._answer(START_S)
            self._is_ready = True
        send(self._process.stdin, pickle.dumps(call))
        return pickle.loads(self._answer(limit_s))

    def _answer(self, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            raise TimeoutError(f"no answer within {limit_s:g} s")
        return receive(self._process.stdout)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def serve(memory_bytes: int) -> None:
    """Answer calls until there are no more."""
    if memory_bytes and resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    gc.disable()  # a kernel makes so many objects that it would go through all those of the process several times
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    send(answers, b"ready")
    while True:
        try:
            call = receive(sys.stdin.buffer)
        except OSError:
            return
        try:
            fn, args, kwargs = pickle.loads(call)
            answer = (True, fn(*args, **kwargs))
        except Exception as error:
            answer = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        gc.collect()  # before the answer, after which this machine measures
        send(answers, pickle.dumps(answer))
