"""One run of a program: addresses into tables, and the entry function."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import OutOfMemoryError, TargetError
from .arguments import check_indices
from .device.arrays import DeviceArray
from .device.base import Library, OnDevice
from .program import Program
from .results import address_of


class _Frame:
    """What one call at a time needs: the workspace, and the table of the arrays' addresses."""

    __slots__ = ("arena", "arena_address", "table", "table_address")

    def __init__(self, program: Program, library: Library) -> None:
        self.arena = library.device.allocate(program.arena_bytes)
        self.arena_address = library.device.address(self.arena)
        self.table = (ctypes.c_size_t * max(len(program.inputs) + len(program.outputs), 1))()
        self.table_address = ctypes.addressof(self.table)


class Runner:
    """Runs a program; several threads may do so at once, each with a workspace of its own.

    Attributes:
        num_threads: of parallel loops; None for the device's default.
    """

    def __init__(self, program: Program, library: Library) -> None:
        self._program = program
        self.library = library
        self._device = library.device
        self._lacking = library.lacking
        self._entry = library.entry(program)
        self.constants = tuple(self._device.upload(c) for c in program.constants)
        self._frames: deque[_Frame] = deque()
        self.num_threads: int | None = None

    @cached_property
    def _const_table(self) -> Any:
        """The addresses of the weights. They are asked for when they are first needed: a program may be made without its device."""
        return (ctypes.c_void_p * max(len(self.constants), 1))(*map(self._device.address, self.constants))

    def run(self, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        """Compute the results, which share no memory with the inputs.

        Raises:
            OutOfMemoryError: there is no memory for what a kernel keeps while it runs; the results are not to be used.
        """
        if self._program.checks:
            self._check(arrays)
        self.prepare()
        extents = (ctypes.c_int64 * len(dims))(*dims) if dims else None
        frame = self._frame()
        table, position = frame.table, 0
        for group in (arrays, results):
            for a in group:
                table[position] = address_of(a)
                position += 1
        try:
            failed = self._entry(frame.table_address, self._const_table, frame.arena_address, extents)
        finally:
            self._frames.append(frame)
        if failed:
            raise OutOfMemoryError("cannot run the model", why="there is no memory for a buffer inside a kernel")

    def run_on_device(
        self, arrays: Sequence[np.ndarray | DeviceArray], results: Sequence[DeviceArray], dims: Sequence[int]
    ) -> None:
        """Compute results that stay on the device; inputs of the host are copied there. Results may lie where inputs do that the program
        updates."""
        device = self._on_device
        self._check(arrays)
        inputs = [device.copied(a) if isinstance(a, np.ndarray) else a for a in arrays]
        frame = self._frame()
        try:
            addresses = [a.address for a in (*inputs, *results)]
            device.entry(self._program)(addresses, self._const_table, frame.arena_address, dims)
        finally:
            self._frames.append(frame)

    def captured(
        self, arrays: Sequence[DeviceArray], results: Sequence[DeviceArray], dims: Sequence[int]
    ) -> Callable[[], None]:
        """Such a run on the same arrays each time, with a workspace of its own, as one launch.

        Raises:
            UnsupportedError: what is launched depends on values that the run computes.
        """
        frame = _Frame(self._program, self.library)
        addresses = [a.address for a in (*arrays, *results)]
        replay = self._on_device.captured(self._program, addresses, self._const_table, frame.arena_address, tuple(dims))

        def run(held: object = (frame, self)) -> None:
            self._check(arrays)
            replay()

        return run

    def _check(self, arrays: Sequence[np.ndarray | DeviceArray]) -> None:
        if self._program.checks:
            check_indices(self._program.checks, self._program.inputs, arrays)

    @property
    def _on_device(self) -> OnDevice:
        found = self.library.on_device
        assert found is not None
        return found

    def _frame(self) -> _Frame:
        try:
            return self._frames.pop()
        except IndexError:  # the first call, or others are under way
            return _Frame(self._program, self.library)

    def run_apart(self, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        """A run whose results may lie where inputs do: those are computed elsewhere first."""
        apart = [np.empty_like(r) if any(np.may_share_memory(r, a) for a in arrays) else r for r in results]
        self.run(arrays, apart, dims)
        for result, computed in zip(results, apart):
            if computed is not result:
                result[...] = computed

    def prepare(self) -> None:
        """Tell the device how many threads the calls of this thread may use: others may run other executables meanwhile.

        Raises:
            TargetError: this machine cannot run the code.
        """
        if self._lacking:
            raise TargetError(
                "this CPU cannot run the compiled code",
                why=f"it was compiled for one with {', '.join(self._lacking)}, which this one lacks",
                hint='compile for "cpu", or with an -mcpu= that this machine supports',
            )
        self._device.prepare(self.num_threads)
