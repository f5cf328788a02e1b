"""Processes that help to build kernels: in one process LLVM runs under one lock, and Python under another.

A helper is `python -c "...serve()"`, so that the user's script is not run again (as multiprocessing's "spawn" would), nor a process
with threads forked. It gets kernels through its standard input, as pickles that this process made, and answers with object code
alone. It ends with its parent: its input ends then. What a helper cannot build, the parent builds itself and finds the error.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..codegen.build import Kernel, Scheduled
from ..config import config
from ..runtime.threads import usable_cores
from .scheduling import cpu_scheduler

KERNELS_EACH = 10
"""Kernels that make a helper worth its start, which takes as long as four of them."""
_LENGTH = struct.Struct("<q")


class Helper:
    """A process that builds one kernel at a time."""

    def __init__(self) -> None:
        place = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {place!r}); from tcomp.backends.workers import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def build(self, kernel: Kernel) -> bytes | None:
        """The object code of a kernel; None where it failed, or the helper is gone."""
        is_scheduled = not kernel.by_rules
        job = pickle.dumps(
            (kernel.scheduled if is_scheduled else kernel.func, kernel.generator, kernel.key, is_scheduled)
        )
        try:
            send(self._process.stdin, job)
            return receive(self._process.stdout) or None
        except OSError:
            return None

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()
        self._process.kill()
        self._process.wait()


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


def send(pipe: Any, data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: Any) -> bytes:
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


def serve() -> None:
    """Build what comes in until nothing does; an empty answer says that it cannot be built."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    while True:
        try:
            func, generator, key, is_scheduled = pickle.loads(receive(sys.stdin.buffer))
        except OSError:
            return
        try:
            given = (lambda f: Scheduled(f, "given")) if is_scheduled else cpu_scheduler(generator.target)
            code = Kernel(func, generator, given, key).emit()
        except Exception:
            code = b""
        send(answers, code)
