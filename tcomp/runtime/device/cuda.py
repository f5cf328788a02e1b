"""An NVIDIA GPU through pycuda's driver interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import local
from typing import Any
from weakref import finalize

import numpy as np

from ...errors import DeviceError, InternalError, MissingPackageError, OutOfMemoryError
from ...lazy import lazy_module
from .cuda_graphs import CudaGraph
from .grid import Grid, GridKernel

driver = lazy_module("pycuda.driver")
compiler = lazy_module("pycuda.compiler")
tools = lazy_module("pycuda.tools")


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
        self.index, self._arch = index, arch
        self._functions: dict[str, Any] = {}
        self._module: Any = None
        self._pool: Any = None
        self._thread = local()

    @contextmanager
    def _current(self) -> Iterator[None]:
        context = _context(self.index)
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
                if grid.pool:
                    asked = driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
                    function.set_attribute(asked, grid.pool)
                self._functions[grid.function] = function

    @property
    def _stream(self) -> Any:
        """Where this thread's work goes; None for the default."""
        return getattr(self._thread, "stream", None)

    def allocate(self, nbytes: int) -> Any:
        """Memory of a pool: what was freed serves again, which the driver would make all launches wait for."""
        with self._current():
            try:
                if self._pool is None:
                    self._pool = tools.DeviceMemoryPool()
                return self._pool.allocate(max(nbytes, 1))
            except driver.MemoryError as error:
                free, total = driver.mem_get_info()
                raise OutOfMemoryError(
                    f"cannot allocate {nbytes} bytes on GPU {self.index}",
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
            if self._stream is None:
                driver.memcpy_dtod(target, source, nbytes)
            else:
                driver.memcpy_dtod_async(target, source, nbytes, self._stream)

    def clear(self, target: int, nbytes: int) -> None:
        with self._current():
            if self._stream is None:
                driver.memset_d8(target, 0, nbytes)
            else:
                driver.memset_d8_async(target, 0, nbytes, self._stream)

    def launch(self, grid: Grid, blocks: Sequence[int], values: Sequence[int], sizes: Sequence[int]) -> None:
        with self._current():
            function, shape = self._functions[grid.function], (tuple(blocks), grid.threads)
            if self._stream is None:
                function.prepared_call(*shape, *values, shared_size=grid.pool)
            else:
                function.prepared_async_call(*shape, self._stream, *values, shared_size=grid.pool)

    def synchronize(self) -> None:
        with self._current():
            driver.Context.synchronize()

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """As a CUDA graph.

        Raises:
            DeviceError: the driver refuses.
        """
        with self._current():
            stream = driver.Stream()
            self._thread.stream = stream
            try:
                graph = CudaGraph(stream.handle, run)
            finally:
                self._thread.stream = None

        def replay() -> None:
            with self._current():
                graph.launch(stream.handle)  # what uses the default stream later waits for it

        finalize(replay, self._close, graph)
        return replay

    def _close(self, graph: CudaGraph) -> None:
        with self._current():
            graph.close()


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
