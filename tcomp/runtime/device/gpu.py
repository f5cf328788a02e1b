"""Programs on a GPU: memory, launches, results brought back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from threading import Lock
from typing import Any, Protocol

import numpy as np

from ...errors import UnsupportedError
from ...memory import kept as kept_copy
from ..arguments import Spec, result_shapes
from ..extents import computed, evaluate_shape
from ..program import Branch, Launch, Loop, Program, Step
from ..results import numpy_dtype
from ..steps import StepRunner
from .arrays import DeviceArray, foreign_array
from .grid import Grid, GridKernel


class GpuDriver(Protocol):
    """What runs launches: a GPU through its driver, or the emulator. Addresses are integers.

    Attributes:
        index: the device's number.
    """

    index: int

    def load(self, source: str, kernels: Iterable[GridKernel]) -> None:
        """Compile CUDA C, and find the functions that the kernels launch."""

    def allocate(self, nbytes: int) -> Any:
        """Memory of the device, aligned to 16 bytes at least."""

    def free(self, memory: Any) -> None:
        """Give memory back; nobody uses it any more."""

    def address(self, memory: Any) -> int:
        """Where memory begins."""

    def to_device(self, target: int, array: np.ndarray) -> None:
        """Copy an array's bytes to an address of the device."""

    def to_host(self, array: np.ndarray, source: int) -> None:
        """Copy bytes of the device into an array."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Move bytes within the device."""

    def clear(self, target: int, nbytes: int) -> None:
        """Make bytes of the device zero."""

    def launch(self, grid: Grid, blocks: Sequence[int], values: Sequence[int], sizes: Sequence[int]) -> None:
        """Run a function.

        Args:
            blocks: of the grid, along x, y, z. values: its arguments, addresses and extents. sizes: bytes behind each address.
        """

    def synchronize(self) -> None:
        """Wait for all launches."""

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """What a function launches, copies and clears on the device, to be repeated at once. It does none of that yet."""


ALIGN = 16
"""Bytes at multiples of which kernels expect their arguments to begin."""


class _Owned:
    """Memory of a device, freed with this object. It is asked for when its address is.

    Args:
        content: what it holds at first.
    """

    def __init__(self, driver: GpuDriver, nbytes: int, content: np.ndarray | None = None) -> None:
        self._driver, self._nbytes, self._content = driver, nbytes, content
        self._memory: Any = None
        self._lock = Lock()

    @property
    def address(self) -> int:
        with self._lock:
            if self._memory is None:
                self._memory = self._driver.allocate(self._nbytes)
                if self._content is not None and self._nbytes:
                    self._driver.to_device(self._driver.address(self._memory), self._content)
                self._content = None
            return self._driver.address(self._memory)

    def __del__(self) -> None:
        if self._memory is not None:
            self._driver.free(self._memory)


class GpuDevice:
    """A GPU's memory (a `Device`)."""

    def __init__(self, driver: GpuDriver) -> None:
        self._driver = driver

    def allocate(self, nbytes: int) -> _Owned:
        return _Owned(self._driver, nbytes)

    def upload(self, array: np.ndarray) -> _Owned:
        return _Owned(self._driver, array.nbytes, kept_copy(array))

    def argument(self, array: np.ndarray) -> _Owned:
        return _Owned(self._driver, array.nbytes, np.ascontiguousarray(array))

    def address(self, memory: _Owned) -> int:
        return memory.address

    def copy(self, target: int, source: int, nbytes: int) -> None:
        if nbytes:
            self._driver.copy(target, source, nbytes)

    def clear(self, target: int, nbytes: int) -> None:
        if nbytes:
            self._driver.clear(target, nbytes)

    def read(self, address: int, nbytes: int) -> bytes:
        found = np.empty(nbytes, np.uint8)
        self._driver.to_host(found, address)
        return found.tobytes()

    def prepare(self, num_threads: int | None) -> None:
        """The launches say how many threads they take."""

    def synchronize(self) -> None:
        self._driver.synchronize()


