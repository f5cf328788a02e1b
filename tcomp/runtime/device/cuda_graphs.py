"""CUDA graphs, through the driver's C interface: pycuda has none (NVIDIA, CUDA Driver API, "Graph Management")."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from ...errors import DeviceError

_RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: memory may be allocated meanwhile."""


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    """Call the driver.

    Raises:
        DeviceError: it refuses.
    """
    code = getattr(_library(), name)(*arguments)
    if code:
        raise DeviceError("the GPU cannot repeat a run as a graph", why=f"{name} gave error {code}")


class CudaGraph:
    """What a function does on a stream, as a graph.

    Args:
        stream: its handle. The context is current, here and when the graph is launched.
    """

    def __init__(self, stream: int, run: Callable[[], None]) -> None:
        graph, self._exec = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_RELAXED))
        try:
            run()
        finally:
            _call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        _call("cuGraphInstantiateWithFlags", ctypes.byref(self._exec), graph, ctypes.c_ulonglong(0))
        _call("cuGraphDestroy", graph)

    def launch(self, stream: int) -> None:
        """Do it all."""
        _call("cuGraphLaunch", self._exec, ctypes.c_void_p(stream))

    def close(self) -> None:
        """Free it; nothing launches it any more."""
        _call("cuGraphExecDestroy", self._exec)
