"""A compiled model, ready to call."""

from __future__ import annotations

import ctypes
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..dtype import dtype
from ..errors import InputError, TargetError, TcompError
from ..memory import ALIGN, aligned_empty, kept
from . import threads
from .arguments import IndexCheck, Spec, bind, check_indices, check_outputs, check_scratch, result_shapes
from .extents import Extent
from .report import Memory, Profile, ProfileRow, Timing

RECYCLE_FROM = 1 << 17
"""Bytes from which the C library asks the system for every array anew."""


def _free_count() -> int:
    """What `sys.getrefcount` says of an object that one local variable holds, taken out of a dict as in `Executable._result`:
    interpreters count differently. 0, which no object has, where a second reference is not counted: nothing is recycled then."""
    held = {0: np.empty(1, np.uint8)}
    memory = held.pop(0, None)
    alone = sys.getrefcount(memory)
    other = memory
    seen = sys.getrefcount(memory)
    del other
    return alone if seen > alone else 0


FREE = _free_count()
ALIGN_FROM = 8192
"""Bytes from which the alignment of an array matters more than the microsecond that it costs."""


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A kernel call of the model.

    Attributes:
        arguments: (kind, index) of each pointer, as the entry function passes them.
        flops, nbytes: the least work that the call must do.
    """

    name: str
    symbol: str
    arguments: tuple[tuple[str, int], ...]
    flops: int
    nbytes: int


@dataclass
class Program:
    """Everything that an Executable runs: what an exported file will hold.

    Attributes:
        dims: the names of symbolic extents, in the order in which kernels get them.
        updates: (input, result) pairs: the result is written where the input lies.
        checks: the inputs that are places, tested before each run.
        scratch: buffers that kernels make while they run, of a size that the symbolic extents decide: their names and bytes.
    """

    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    dims: tuple[str, ...]
    constants: tuple[np.ndarray, ...]
    kernels: tuple[KernelInfo, ...]
    arena_bytes: int
    total_bytes: int
    fused_from: int = 0
    stages: Callable[[str, str | None], str] | None = field(default=None, repr=False)
    updates: tuple[tuple[int, int], ...] = ()
    checks: tuple[IndexCheck, ...] = ()
    scratch: tuple[tuple[str, Extent], ...] = ()


class _Frame:
    """What one call at a time needs: the workspace, and the table of the arrays' addresses."""

    __slots__ = ("arena", "arena_address", "table", "table_address")

    def __init__(self, program: Program) -> None:
        self.arena = aligned_empty(program.arena_bytes)
        self.arena_address = self.arena.ctypes.data
        self.table = (ctypes.c_size_t * max(len(program.inputs) + len(program.outputs), 1))()
        self.table_address = ctypes.addressof(self.table)