class GpuLibrary:
    """The kernels of a program on a GPU (a `Library`).

    They are compiled when one is first needed, so that a program can be made, looked at and kept where there is no GPU.

    Args:
        source: what stands before the kernels: the words that they are written in.
    """

    lacking: tuple[str, ...] = ()

    def __init__(self, driver: GpuDriver, source: str, objects: Sequence[bytes]) -> None:
        self.objects = tuple(objects)
        self.device = GpuDevice(driver)
        self.driver = driver
        self._kernels = {k.symbol: k for k in map(GridKernel.from_json, objects)}
        self._source = source
        self._is_loaded = False
        self._lock = Lock()

    @property
    def source(self) -> str:
        """All kernels in one translation unit."""
        helpers: dict[str, str] = {}
        for k in self._kernels.values():
            helpers.update({name: text for name, text in k.helpers.items() if name not in helpers})
        return "\n".join([self._source, *helpers.values(), "", *(k.source for k in self._kernels.values())])

    @property
    def on_device(self) -> OnGpu:
        return OnGpu(self)

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], None]:
        run_steps = self.steps(program)

        def run(args: int, consts: Any, arena: int, dims: Any) -> None:
            sizes = list(dims or ())
            call = _Call(self.device, self.driver, program, args, sizes)
            run_steps(call.addresses, consts, arena, sizes)
            call.bring_back()

        return run

    def steps(
        self, program: Program, kept: list[Any] | None = None
    ) -> Callable[[Sequence[int], Any, int, Sequence[int]], None]:
        """Run a program on memory of the device: (addresses of arguments, table of constants, workspace, sizes of extents).

        Args:
            kept: gets the memory that kernels need while they run; by default it is given back when they are done.
        """

        def launch(step: Launch, values: list[int]) -> None:
            self.ensure_loaded()
            self._run(self._kernels[step.symbol], values, kept)

        def run(arguments: Sequence[int], consts: Any, arena: int, sizes: Sequence[int]) -> None:
            table = (ctypes.c_size_t * len(program.constants)).from_address(ctypes.addressof(consts))
            addresses: dict[str, Sequence[int]] = {"args": arguments, "consts": table, "dims": sizes}  # type: ignore[dict-item]
            StepRunner(program, self.device, addresses, arena, launch).run()

        return run

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., None]:
        k = self._kernels[symbol]

        def run(*values: int) -> None:
            self.ensure_loaded()
            self._run(k, values)

        return run

    def load(self, source: str) -> None:
        """Compile CUDA C in place of what the library holds: the same functions, perhaps changed by hand."""
        with self._lock:
            self.driver.load(source, self._kernels.values())
            self._is_loaded = True

    def ensure_loaded(self) -> None:
        """Compile the kernels, if nothing has yet."""
        if self._is_loaded:
            return
        with self._lock:
            if not self._is_loaded:  # another thread may have been first
                self.driver.load(self.source, self._kernels.values())
                self._is_loaded = True

    def _run(self, k: GridKernel, values: Sequence[int], kept: list[Any] | None = None) -> None:
        dims = values[len(k.buffers) :]
        sizes = [*(computed(b, dims) for b in k.buffers), *(0 for _ in dims)]
        values, moved = self._aligned(values, sizes)
        own_sizes = [computed(s, dims) for s in k.scratch]
        scratch = [self.device.allocate(n) for n in own_sizes]
        for grid in k.launches:
            blocks = [computed(b, dims) for b in grid.blocks]
            if not all(blocks) or not all(grid.threads):
                continue  # there is nothing to do
            given = [(values[p.index], sizes[p.index]) if p.kind == "given" else (scratch[p.index].address, own_sizes[p.index]) for p in grid.parameters]  # fmt: skip
            self.driver.launch(grid, blocks, [v for v, _ in given], [n for _, n in given])
        for place, memory, nbytes in moved:
            self.driver.copy(place, memory.address, nbytes)
        if kept is not None:
            kept += [*scratch, *(memory for _, memory, _ in moved)]
        elif scratch or moved:
            self.driver.synchronize()

    def _aligned(self, values: Sequence[int], sizes: Sequence[int]) -> tuple[list[int], list[tuple[int, _Owned, int]]]:
        """Arguments that begin where kernels expect it. Those that do not, such as rows of an array whose width is odd, are copied.

        Returns:
            The values, and what is to be copied back: (address, copy, bytes).
        """
        asked: dict[int, int] = {}
        for at, nbytes in zip(values, sizes):
            if nbytes and at % ALIGN:  # what is updated in place is one of them twice
                asked[at] = max(nbytes, asked.get(at, 0))
        moved = {at: self.device.allocate(nbytes) for at, nbytes in asked.items()}
        for at, memory in moved.items():
            self.driver.copy(memory.address, at, asked[at])
        found = [moved[at].address if n and at in moved else at for at, n in zip(values, sizes)]
        return found, [(at, memory, asked[at]) for at, memory in moved.items()]


