"""Loading exported shared libraries: no compiler takes part."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import struct
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..dtype import dtype
from ..errors import TargetError, TcompError
from .device.cpu import CpuDevice
from .executable import Executable
from .program import Program
from .threads import default_num_threads

SECTION = ".tcomp"
"""The section of the ELF file that holds a seal, and the manifest after it."""
UNSEALED = b"0" * 64
"""Stands for the seal, the SHA-256 of the file in hexadecimal digits, while it is computed."""
TEXT_ENDING = "_manifest.json"
WASM_START = b"\0asm\1\0\0\0"
MAX_MANIFEST_BYTES = 256 << 20
"""Of the manifest, when it is no longer compressed."""
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

    def entry(self) -> Callable[[int, Any, int, Any], int]:
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
    file = Path(path)
    manifest, library = _opened(file)
    try:
        text = manifest["variants"][library.variant]["program"]
        described = json.loads(text)
        specs = [(tuple(c["shape"]), np.dtype(dtype(c["dtype"]).numpy)) for c in described["constants"]]
        program = Program.from_json(text, library.constants(specs))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise TcompError(f"cannot load {file}", why=f"{type(error).__name__}: {error}") from error
    return Executable(program, library, num_threads)


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
        library, weights = ArtifactLibrary(ctypes.CDLL(str(file.resolve())), manifest["name"]), manifest["weights"]
    except (KeyError, TypeError, OSError) as error:
        raise TcompError(f"cannot load {file}", why=f"{type(error).__name__}: {error}") from error
    library.open(file.with_name(Path(weights).name) if weights else None)
    return manifest, library


def read_manifest(file: Path) -> Mapping[str, Any]:
    """What an exported file tells of itself: a library, an object file, a WebAssembly module, or NAME_manifest.json, which lies beside C
    source. No code of it runs.

    Raises:
        TcompError: the file cannot be read, or is no exported model, or one of its bytes is not what it was.
    """
    try:
        data = memoryview(file.read_bytes())
        if file.name.endswith(TEXT_ENDING):
            return _read_json(bytes(data))
        start, nbytes = find_section(data)
        if bytes(data[start : start + len(UNSEALED)]) != seal_of(data, start):
            raise ValueError("its bytes are not those that were exported")
        return _read_json(_expanded(bytes(data[start + len(UNSEALED) : start + nbytes])))
    except OSError as error:
        raise TcompError(f"cannot read {file}", why=error.strerror or str(error)) from error
    except (ValueError, struct.error) as error:
        raise TcompError(f"{file} is no model that tcomp exported, or is damaged", why=str(error)) from error


def _read_json(text: bytes) -> Mapping[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("its manifest is no object")
    return found


def _expanded(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(data, MAX_MANIFEST_BYTES)
    except zlib.error as error:
        raise ValueError(f"its manifest is damaged: {error}") from error
    if not machine.eof:
        raise ValueError("its manifest is cut short, or too large")
    return found


def sealed(data: bytes) -> bytes:
    """A linked file with its seal in place."""
    start, _ = find_section(memoryview(data))
    return data[:start] + seal_of(memoryview(data), start) + data[start + len(UNSEALED) :]


def seal_of(data: memoryview, start: int) -> bytes:
    """The seal of a file that keeps it at `start`."""
    digest = hashlib.sha256(data[:start])
    digest.update(UNSEALED)
    digest.update(data[start + len(UNSEALED) :])
    return digest.hexdigest().encode()


def find_section(data: memoryview) -> tuple[int, int]:
    """Where the seal and the manifest begin in an exported file, and their bytes.

    Raises:
        ValueError: there are none.
    """
    start = bytes(data[:8])
    if start == WASM_START:
        offset, nbytes = _wasm_section(data)
    elif start[:6] == b"\x7fELF\x02\x01":
        offset, nbytes = _elf_section(data)
    else:
        raise ValueError("it does not begin as a 64-bit ELF file or a WebAssembly module does")
    if offset + nbytes > len(data) or nbytes < len(UNSEALED):
        raise ValueError("the file is cut short")
    return offset, nbytes


def _elf_section(data: memoryview) -> tuple[int, int]:
    """In a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    entries = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    if names >= count:
        raise ValueError("its sections have no names")
    strings = bytes(data[entries[names][4] : entries[names][4] + entries[names][5]])
    for at, *_, offset, nbytes in entries:
        if strings[at : strings.find(b"\0", at)] == SECTION.encode():
            return offset, nbytes
    raise ValueError(f"it has no section {SECTION}")


def _wasm_section(data: memoryview) -> tuple[int, int]:
    """In a WebAssembly module: a custom section of this name."""
    at = len(WASM_START)
    while at < len(data):
        kind, (nbytes, at) = data[at], _leb(data, at + 1)
        if kind == 0:
            length, start = _leb(data, at)
            if bytes(data[start : start + length]) == SECTION.encode():
                return start + length, nbytes - (start + length - at)
        at += nbytes
    raise ValueError(f"it has no section {SECTION}")


def _leb(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number as WebAssembly writes them (LEB128), and what stands behind it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 28:
            raise ValueError("the file is cut short")
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
