"""Processes that help to build kernels: in one process LLVM runs under one lock, and Python under another.

A worker is `python -c "...serve()"`, so that the user's script is not run again (as multiprocessing's "spawn" would), nor a process
with threads forked. It gets calls through its standard input, as pickles that this process made, and ends with its parent: its input
ends then. What a helper cannot build, the parent builds itself and finds the error.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..codegen.build import Kernel, Scheduled
from ..codegen.llvm.generator import LlvmGenerator
from ..config import config
from ..ir.primfunc import PrimFunc
from ..runtime.threads import usable_cores
from .scheduling import cpu_scheduler

resource: Any
try:
    import resource
except ImportError:  # a system without limits of processes
    resource = None

KERNELS_EACH = 10
"""Kernels that make a helper worth its start, which takes as long as four of them."""
START_S = 120.0
"""Seconds that a process may take to begin, on a busy machine."""
_LENGTH = struct.Struct("<q")


class Worker:
    """A process that answers one call at a time.

    Args:
        memory_bytes: address space that it may have; 0 for no limit.
    """

    def __init__(self, memory_bytes: int = 0) -> None:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from tcomp.backends.workers import serve; serve({memory_bytes})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._is_ready = False

    def ask(self, fn: Callable[..., Any], args: Sequence[Any], limit_s: float | None = None) -> Any:
        """What a function gives there; of plain data, as the function is.

        Raises:
            TimeoutError: it took too long; the process is of no use any more. OSError: the process has ended.
            WorkerError: the function raised something.
        """
        if not self._is_ready:
            self._answer(START_S)
            self._is_ready = True
        _send(self._process.stdin, pickle.dumps((fn, tuple(args))))
        is_result, answer = pickle.loads(self._answer(limit_s))
        if not is_result:
            raise WorkerError(answer)
        return answer

    def _answer(self, limit_s: float | None) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            raise TimeoutError(f"no answer within {limit_s:g} s")
        return _receive(self._process.stdout)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()
        self._process.kill()
        self._process.wait()


class WorkerError(Exception):
    """What a function raised in another process, as text."""


class Helper(Worker):
    """A process that builds one kernel at a time."""

    def build(self, kernel: Kernel) -> bytes | None:
        """The object code of a kernel; None where it failed, or the helper is gone."""
        is_scheduled = not kernel.by_rules
        func = kernel.scheduled if is_scheduled else kernel.func
        try:
            found: bytes = self.ask(_emitted, (func, kernel.generator, kernel.key, is_scheduled))
            return found
        except (OSError, WorkerError):
            return None


def _emitted(func: PrimFunc, generator: LlvmGenerator, key: str, is_scheduled: bool) -> bytes:
    """The object code of a kernel, in a helper."""
    given = (lambda f: Scheduled(f, "given")) if is_scheduled else cpu_scheduler(generator.target)
    return Kernel(func, generator, given, key).emit()


@contextmanager
def helpers(cold: int) -> Iterator[Sequence[Helper]]:
    """Helpers for so many kernels: none for a few, and at most one less than there are cores (TCOMP_WORKERS)."""
    count = min(_most(), cold // KERNELS_EACH) if sys.executable and not config().dump else 0
    found: list[Helper] = []
    try:
        for _ in range(count):
            try:
                found.append(Helper())
            except OSError:
                break
        yield found
    finally:
        for h in found:
            h.close()


def _most() -> int:
    asked = config().workers
    return usable_cores() - 1 if asked is None else asked


def _send(pipe: Any, data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: Any) -> bytes:
    """What was sent.

    Raises:
        OSError: the other side is gone.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise OSError("the other side is gone")
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise OSError("the other side is gone")
    return data


def serve(memory_bytes: int) -> None:
    """Answer calls until there are no more."""
    if memory_bytes and resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    gc.disable()  # a kernel makes so many objects that it would go through all those of the process several times
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    _send(answers, b"ready")
    while True:
        try:
            call = _receive(sys.stdin.buffer)
        except OSError:
            return
        try:
            fn, args = pickle.loads(call)
            answer = (True, fn(*args))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        gc.collect()  # before the answer, after which somebody may measure
        gc.freeze()  # what is left, libraries above all, is not gone through again
        _send(answers, pickle.dumps(answer))