class OnGpu:
    """Runs of a library's program on arrays of its device (an `OnDevice`)."""

    def __init__(self, library: GpuLibrary) -> None:
        self._library, self._driver = library, library.driver

    def view(self, value: Any) -> DeviceArray | None:
        return foreign_array(value, self._driver)

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
        memory = self._library.device.allocate(prod(shape) * kind.itemsize)
        return DeviceArray(memory.address, shape, kind, memory, self._driver)

    def copied(self, array: np.ndarray) -> DeviceArray:
        memory = self._library.device.argument(array)
        return DeviceArray(memory.address, array.shape, array.dtype, memory, self._driver)

    def write(self, target: DeviceArray, source: np.ndarray | DeviceArray) -> None:
        if not target.nbytes:
            return
        if isinstance(source, DeviceArray):
            self._driver.copy(target.address, source.address, target.nbytes)
        else:
            self._driver.to_device(target.address, np.ascontiguousarray(source))

    def entry(self, program: Program) -> Callable[[Sequence[int], Any, int, Sequence[int]], None]:
        return self._library.steps(program)

    def captured(self, program: Program, *arguments: Any) -> Callable[[], None]:
        if any(
            isinstance(s, Branch) or (isinstance(s, Loop) and s.count is not None) for s in _all_steps(program.steps)
        ):
            raise UnsupportedError(
                "cannot capture the model", why="what is launched depends on values that it computes on the way", hint="call it"
            )  # fmt: skip
        self._library.ensure_loaded()
        kept: list[Any] = []
        run = self._library.steps(program, kept)
        replay = self._driver.capture(lambda: run(*arguments))

        def again(held: object = (self._library, kept)) -> None:
            replay()

        return again


def _all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    for s in steps:
        yield s
        if isinstance(s, Loop):
            yield from _all_steps(s.steps)


class _Call:
    """The inputs and results of one run, on the device. A result that lies where an input does shares its memory there, too."""

    def __init__(self, device: GpuDevice, driver: GpuDriver, program: Program, args: int, dims: Sequence[int]) -> None:
        specs = (*program.inputs, *program.outputs)
        hosts = list((ctypes.c_size_t * max(len(specs), 1)).from_address(args))[: len(specs)]
        shapes = [
            *(evaluate_shape(s.shape, dims) for s in program.inputs),
            *result_shapes(program.outputs, dims, program.dims),
        ]
        arrays = [_host_array(at, spec, shape) for at, spec, shape in zip(hosts, specs, shapes)]
        count = len(program.inputs)
        places: dict[int, Any] = {}
        self._driver = driver
        self._held = []
        for at, a in zip(hosts[:count], arrays):
            places[at] = device.argument(a)
            self._held.append(places[at])
        for at, a in zip(hosts[count:], arrays[count:]):
            if at not in places or a.nbytes == 0:
                places[at] = device.allocate(a.nbytes)
            self._held.append(places[at])
        self.addresses = [m.address for m in self._held]
        self._results = list(zip(arrays[count:], self.addresses[count:]))

    def bring_back(self) -> None:
        """Copy the results to the host."""
        self._driver.synchronize()
        for array, at in self._results:
            if array.nbytes:
                self._driver.to_host(array, at)


def _host_array(address: int, spec: Spec, shape: Sequence[int]) -> np.ndarray:
    """The bytes of an argument."""
    nbytes = prod(shape) * numpy_dtype(spec).itemsize
    if not nbytes:
        return np.empty(0, np.uint8)
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)
