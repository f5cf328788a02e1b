"""Models as C source, compiled and called."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np

from tcomp.runtime.executable import Executable

CC = shutil.which("cc") or shutil.which("gcc")
WAYS = {"vectors": ["-O1"], "native": ["-O1", "-march=native"], "plain": ["-O1", "-std=c99", "-DTCOMP_PLAIN_C"]}
"""How C is compiled: with vectors for any machine, for this one, and as a compiler without vectors does."""


def build(folder: Path, options: list[str]) -> Path:
    """A shared library of what was exported as net.c."""
    words = [CC, *options, "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-psabi", "-shared", "-fPIC"]
    done = subprocess.run([*words, "-o", "net.so", "net.c", "net_data.c", "-lm"], cwd=folder, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "net.so"


def call(exe: Executable, arrays: list[np.ndarray], folder: Path, way: str = "vectors") -> tuple[np.ndarray, ...]:
    """The results of an executable's C source."""
    exe.export(folder / "net.c", format="c", weights="inside")
    library = ctypes.CDLL(str(build(folder, WAYS[way])))
    context, error = ctypes.c_void_p(), ctypes.c_double()
    assert library.net_init(ctypes.byref(context), None, 1) == 0
    assert library.net_selftest(context, ctypes.byref(error)) == 0, error.value
    results = tuple(np.empty(s.shape, s.dtype if s.dtype != "bfloat16" else "uint16") for s in exe.outputs)
    given, taken = ((ctypes.c_void_p * max(len(x), 1))(*(a.ctypes.data for a in x)) for x in (arrays, results))
    assert library.net_run(context, given, taken, None) == 0
    library.net_free(context)
    return results
