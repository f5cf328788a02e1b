"""Loading exported shared libraries: no compiler takes part."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TargetError, TcompError
from .device.cpu import CpuDevice
from .executable import Executable
from .manifest import constants_of, read_manifest
from .program import Program
from .threads import default_num_threads

ABI = 1
"""The version of the C interface."""
_CPU_TOO_OLD = 3


class ArtifactDevice(CpuDevice):
    """This process's memory, and the artifact's own threads."""

    def __init__(self, use_threads: Callable[[int], None]) -> None:
        self._use_threads = use_threads

    def upload(self, array: np.ndarray) -> np.ndarray:
        return array  # a weight, which lies in the artifact

    def prepare(self, num_threads: int | None) -> None:
        self._use_threads(default_num_threads() if num_threads is None else num_threads)


class ArtifactLibrary:
    """The code of an exported model (a `Library`)."""

    lacking: tuple[str, ...] = ()
    objects: tuple[bytes, ...] = ()
    on_device = None
    variant = 0
    """Which of the codes for several kinds of CPUs runs here."""

    def __init__(self, code: ctypes.CDLL, name: str) -> None:
        self._code, self._name = code, name
        use = self.function("use_threads", None, ctypes.c_int)
        self.device = ArtifactDevice(use)

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A function of the C interface.

        Raises:
            TcompError: the library has no such function.
        """
        try:
            found = getattr(self._code, f"{self._name}_{name}")
        except AttributeError as error:
            raise TcompError(f"the exported model has no function {self._name}_{name}", why=str(error)) from error
        found.restype, found.argtypes = result, list(arguments)
        return found

    def entry(self, program: Program) -> Callable[[int, Any, int, Any], int]:
        pointer, variant = ctypes.c_void_p, self.variant
        run = self.function("entry", ctypes.c_int, ctypes.c_int, pointer, pointer, pointer)
        return lambda args, constants, workspace, dims: run(variant, args, constants, workspace)

    def kernel(self, symbol: str, kinds: Sequence[str]) -> Callable[..., Any]:
        raise TcompError("kernels of an exported model cannot be run one by one", hint="profile the compiled model")

    def open(self, weights: Path | None) -> None:
        """Make the context that holds the weights. This looks whether this CPU can run the code.

        Args:
            weights: the file of weights; None where they are inside.

        Raises:
            TargetError: the CPU lacks instructions. TcompError: the file of weights is not the one that was exported.
        """
        version = self.function("abi_version", ctypes.c_int)()
        if version != ABI:
            raise TcompError(
                f"the exported model has interface version {version}", why=f"this tcomp reads version {ABI}"
            )
        context = ctypes.c_void_p()
        init = self.function("init", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
        path = None if weights is None else os.fsencode(weights)
        self._succeed("start the exported model", init(ctypes.byref(context), path, 0))
        self._context = context
        self.variant = self.function("variant", ctypes.c_int, ctypes.c_void_p)(context)
        weakref.finalize(self, self.function("free", None, ctypes.c_void_p), context).atexit = False

    def selftest(self) -> float:
        """The largest relative difference (2-norm) between results now and those stored at export.

        Raises:
            TcompError: it is more than rounding explains.
        """
        error = ctypes.c_double()
        test = self.function("selftest", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        code = test(self._context, ctypes.byref(error))
        self._succeed(f"confirm the exported model (its results differ by {error.value:.1e})", code)
        return error.value

    def _succeed(self, what: str, code: int) -> None:
        if code:
            text = self.function("error_text", ctypes.c_char_p, ctypes.c_int)
            error = TargetError if code == _CPU_TOO_OLD else TcompError
            raise error(f"cannot {what}", why=text(code).decode())

    def constants(self, specs: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[np.ndarray]:
        """The weights, in place; they keep the library alive."""
        found = []
        table = self.function("constants", ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(self._context)
        for i, (shape, kind) in enumerate(specs):
            nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            memory = (ctypes.c_uint8 * nbytes).from_address(table[i] or 0)
            memory.library = self  # which lives as long as somebody sees its memory
            raw = np.ctypeslib.as_array(memory)
            raw.flags.writeable = False
            found.append(raw.view(kind).reshape(shape))
        return found


def load(path: str | os.PathLike[str], num_threads: int | None = None) -> Executable:
    """An exported model, ready to call: names, checks and errors as of the Executable that it was exported from.

    Loading native code runs it: load only files that you trust. What the manifest says is read as data and checked before that.

    Args:
        path: a shared library that `Executable.export` wrote; its file of weights, if it has one, lies in the same folder.
        num_threads: of parallel loops; by default TCOMP_NUM_THREADS, else the cores of this process.

    Raises:
        TcompError: it is no exported model, or a damaged one. TargetError: this CPU cannot run it.
    """
    manifest, library = _opened(Path(path))
    text = manifest["variants"][library.variant]["program"]
    return Executable(Program.from_json(text, library.constants(constants_of(text))), library, num_threads)


def selftest(path: str | os.PathLike[str]) -> float:
    """Run an exported model on the inputs stored in it: how far the results are from those at export (relative, in the 2-norm).

    Raises:
        TcompError: farther than rounding explains; or it is no exported model. TargetError: this CPU cannot run it.
    """
    return _opened(Path(path))[1].selftest()


def _opened(file: Path) -> tuple[Mapping[str, Any], ArtifactLibrary]:
    """The manifest of an exported model, and its code, with its weights."""
    manifest = read_manifest(file)
    try:
        library = ArtifactLibrary(ctypes.CDLL(str(file.resolve())), manifest["name"])
    except OSError as error:
        raise TcompError(f"cannot load {file}", why=str(error), hint="tcomp.load reads shared libraries") from error
    library.open(file.with_name(manifest["weights"]) if manifest["weights"] else None)
    return manifest, library
