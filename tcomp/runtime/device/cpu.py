"""Running object code in this process."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...errors import TargetError, TcompError
from ...lazy import lazy_module
from ...memory import aligned_empty, kept
from ..program import ENTRY, Program
from ..threads import install_pool, installed_pool, runtime_source

llvm = lazy_module("llvmlite.binding")

_CALLED_BY_KERNELS = (
    "tcomp_parallel_for",
    "tcomp_take",
    "tcomp_give",
    "tcomp_begin_run",
    "tcomp_end_run",
    "tcomp_flush_denormals",
    "tcomp_restore_mode",
    "tcomp_failures",
)
_SETTINGS = (
    "tcomp_start_pool",
    "tcomp_use_threads",
    "tcomp_set_num_threads",
    "tcomp_get_num_threads",
    "tcomp_set_spin",
    "tcomp_after_fork",
)


class CpuDevice:
    """This process's own memory and threads."""

    def allocate(self, nbytes: int) -> np.ndarray:
        return aligned_empty(nbytes)

    def upload(self, array: np.ndarray) -> np.ndarray:
        return kept(array)

    def argument(self, array: np.ndarray) -> np.ndarray:
        return array

    def address(self, memory: np.ndarray) -> int:
        return int(memory.ctypes.data)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        ctypes.memmove(target, source, nbytes)

    def clear(self, target: int, nbytes: int) -> None:
        ctypes.memset(target, 0, nbytes)

    def read(self, address: int, nbytes: int) -> bytes:
        return ctypes.string_at(address, nbytes)

    def prepare(self, num_threads: int | None) -> None:
        pool = installed_pool()
        if pool is not None:
            pool.use_threads(0 if num_threads is None else num_threads)

    def synchronize(self) -> None:
        """Kernels have returned when they are done."""


class CpuLibrary:
    """Object files linked into this process (a `Library`)."""

    device = CpuDevice()
    on_device = None

    def __init__(self, engine: Any, lacking: Sequence[str] = (), objects: Sequence[bytes] = ()) -> None:
        self._engine = engine
        self.lacking = tuple(lacking)
        self.objects = tuple(objects)
        # The garbage collector finalizes a cycle's objects in any order, and LLVM's context takes the engine's module with it, which
        # the engine then frees again: this reference keeps both out of the garbage until the engine has been closed.
        weakref.finalize(self, engine.close).atexit = False

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], int]:
        pointer = ctypes.c_void_p
        return ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, pointer)(self.address(ENTRY))

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., None]:
        types = [ctypes.c_int64 if kind == "dims" else ctypes.c_void_p for kind in kinds]
        return ctypes.CFUNCTYPE(None, *types)(self.address(symbol))

    def address(self, symbol: str) -> int:
        """Where a function starts.

        Raises:
            TcompError: no object defines it.
        """
        at = self._engine.get_function_address(symbol)
        if not at:
            raise TcompError(f"the object code has no function {symbol!r}", why="the module is damaged")
        return at


class ForeignLibrary:
    """Object files for another machine (a `Library`): they can be exported, and not run.

    Args:
        lacking: what this machine is not, for the message.
    """

    device = CpuDevice()
    on_device = None

    def __init__(self, objects: Sequence[bytes], lacking: Sequence[str]) -> None:
        self.objects, self.lacking = tuple(objects), tuple(lacking)

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], Any]:
        return self.kernel(ENTRY, ())

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., None]:
        def refuse(*_: Any) -> None:
            raise TargetError(f"cannot run {symbol} here", why=f"it is {', '.join(self.lacking)}", hint="export it")

        return refuse


def _engine(text: str) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic")
    module = llvm.parse_assembly(text, llvm.create_context())
    # llvmlite's memory manager takes one region for all sections of an object. LLVM's own takes a region for each, and in a
    # crowded address space they may lie further apart than relocations reach, where LLVM aborts. What it does not foresee is
    # room for stubs: hence functions of other objects are called through the table of addresses ("nonlazybind").
    return llvm.create_mcjit_compiler(module, machine, use_lmm=True)


def ensure_pool() -> None:
    """Load what kernels call (the thread pool, scratch memory), once a process."""
    if installed_pool() is None:
        engine = _engine(runtime_source())
        engine.finalize_object()
        library = CpuLibrary(engine)
        install_pool(library, {name: library.address(name) for name in (*_CALLED_BY_KERNELS, *_SETTINGS)})
        for name in _CALLED_BY_KERNELS:
            llvm.add_symbol(name, installed_pool().addresses[name])


def load_objects(objects: Iterable[bytes], symbols: Sequence[str] = (), lacking: Sequence[str] = ()) -> CpuLibrary:
    """Link object files; those of `symbols` must be defined.

    Args:
        lacking: features that the code needs and this CPU does not have.

    Raises:
        TcompError: an object is damaged or lacks a symbol.
    """
    ensure_pool()
    engine = _engine("")
    linked = tuple(objects)
    for data in linked:
        if data[:4] not in (b"\x7fELF", b"\xcf\xfa\xed\xfe"):
            raise TcompError("the object code is damaged", why="it does not start as an object file")
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    library = CpuLibrary(engine, lacking, linked)
    for symbol in symbols:
        library.address(symbol)
    return library
