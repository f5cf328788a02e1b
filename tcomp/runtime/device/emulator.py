"""CUDA C on the CPU: the C compiler makes a library of the kernels' own text, in which each thread of a block is a fiber (emulator.c)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ...errors import DeviceError, TargetError
from ...memory import aligned_empty
from .grid import Grid, GridKernel

HERE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O1", "-fPIC", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
_WATCHED = (
    *("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"),
    # loads must not move out of branches, where threads would make them that do not
    *("-fno-tree-loop-im", "-fno-ssa-phiopt", "-fno-if-conversion", "-fno-if-conversion2", "-fno-tree-loop-if-convert"),
    *("-fno-code-hoisting", "-fno-tree-pre", "-fno-tree-sink", "-fno-move-loop-invariants"),
)
ORDERS = {"forward": 0, "backward": 1, "shuffled": 2}


class Emulator:
    """Compiles kernels, and runs them (a `GpuDriver`). Launches of one emulator run one at a time.

    Attributes:
        order: in which threads and blocks run, one of ORDERS; what is free of races gives the same in all.
        seed: of the shuffled order.
    """

    index = 0

    def __init__(self, order: str = "forward", seed: int = 0) -> None:
        self.order, self.seed = order, seed
        self._lock = Lock()
        self._recording: list[Callable[[], None]] | None = None
        self._library: Any = None
        self._stubs: dict[str, Any] = {}

    def load(self, source: str, kernels: Iterable[GridKernel]) -> None:
        """Compile CUDA C.

        Raises:
            TargetError: there is no C compiler, or it refuses the source.
        """
        grids = [g for k in kernels for g in k.launches]
        text = "\n".join(['#include "emulator.h"', source, *map(_stub, grids)])
        self._library = _compiled(text)
        self._library.emulated_launch.restype = ctypes.c_char_p
        self._stubs = {g.function: getattr(self._library, f"{g.function}_call") for g in grids}

    def allocate(self, nbytes: int) -> np.ndarray:
        return aligned_empty(max(nbytes, 1))[:nbytes]

    def free(self, memory: np.ndarray) -> None:
        """Memory is freed with the array."""

    def address(self, memory: np.ndarray) -> int:
        return int(memory.ctypes.data)

    def to_device(self, target: int, array: np.ndarray) -> None:
        ctypes.memmove(target, array.ctypes.data, array.nbytes)

    def to_host(self, array: np.ndarray, source: int) -> None:
        ctypes.memmove(array.ctypes.data, source, array.nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self._do(lambda: ctypes.memmove(target, source, nbytes))

    def clear(self, target: int, nbytes: int) -> None:
        self._do(lambda: ctypes.memset(target, 0, nbytes))

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """What is launched meanwhile, by this thread, is noted; no other thread uses the emulator then."""
        recorded: list[Callable[[], None]] = []
        self._recording = recorded
        try:
            run()
        finally:
            self._recording = None

        def replay() -> None:
            for step in recorded:
                step()

        return replay

    def _do(self, step: Callable[[], Any]) -> None:
        step() if self._recording is None else self._recording.append(step)

    def launch(self, grid: Grid, blocks: Sequence[int], values: Sequence[int], sizes: Sequence[int]) -> None:
        """Run a launch.

        Raises:
            DeviceError: threads race for an element, some do not come to a barrier, or an access is out of bounds.
        """
        words = (ctypes.c_void_p * max(len(values), 1))(*values)
        shape = [(ctypes.c_uint * 3)(*x) for x in (blocks, grid.threads)]
        buffers: dict[int, int] = {}
        for at, nbytes, p in zip(values, sizes, grid.parameters):
            if p.is_buffer:
                buffers[at] = max(nbytes, buffers.get(at, 0))
        count = max(len(buffers), 1)
        begins, ends = (ctypes.c_void_p * count)(*buffers), (ctypes.c_uint64 * count)(*buffers.values())
        stub = self._stubs[grid.function]

        def run() -> None:
            how = ORDERS[self.order], ctypes.c_uint64(self.seed)
            with self._lock:
                wrong = self._library.emulated_launch(stub, words, *shape, len(buffers), begins, ends, *how)
            if wrong is not None:
                raise DeviceError(
                    f"kernel {grid.function} went wrong on the emulator",
                    why=wrong.decode(),
                    hint=f"it ran in {list(blocks)} blocks of {list(grid.threads)} threads",
                )

        self._do(run)

    def synchronize(self) -> None:
        """Launches have returned when they are done."""


def _stub(grid: Grid) -> str:
    return stub(grid.function, [p.type for p in grid.parameters])


def stub(function: str, types: Sequence[str]) -> str:
    """A function that takes an array of 64-bit words, as the emulator calls it."""
    given = ", ".join(f"({t})words[{i}]" if "*" in t else f"({t})(intptr_t)words[{i}]" for i, t in enumerate(types))
    return f"UNWATCHED void {function}_call(void **words) {{ {function}({given}); }}"


def _compiled(text: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="tcomp") as folder:
        return ctypes.CDLL(str(build_library(text, Path(folder))))


def build_library(text: str, folder: Path) -> Path:
    """The shared library of CUDA C, as C that includes emulator.h, and the emulator.

    Raises:
        TargetError: there is no C compiler, or it refuses the text.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc")
    if compiler is None:
        raise TargetError("the emulator needs gcc, which compiles the kernels", hint="apt install gcc")
    source, library = folder / "kernels.c", folder / "kernels.so"
    source.write_text(text)
    include = f"-I{HERE}"
    steps = [
        [compiler, *_FLAGS, *_WATCHED, include, "-c", str(source), "-o", f"{folder}/kernels.o"],
        [compiler, *_FLAGS, "-O2", include, "-c", str(HERE / "emulator.c"), "-o", f"{folder}/emulator.o"],
        [compiler, "-shared", "-o", str(library), f"{folder}/kernels.o", f"{folder}/emulator.o", "-lm"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TargetError("the C compiler refuses the kernels", why=done.stderr.strip()[-2000:])
    return library
