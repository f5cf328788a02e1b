"""One kernel, from its unscheduled PrimFunc to code that can be loaded."""

from __future__ import annotations

import gc
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import mul
from queue import Queue
from threading import Thread
from typing import Protocol

from ..config import config
from ..errors import InternalError, TcompError
from ..ir.arith import simplify
from ..ir.equal import structural_hash
from ..ir.expr import Expr, const
from ..ir.primfunc import PrimFunc
from ..ir.repro import write_reproducer
from ..ir.stmt import Allocate, walk_statements
from ..ir.verify import verify
from ..target import Target
from .cache import ObjectCache, fingerprint


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A scheduled kernel.

    Attributes:
        rule: what made the schedule; schedule: its text, as Python; plan: what it follows, as text ("" for none).
    """

    func: PrimFunc
    rule: str
    schedule: str = ""
    plan: str = ""


Scheduler = Callable[[PrimFunc], Scheduled]
"""An unscheduled kernel -> the scheduled one."""


LoweringStep = Callable[[PrimFunc], PrimFunc]


class Generator(Protocol):
    """What turns scheduled kernels into code for a target.

    Attributes:
        target: its `repr` says all that decides the code, besides the kernel.
        steps: from the scheduled kernel to the one that `text` takes.
    """

    @property
    def target(self) -> Target: ...

    @property
    def steps(self) -> tuple[LoweringStep, ...]: ...

    def check(self, scheduled: PrimFunc, lowered: PrimFunc) -> None:
        """Raises TcompError where the target cannot run the kernel."""

    def text(self, lowered: PrimFunc, symbol: str) -> str:
        """The kernel in the target's language."""

    def code(self, text: str) -> bytes:
        """What can be loaded, of such text."""

    def assembly(self, text: str) -> str:
        """The instructions, for people."""


@dataclass
class Kernel:
    """A kernel on its way to code. Stages are computed when asked for: one whose code is in the cache needs none of them.

    Attributes:
        func: before scheduling.
        key: under which the code is cached.
        by_rules: whether the default rules schedule it.
    """

    func: PrimFunc
    generator: Generator
    scheduler: Scheduler
    key: str
    by_rules: bool = True
    object_code: bytes = field(default=b"", repr=False)

    @property
    def symbol(self) -> str:
        return f"k_{self.key[:24]}"

    @cached_property
    def made(self) -> Scheduled:
        """The schedule, with what there is to tell of it."""
        return self.scheduler(self.func)

    @property
    def scheduled(self) -> PrimFunc:
        return self.made.func

    @cached_property
    def lowered(self) -> PrimFunc:
        func = self.scheduled
        self._dump("schedule", func)
        for step in self.generator.steps:
            func = step(func)
            self._dump(step.__name__, func)
            if config().verify >= 1:
                verify(func)
        verify(func)
        return func

    def _dump(self, stage: str, func: PrimFunc) -> None:
        if config().dump:
            write_reproducer(f"{func.name}_{stage}", func, config().dump)

    @cached_property
    def text(self) -> str:
        """The kernel in the target's language."""
        return self.generator.text(self.lowered, self.symbol)

    def assembly(self) -> str:
        return self.generator.assembly(self.text)

    def emit(self) -> bytes:
        """Make the code.

        Raises:
            TcompError: the target cannot run the kernel.
            InternalError: a schedule rule or the code generator failed; the error says how to replay it.
        """
        try:
            self.generator.check(self.scheduled, self.lowered)
            return self.generator.code(self.text)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TcompError:
        if isinstance(error, TcompError) and not isinstance(error, InternalError):
            return error
        script = write_reproducer(self.func.name, self.func)
        return InternalError(
            f"cannot generate code for kernel {self.func.name}",
            why=f"{type(error).__name__}: {error}",
            hint=f"python -m tcomp.tools opt {script}   # replays it",
        )