class Executable:
    """A compiled model. Call it with one array for each input; it may be called from several threads at once.

    Args:
        num_threads: threads of its parallel loops; by default TCOMP_NUM_THREADS, else the cores of this process.
        lacking: features of the CPU compiled for that this one lacks: calls are refused, all else works.
    """

    def __init__(
        self, program: Program, library: Any, num_threads: int | None = None, lacking: Sequence[str] = ()
    ) -> None:
        self.program = program
        self._lacking = tuple(lacking)
        self._library = library
        pointer = ctypes.c_void_p
        self._entry = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, pointer)(library.address("tcomp_main"))
        self._constants = tuple(kept(c) for c in program.constants)
        self._const_table = (pointer * max(len(self._constants), 1))(*(c.ctypes.data for c in self._constants))
        self._frames: deque[_Frame] = deque()
        self._memory: dict[int, np.ndarray] = {}
        self._expected = _static(program.inputs) if not program.dims else None
        self._fresh = _static(program.outputs) or ()
        self._updates = {result: number for number, result in program.updates}
        self.num_threads = num_threads

    def __reduce__(self) -> Any:
        raise TypeError(
            "an Executable holds loaded machine code and cannot be copied or pickled; share it, or compile again"
        )

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.program.inputs))
        return f"<Executable ({inputs}) -> {', '.join(map(str, self.program.outputs))}, {self.num_kernels} kernels>"

    @property
    def inputs(self) -> tuple[Spec, ...]:
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Spec, ...]:
        return self.program.outputs

    @property
    def num_kernels(self) -> int:
        """Kernel calls of one run."""
        return len(self.program.kernels)

    @property
    def memory(self) -> Memory:
        """Bytes of the workspace, of constants, and what intermediate tensors would take without sharing."""
        p = self.program
        return Memory(p.arena_bytes, p.total_bytes, sum(c.nbytes for c in self._constants))

    @property
    def num_threads(self) -> int | None:
        """Threads of its parallel loops; None for as many as `tcomp.runtime.threads` says."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, count: int | None) -> None:
        self._num_threads = None if count is None else threads.valid_num_threads(count)

    # calling

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run the model.

        Args:
            args, named: one array for each input, in order or by name: NumPy arrays, or anything with `__dlpack__` or the
                buffer protocol. They are read in place.
            out: an array (or a sequence, for several outputs) to write the result into. It may share memory with an input: the
                result is then computed elsewhere and copied.

        Returns:
            A NumPy array, or a tuple of them where the model has several results.

        Raises:
            InputError: an argument is missing, too many, not of the expected type, or holds a place that is out of range.
        """
        if self._updates:
            return self._run_updates(args, out, named)
        if out is None and not named and self._fits(args):
            results = [self._result(i, *f) for i, f in enumerate(self._fresh)]
            self._run(args, results, ())
        else:
            arrays, dims = self._bind(args, named, out)
            results = self._outputs(out, dims)
            self._run_apart(arrays, results, dims)
        return results[0] if len(results) == 1 else tuple(results)

    def _run_updates(self, args: Sequence[Any], out: Any, named: Mapping[str, Any]) -> Any:
        """A call of a model that changes inputs: they are its results, too."""
        inputs = {number for number, _ in self.program.updates}
        if out is not None or named or not self._fits(args) or any(not args[i].flags.writeable for i in inputs):
            self._bind(args, named)  # tells what is wrong with the arguments, if it is that
            names = ", ".join(self.program.inputs[i].name for i in sorted(inputs))
            raise InputError(
                "the model changes inputs in place",
                why=f"{names}: all inputs must be C-contiguous arrays of their dtypes, in order, these ones writeable, and out is not given",
            )
        results = [
            args[self._updates[i]] if i in self._updates else self._result(i, *f) for i, f in enumerate(self._fresh)
        ]
        self._run(args, results, ())
        return results[0] if len(results) == 1 else tuple(results)

    def _result(self, number: int, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        """An array for a result. A large one takes the memory of the one before it, once nobody refers to that any more: new
        pages from the system cost more than many a kernel."""
        nbytes = prod(shape) * kind.itemsize
        if nbytes < RECYCLE_FROM:
            return _empty(shape, kind)
        memory = self._memory.pop(number, None)  # taken out, so that no other call finds it meanwhile
        if memory is None or sys.getrefcount(memory) > FREE:
            memory = aligned_empty(nbytes)
            memory = memory if memory.base is None else memory.base
        self._memory[number] = memory
        start = -address_of(memory) % ALIGN
        return memory[start : start + nbytes].view(kind).reshape(shape)

    def _fits(self, args: Sequence[Any]) -> bool:
        """Whether the arguments can be used as they are; else `_bind` converts them, or tells what is wrong."""
        if self._expected is None or len(args) != len(self._expected):
            return False
        for a, (shape, kind) in zip(args, self._expected):
            if type(a) is not np.ndarray or a.shape != shape or a.dtype != kind or not a.flags.c_contiguous:
                return False
        return True

    def _run_apart(self, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        """A run whose results may lie where inputs do: those are computed elsewhere first."""
        apart = [np.empty_like(r) if any(np.may_share_memory(r, a) for a in arrays) else r for r in results]
        self._run(arrays, apart, dims)
        for result, computed in zip(results, apart):
            if computed is not result:
                result[...] = computed

    def _run(self, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        if self.program.checks:
            check_indices(self.program.checks, self.program.inputs, arrays)
        self._use_threads()
        extents = (ctypes.c_int64 * len(dims))(*dims) if dims else None
        try:
            frame = self._frames.pop()
        except IndexError:  # the first call, or others are under way
            frame = _Frame(self.program)
        table, position = frame.table, 0
        for group in (arrays, results):
            for a in group:
                table[position] = address_of(a)
                position += 1
        try:
            self._entry(frame.table_address, self._const_table, frame.arena_address, extents)
        finally:
            self._frames.append(frame)

    def _use_threads(self) -> None:
        """Tell the pool how many threads the calls of this thread may use: others may run other executables meanwhile."""
        if self._lacking:
            raise TargetError(
                "this CPU cannot run the compiled code",
                why=f"it was compiled for one with {', '.join(self._lacking)}, which this one lacks",
                hint='compile for "cpu", or with an -mcpu= that this machine supports',
            )
        pool = threads.installed_pool()
        if pool is not None:
            pool.use_threads(0 if self.num_threads is None else self.num_threads)

    def _bind(
        self, args: Sequence[Any], named: Mapping[str, Any], out: Any = None
    ) -> tuple[list[np.ndarray], list[int]]:
        given = out if isinstance(out, (list, tuple)) else [out]
        return bind(self.program.inputs, self.program.dims, args, named, list(zip(self.program.outputs, given)))

    def _outputs(self, out: Any, dims: Sequence[int]) -> list[np.ndarray]:
        specs = self.program.outputs
        shapes = result_shapes(specs, dims, self.program.dims)
        check_scratch(self.program.scratch, dims, self.program.dims)
        if out is not None:
            return check_outputs(out, specs, shapes)
        return [_empty(shape, np.dtype(dtype(spec.dtype).numpy)) for shape, spec in zip(shapes, specs)]

    # looking inside

    def time(self, *args: Any, repeat: int = 50, warmup: int = 5, **named: Any) -> Timing:
        """Time calls on the given inputs, results written to the same arrays each time.

        Args:
            repeat: timed runs; warmup: runs before them.

        Returns:
            Timing, in seconds: median, best, worst.
        """
        arrays, dims = self._bind(args, named)
        results = self._outputs(None, dims)
        seconds = []
        for i in range(warmup + max(repeat, 1)):
            start = time.perf_counter()
            self._run(arrays, results, dims)
            if i >= warmup:
                seconds.append(time.perf_counter() - start)
        return Timing(tuple(seconds))

    def profile(self, *args: Any, repeat: int = 20, **named: Any) -> Profile:
        """Time each kernel on its own, in the order of a run: seconds, GFLOP/s, GB/s. Printing the result gives a table."""
        arrays, dims = self._bind(args, named)
        results = self._outputs(None, dims)
        self._use_threads()
        arena = aligned_empty(self.program.arena_bytes)
        tables = {
            "args": [a.ctypes.data for a in (*arrays, *results)],
            "consts": [c.ctypes.data for c in self._constants],
            "dims": list(dims),
        }
        calls = []
        for k in self.program.kernels:
            values = [arena.ctypes.data + i if kind == "arena" else tables[kind][i] for kind, i in k.arguments]
            types = [ctypes.c_int64 if kind == "dims" else ctypes.c_void_p for kind, _ in k.arguments]
            calls.append((ctypes.CFUNCTYPE(None, *types)(self._library.address(k.symbol)), values))
        seconds: list[list[float]] = [[] for _ in calls]
        for _ in range(max(repeat, 1)):
            for (function, values), record in zip(calls, seconds):
                start = time.perf_counter()
                function(*values)
                record.append(time.perf_counter() - start)
        rows = [
            ProfileRow(k.name, float(np.median(s)), k.flops, k.nbytes) for k, s in zip(self.program.kernels, seconds)
        ]
        return Profile(tuple(rows))

    def ir(self, stage: str, kernel: str | None = None) -> str:
        """The program at a stage, as text.

        Args:
            stage: "graph", "fused", "loops", "scheduled", "schedule", "llvm", "asm" or "explain".
            kernel: only this kernel (for the stages that have kernels).

        Raises:
            TcompError: no such stage or kernel, or the module was loaded from a file without its sources.
        """
        if self.program.stages is None:
            raise TcompError("this module carries no program text", why="it was loaded from an exported file")
        return self.program.stages(stage, kernel)

    def explain(self, kernel: str | None = None) -> str:
        """Why a kernel (by default each) is as fast as it is: the rule that scheduled it, operations and bytes by arithmetic,
        registers of the inner tile, work spent on filled-up tiles, vector width and spills in the assembly."""
        return self.ir("explain", kernel)

    def schedule(self, kernel: str) -> str:
        """The schedule of a kernel as Python over a Schedule named `sch`: to read, copy and change."""
        return self.ir("schedule", kernel)


def _static(specs: Sequence[Spec]) -> tuple[tuple[tuple[int, ...], np.dtype], ...] | None:
    """Shapes and dtypes; None where an extent is known only when called."""
    if any(not isinstance(extent, int) for s in specs for extent in s.shape):
        return None
    return tuple((tuple(e for e in s.shape if isinstance(e, int)), np.dtype(dtype(s.dtype).numpy)) for s in specs)


def _slow_address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _fast_address(array: np.ndarray) -> int:
    return ctypes.c_size_t.from_address(id(array) + object.__basicsize__).value


def _find_address() -> Callable[[np.ndarray], int]:
    """How to learn where an array's elements lie. NumPy's C API has the pointer right behind the object's head; its own attribute
    takes longer than a small kernel. Where that is not so (an interpreter other than CPython), the attribute."""
    probe = np.empty(3)
    if sys.implementation.name == "cpython" and _fast_address(probe) == _slow_address(probe):
        return _fast_address
    return _slow_address


address_of = _find_address()


def _empty(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """A new array. Large ones begin at a cache line, so that vectors do not straddle two."""
    count = prod(shape)
    if count * kind.itemsize < ALIGN_FROM:
        return np.empty(shape, kind)
    return aligned_empty(count * kind.itemsize).view(kind).reshape(shape)
