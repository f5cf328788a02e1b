"""An NVIDIA GPU through pycuda's driver interface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ...errors import DeviceError, InternalError, MissingPackageError, OutOfMemoryError
from ...lazy import lazy_module
from .grid import Grid, GridKernel

driver = lazy_module("pycuda.driver")
compiler = lazy_module("pycuda.compiler")


@cache
def facts(index: int) -> dict[str, Any] | None:
    """What the driver tells of a GPU, by the names of CudaTarget's fields; None where there is none, or no pycuda."""
    try:
        driver.init()
        told = driver.Device(index)
        at = driver.device_attribute
        asked = {
            "sms": at.MULTIPROCESSOR_COUNT,
            "threads": at.MAX_THREADS_PER_MULTIPROCESSOR,
            "registers": at.MAX_REGISTERS_PER_MULTIPROCESSOR,
            "block_shared": at.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            "sm_shared": at.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            "l2": at.L2_CACHE_SIZE,
        }
        major, minor = told.compute_capability()
        return {"arch": f"sm_{major}{minor}", **{name: int(told.get_attribute(a)) for name, a in asked.items()}}
    except Exception:  # no pycuda, no driver, no such device: whatever it is, there is no GPU to ask
        return None


class CudaDriver:
    """Runs launches on a GPU (a `GpuDriver`). Nothing is asked of the driver before something is allocated or loaded.

    Args:
        index: the GPU's number. arch: the architecture to compile for.
    """

    def __init__(self, index: int, arch: str) -> None:
        self._index, self._arch = index, arch
        self._functions: dict[str, Any] = {}
        self._module: Any = None

    @contextmanager
    def _current(self) -> Iterator[None]:
        context = _context(self._index)
        context.push()
        try:
            yield
        finally:
            context.pop()

    def load(self, source: str, kernels: Iterable[GridKernel]) -> None:
        """Compile CUDA C with nvcc.

        Raises:
            DeviceError: there is no GPU, or no nvcc. InternalError: nvcc refuses the source.
        """
        with self._current():
            try:
                image = compiler.compile(source, arch=self._arch, no_extern_c=True)
            except driver.CompileError as error:
                raise InternalError("nvcc refuses the generated code", why=str(error)) from error
            except OSError as error:
                raise DeviceError("cannot compile for the GPU", why=f"nvcc does not run: {error}") from error
            self._module = driver.module_from_buffer(image)
            for grid in (g for k in kernels for g in k.launches):
                function = self._module.get_function(grid.function)
                function.prepare("".join("P" if p.is_buffer else "q" for p in grid.parameters))
                self._functions[grid.function] = function

    def allocate(self, nbytes: int) -> Any:
        with self._current():
            try:
                return driver.mem_alloc(max(nbytes, 1))
            except driver.MemoryError as error:
                free, total = driver.mem_get_info()
                raise OutOfMemoryError(
                    f"cannot allocate {nbytes} bytes on GPU {self._index}",
                    why=f"{free} of its {total} bytes are free", hint="a smaller batch",
                ) from error  # fmt: skip

    def free(self, memory: Any) -> None:
        with self._current():
            memory.free()

    def address(self, memory: Any) -> int:
        return int(memory)

    def to_device(self, target: int, array: np.ndarray) -> None:
        with self._current():
            driver.memcpy_htod(target, array)

    def to_host(self, array: np.ndarray, source: int) -> None:
        with self._current():
            driver.memcpy_dtoh(array, source)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        with self._current():
            driver.memcpy_dtod(target, source, nbytes)

    def clear(self, target: int, nbytes: int) -> None:
        with self._current():
            driver.memset_d8(target, 0, nbytes)

    def launch(self, grid: Grid, blocks: Sequence[int], values: Sequence[int], sizes: Sequence[int]) -> None:
        with self._current():
            self._functions[grid.function].prepared_call(tuple(blocks), grid.threads, *values)

    def synchronize(self) -> None:
        with self._current():
            driver.Context.synchronize()


@cache
def _context(index: int) -> Any:
    """The primary context of a GPU, which other libraries share.

    Raises:
        MissingPackageError: pycuda is not installed. DeviceError: there is no such GPU.
    """
    try:
        driver.init()
        return driver.Device(index).retain_primary_context()
    except MissingPackageError as error:
        raise MissingPackageError(
            "a GPU is reached through pycuda, which is not installed", hint='pip install "tcomp[cuda]"'
        ) from error
    except Exception as error:
        raise DeviceError(
            f"there is no GPU {index} here", why=f"{type(error).__name__}: {error}",
            hint='target="cuda -device=emulator" runs the kernels on the CPU, slowly, and watches for races',
        ) from error  # fmt: skip
