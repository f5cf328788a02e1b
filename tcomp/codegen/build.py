"""One kernel, from its unscheduled PrimFunc to object code."""

from __future__ import annotations

import gc
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import mul
from queue import Queue
from threading import Thread
from typing import Protocol

from ..config import config, memory_bytes
from ..errors import InternalError, TargetError, TcompError, UnsupportedError
from ..ir.arith import simplify
from ..ir.equal import structural_hash
from ..ir.expr import Const, Expr, const
from ..ir.primfunc import PrimFunc
from ..ir.repro import write_reproducer
from ..ir.stmt import Allocate, walk_statements
from ..ir.tensor_intrin import tensor_intrin
from ..ir.verify import verify
from ..lazy import lazy_module
from ..target import Target
from .cache import ObjectCache, fingerprint
from .llvm.machine import Machine, emit_assembly, emit_object

# what only a kernel that is not in the cache needs
lowering = lazy_module("tcomp.codegen.lowering")
llvm_kernel = lazy_module("tcomp.codegen.llvm.kernel")


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


@dataclass
class Kernel:
    """A kernel on its way to object code. Stages are computed when asked for: a cached object needs none of them.

    Attributes:
        func: before scheduling.
        key: under which the object code is cached.
        by_rules: whether the default rules schedule it.
    """

    func: PrimFunc
    target: Target
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
        for step in lowering.STEPS:
            func = step(func)
            self._dump(step.__name__, func)
            if config().verify >= 1:
                verify(func)
        verify(func)
        return func

    def _dump(self, stage: str, func: PrimFunc) -> None:
        if config().dump:
            write_reproducer(f"{func.name}_{stage}", func, config().dump)

    def check_features(self) -> None:
        """Refuse instructions that the target does not have.

        Raises:
            TargetError: a block is tensorized with one.
        """
        for block in self.scheduled.blocks.values():
            intrin = tensor_intrin(str(block.annotations.get("tensor_intrin", "")))
            if intrin is not None and not self.target.has(intrin.feature):
                raise TargetError(
                    f"cannot compile block {block.name} for {self.target}",
                    why=f"it is tensorized with {intrin.name}, which needs {intrin.feature}",
                    hint="leave tensorize out for this target",
                )

    def check_memory(self) -> None:
        """Refuse buffers that this machine does not hold.

        Raises:
            UnsupportedError: a buffer of fixed size inside the kernel is too large.
        """
        limit = memory_bytes()
        for name, nbytes in self.scratch():
            if isinstance(nbytes, Const) and nbytes.value > limit:
                raise UnsupportedError(
                    f"cannot compile kernel {self.func.name}: buffer {name} would take {nbytes.value / 2**30:.0f} GiB",
                    why=f"this machine has {limit / 2**30:.0f} GiB",
                    hint="compute its producer inside a loop of its consumer (compute_at), or keep less of it",
                )

    def scratch(self) -> list[tuple[str, Expr]]:
        """The buffers that the kernel makes while it runs: their names and bytes."""
        found = []
        for s in walk_statements(self.lowered.body):
            if isinstance(s, Allocate):
                b = s.buffer
                extents = b.strides[:1] + b.shape[:1] if b.strides else b.shape
                found.append((b.name, simplify(reduce(mul, extents, const(b.dtype.itemsize)))))
        return found

    @cached_property
    def llvm_text(self) -> str:
        target = self.target
        return llvm_kernel.kernel_module(self.lowered, self.symbol, 8 * target.vector_bytes, target.converts_halves)

    def assembly(self) -> str:
        return emit_assembly(self.llvm_text, machine_of(self.target))

    def emit(self) -> bytes:
        """Make the object code.

        Raises:
            InternalError: the code generator failed; the error says how to replay it.
        """
        self.check_features()
        self.check_memory()
        try:
            return emit_object(self.llvm_text, machine_of(self.target))
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


def machine_of(target: Target) -> Machine:
    return Machine(target.triple, target.cpu, target.features)


def make_kernel(func: PrimFunc, target: Target, scheduler: Scheduler, variant: str = "") -> Kernel:
    """A kernel and its key.

    Args:
        variant: tells apart schedules that are not the default one.
    """
    parts = (
        structural_hash((func.params, func.body, func.allocs, func.num_outputs)),
        repr(func.attrs.get("aliases", ())),
        repr(target),
        fingerprint(),
        variant,
    )
    key = hashlib.blake2b("|".join(parts).encode(), digest_size=20).hexdigest()
    return Kernel(func, target, scheduler, key, not variant)


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
    for k in unique.values():
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
            if cold:
                with suppress(IndexError):  # a helper was faster
                    k = cold.popleft()
                    finish(k, k.emit())
                gc.collect(0)
            else:
                threads.pop().join()  # it may leave a kernel that it could not build
        tell()
    for k in kernels:
        k.object_code = unique[k.key].object_code


def _help(helper: Builder, cold: deque[Kernel], finish: Callable[[Kernel, bytes], None]) -> None:
    """Let somebody build kernels until none is left, or one fails."""
    while True:
        try:
            k = cold.popleft()
        except IndexError:
            return
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


def cached_object(name: str, make_text: Callable[[], str], target: Target, cache: ObjectCache) -> bytes:
    """Object code of LLVM text, cached under a name that determines the text."""
    key = hashlib.blake2b(f"{name}|{target!r}|{fingerprint()}".encode(), digest_size=20).hexdigest()
    found = cache.get(key)
    if found is None:
        found = emit_object(make_text(), machine_of(target))
        cache.put(key, found)
    return found
