"""The thread pool that compiled parallel loops run in (threadpool.ll says how it works)."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from pathlib import Path

from ..config import config
from ..errors import TcompError

MAX_THREADS = 1024
"""Slots of the pool in threadpool.ll."""
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}
_X86_MODE = """declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i32 @get_mode() {
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %mode = load i32, ptr %place
  ret i32 %mode
}
define internal void @set_mode(i32 %mode) {
  %place = alloca i32
  store i32 %mode, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}"""
_ARM_MODE = """declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i32 @get_mode() {
  %wide = call i64 @llvm.aarch64.get.fpcr()
  %mode = trunc i64 %wide to i32
  ret i32 %mode
}
define internal void @set_mode(i32 %mode) {
  %wide = zext i32 %mode to i64
  call void @llvm.aarch64.set.fpcr(i64 %wide)
  ret void
}"""
_NO_MODE = """define internal i32 @get_mode() {
  ret i32 0
}
define internal void @set_mode(i32 %mode) {
  ret void
}"""
_MODE = {"x86_64": (_X86_MODE, 0x8040), "aarch64": (_ARM_MODE, 1 << 24)}
"""How a thread's mode is read and set, and the bits that flush denormals: MXCSR's FZ and DAZ, FPCR's FZ."""
_ANYWHERE = "define internal void @keep_apart(ptr %slot) {\n  ret void\n}\n"
_lock = threading.Lock()
_pool: _Pool | None = None


def runtime_source(machine: str | None = None) -> str:
    """What kernels call, the pool and the memory of scratch.ll, as LLVM IR for a machine (by default this one) under this system."""
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        (machine or platform.machine()).lower(), machine or platform.machine()
    )
    declare, pause = _PAUSE.get(name, ("", ""))
    folder = Path(__file__).parent
    parts = [(folder / n).read_text(encoding="utf-8") for n in ("denormals.ll", "threadpool.ll", "scratch.ll")]
    is_linux = sys.platform.startswith("linux")
    parts.append((folder / "placement.ll").read_text(encoding="utf-8") if is_linux else _ANYWHERE)
    text = "\n".join(parts)
    mode, bits = _MODE.get(name, (_NO_MODE, 0))
    text = text.replace("{declare_mode}", mode).replace("{flush_bits}", str(bits))
    return text.replace("{declare_pause}", declare).replace("{pause}", pause)


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_num_threads() -> int:
    """TCOMP_NUM_THREADS, else the cores that this process may use."""
    return config().num_threads or min(usable_cores(), MAX_THREADS)


def valid_num_threads(count: object) -> int:
    """The count.

    Raises:
        TcompError: not an integer from 1 to MAX_THREADS.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
        raise TcompError(f"cannot use {count!r} threads", why=f"it must be an integer from 1 to {MAX_THREADS}")
    return count


class _Pool:
    """The one pool of this process. Its code is never unloaded: sleeping workers stand in it."""

    def __init__(self, library: object, addresses: dict[str, int]) -> None:
        self.library = library
        self.addresses = addresses
        void, i32 = ctypes.CFUNCTYPE(None), ctypes.c_int32
        ctypes.CFUNCTYPE(None, i32)(addresses["tcomp_start_pool"])(usable_cores())
        self.set_num_threads = ctypes.CFUNCTYPE(None, i32)(addresses["tcomp_set_num_threads"])
        self.get_num_threads = ctypes.CFUNCTYPE(i32)(addresses["tcomp_get_num_threads"])
        self.use_threads = ctypes.CFUNCTYPE(None, i32)(addresses["tcomp_use_threads"])
        self.set_spin = ctypes.CFUNCTYPE(None, i32)(addresses["tcomp_set_spin"])
        self.after_fork = void(addresses["tcomp_after_fork"])
        self.set_num_threads(default_num_threads())
        self.set_spin(config().spin)
        os.register_at_fork(after_in_child=self.after_fork)


def install_pool(library: object, addresses: dict[str, int]) -> None:
    """Make loaded code the process's pool; the first call wins."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = _Pool(library, addresses)


def installed_pool() -> _Pool | None:
    return _pool


def set_num_threads(count: int) -> None:
    """How many threads parallel loops use from now on, in the whole process, where an executable does not say otherwise.

    Raises:
        TcompError: not between 1 and MAX_THREADS, or no compiled code is loaded yet.
    """
    valid_num_threads(count)
    if _pool is None:
        raise TcompError("no thread pool yet", why="it starts with the first compiled module", hint="TCOMP_NUM_THREADS")
    _pool.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads parallel loops use."""
    return _pool.get_num_threads() if _pool is not None else default_num_threads()