def scratch_buffers(lowered: PrimFunc) -> list[tuple[str, Expr]]:
    """The buffers that a lowered kernel makes while it runs: their names and bytes."""
    found = []
    for s in walk_statements(lowered.body):
        if isinstance(s, Allocate):
            b = s.buffer
            extents = b.strides[:1] + b.shape[:1] if b.strides else b.shape
            found.append((b.name, simplify(reduce(mul, extents, const(b.dtype.itemsize)))))
    return found


def make_kernel(func: PrimFunc, generator: Generator, scheduler: Scheduler, variant: str = "") -> Kernel:
    """A kernel and its key.

    Args:
        variant: tells apart schedules that are not the default one.
    """
    parts = (
        structural_hash((func.params, func.body, func.allocs, func.num_outputs)),
        repr((func.attrs.get("aliases", ()), func.attrs.get("dim_max", ()))),
        repr(generator.target),
        fingerprint(),
        variant,
    )
    key = hashlib.blake2b("|".join(parts).encode(), digest_size=20).hexdigest()
    return Kernel(func, generator, scheduler, key, not variant)


class Builder(Protocol):
    """Somebody who builds kernels, in another process."""

    def build(self, kernel: Kernel) -> bytes | None:
        """The object code; None where it cannot."""


Hire = Callable[[int], AbstractContextManager[Sequence[Builder]]]
"""How many kernels there are to build -> those who help, while the context lasts."""


def build_all(
    kernels: Sequence[Kernel],
    cache: ObjectCache,
    on_done: Callable[[Kernel], None] | None = None,
    hire: Hire | None = None,
) -> None:
    """Fetch the object code of distinct kernels from the cache, or make it, with some help; that of equal ones once."""
    unique: dict[str, Kernel] = {}
    for k in kernels:
        unique.setdefault(k.key, k)
    cold: deque[Kernel] = deque()
    done: Queue[Kernel] = Queue()
    for k in sorted(unique.values(), key=_work, reverse=True):  # the longest first, so that nobody waits for a late one
        found = cache.get(k.key)
        if found is None:
            cold.append(k)
        else:
            k.object_code = found
            done.put(k)

    def finish(k: Kernel, code: bytes) -> None:
        k.object_code = code
        cache.put(k.key, code)
        done.put(k)

    def tell() -> None:
        while not done.empty():
            k = done.get()
            if on_done is not None:
                on_done(k)

    with _collector_paused(), hire(len(cold)) if hire is not None else nullcontext(()) as helping:
        threads = [Thread(target=_help, args=(h, cold, finish), daemon=True) for h in helping]
        for t in threads:
            t.start()
        while threads or cold:
            tell()
            own = _next(cold)
            if own is not None:
                finish(own, own.emit())
                gc.collect(0)
            elif threads:
                threads.pop().join()  # it may leave a kernel that it could not build
        tell()
    for k in kernels:
        k.object_code = unique[k.key].object_code


def _next(cold: deque[Kernel]) -> Kernel | None:
    """The next kernel to build; None where others have taken all."""
    try:
        return cold.popleft()
    except IndexError:
        return None


def _work(k: Kernel) -> tuple[bool, int]:
    """What tells how long building takes: whether it is a product, how many blocks it has."""
    return bool(k.func.attrs.get("exact")), len(k.func.blocks)


def _help(helper: Builder, cold: deque[Kernel], finish: Callable[[Kernel, bytes], None]) -> None:
    """Let somebody build kernels until none is left, or one fails."""
    while (k := _next(cold)) is not None:
        code = helper.build(k)
        if code is None:
            cold.append(k)
            return
        finish(k, code)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection of Python's own accord. A kernel makes so many objects that it would go through all those of the
    process several times, which takes as long as the kernel itself where large libraries are loaded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def cached_code(name: str, make_text: Callable[[], str], generator: Generator, cache: ObjectCache) -> bytes:
    """Code of a text, cached under a name that determines the text."""
    key = hashlib.blake2b(f"{name}|{generator.target!r}|{fingerprint()}".encode(), digest_size=20).hexdigest()
    found = cache.get(key)
    if found is None:
        found = generator.code(make_text())
        cache.put(key, found)
    return found
