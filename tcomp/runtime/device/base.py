"""What runs programs: one implementation for each kind of target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..program import Program
from .arrays import DeviceArray


class Device(Protocol):
    """Memory and execution. Addresses are integers that the device's kernels understand."""

    def allocate(self, nbytes: int) -> Any:
        """Memory, aligned to a cache line; freed with the object that is returned."""

    def upload(self, array: np.ndarray) -> Any:
        """Memory that holds an array's bytes: the array itself where kernels can read it and nobody writes to it."""

    def argument(self, array: np.ndarray) -> Any:
        """Memory that holds an argument's bytes, and that kernels may write to: the array itself where they can."""

    def address(self, memory: Any) -> int:
        """Where memory begins."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Move bytes from one address to another."""

    def clear(self, target: int, nbytes: int) -> None:
        """Make bytes zero."""

    def read(self, address: int, nbytes: int) -> bytes:
        """Bytes of the device's memory, after all launches."""

    def prepare(self, num_threads: int | None) -> None:
        """Settings of this thread's next launches; None for the device's defaults."""

    def synchronize(self) -> None:
        """Wait for all launches."""


class OnDevice(Protocol):
    """Runs whose arguments and results lie in a device's own memory."""

    def view(self, value: Any) -> DeviceArray | None:
        """What a caller gave, if it lies on the device."""

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
        """A new array."""

    def copied(self, array: np.ndarray) -> DeviceArray:
        """A new array that holds what one of the host does."""

    def write(self, target: DeviceArray, source: np.ndarray | DeviceArray) -> None:
        """Copy the elements of an array of the same shape and dtype."""

    def entry(self, program: Program) -> Callable[[Sequence[int], Any, int, Sequence[int]], None]:
        """Run the whole program: (addresses of arguments, table of constants, workspace, sizes of extents)."""

    def captured(self, program: Program, *arguments: Any) -> Callable[[], None]:
        """A run with these arguments, as for an entry, that can be repeated at once.

        Raises:
            UnsupportedError: what is launched depends on values that the run computes.
        """


class Library(Protocol):
    """The linked code of a program; it stays loaded as long as this object lives.

    Attributes:
        lacking: features that the code needs and this machine lacks: it must not be run.
        objects: what it was linked from, to be linked again elsewhere, that of the entry last; none where it cannot be.
        on_device: None where kernels read the host's memory.
    """

    @property
    def device(self) -> Device: ...

    @property
    def lacking(self) -> tuple[str, ...]: ...

    @property
    def objects(self) -> tuple[bytes, ...]: ...

    @property
    def on_device(self) -> OnDevice | None: ...

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], Any]:
        """Run the whole program, whose code this is: (table of arguments, table of constants, workspace, table of extents or None), all addresses. It returns 0, or
        not 0 where memory for the buffers inside kernels ran out."""

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., Any]:
        """One kernel, which takes an address for each argument, and an int where its kind is "dims"."""
