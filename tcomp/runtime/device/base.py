"""What runs programs: one implementation for each kind of target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..program import Program


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


class Library(Protocol):
    """The linked code of a program; it stays loaded as long as this object lives.

    Attributes:
        lacking: features that the code needs and this machine lacks: it must not be run.
        objects: what it was linked from, to be linked again elsewhere, that of the entry last; none where it cannot be.
    """

    @property
    def device(self) -> Device: ...

    @property
    def lacking(self) -> tuple[str, ...]: ...

    @property
    def objects(self) -> tuple[bytes, ...]: ...

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], Any]:
        """Run the whole program, whose code this is: (table of arguments, table of constants, workspace, table of extents or None), all addresses. It returns 0, or
        not 0 where memory for the buffers inside kernels ran out."""

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., Any]:
        """One kernel, which takes an address for each argument, and an int where its kind is "dims"."""
