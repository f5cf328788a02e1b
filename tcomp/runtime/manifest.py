"""What an exported file tells of itself: found, compared with its seal, and checked, before anything is done with it."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dtype import dtype
from ..errors import TcompError
from .program import Program

SECTION = ".tcomp"
"""The section of the ELF file that holds a seal, and the manifest after it."""
UNSEALED = b"0" * 64
"""Stands for the seal, the SHA-256 of the file in hexadecimal digits, while it is computed."""
TEXT_ENDING = "_manifest.json"
WASM_START = b"\0asm\1\0\0\0"
MAX_MANIFEST_BYTES = 256 << 20
"""Of the manifest, when it is no longer compressed."""


_VARIANT = {
    "target": str, "options": str, "program": str, "constants": [str],
    "kernels": {str: {"rule": str, "schedule": str, "code": str, "bytes": int}},
}  # fmt: skip
_OPTIONS = {
    "format": str, "weights": str, "portable": bool, "winograd": bool, "check_indices": bool, "denormals": str, "shapes": {str: [int]},
}  # fmt: skip
_MANIFEST = {
    "tcomp": str, "abi": int, "name": str, "compiler": str, "triple": str, "weights": str, "source": {str: str}, "options": _OPTIONS,
    "variants": [_VARIANT], "example": str, "state": {str: str}, "files": {str: str},
}  # fmt: skip
"""The type of each part: of a list, of its elements; of a mapping from str, of its values."""


def read_manifest(file: Path) -> Mapping[str, Any]:
    """What an exported file tells of itself: a library, an object file, a WebAssembly module, or NAME_manifest.json, which lies beside C
    source. No code of it runs. All parts are there and of their types.

    Raises:
        TcompError: the file cannot be read, or is no exported model, or one of its bytes is not what it was.
    """
    try:
        data = memoryview(file.read_bytes())
        if file.name.endswith(TEXT_ENDING):
            return _checked(unsealed_text(bytes(data)))
        start, nbytes = find_section(data)
        if bytes(data[start : start + len(UNSEALED)]) != seal_of(data, start):
            raise ValueError("its bytes are not those that were exported")
        return _checked(json.loads(_expanded(bytes(data[start + len(UNSEALED) : start + nbytes]))))
    except OSError as error:
        raise TcompError(f"cannot read {file}", why=error.strerror or str(error)) from error
    except (ValueError, TypeError, struct.error, RecursionError, TcompError) as error:
        raise TcompError(f"{file} is no model that tcomp exported, or is damaged", why=str(error)) from error


def program_of(manifest: Mapping[str, Any], variant: int = 0) -> Program:
    """The program of one of the codes, with zeros, which take no memory, for its constants.

    Raises:
        TcompError: it is none.
    """
    text = manifest["variants"][variant]["program"]
    return Program.from_json(text, [np.broadcast_to(np.zeros((), kind), shape) for shape, kind in constants_of(text)])


def constants_of(text: str) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """The shapes and dtypes of a program's constants.

    Raises:
        TcompError: the text tells none.
    """
    try:
        return [(tuple(c["shape"]), np.dtype(dtype(c["dtype"]).numpy)) for c in json.loads(text)["constants"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TcompError("cannot read the program", why=f"{type(error).__name__}: {error}") from error


def _checked(found: Any) -> Mapping[str, Any]:
    """A manifest.

    Raises:
        TypeError, ValueError, TcompError: something in it is not as exports have it.
    """
    _check(found, _MANIFEST, "the manifest")
    name, source = found["name"], found["source"].keys()
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or found["weights"] not in ("", f"{name}.safetensors"):
        raise ValueError(f"it tells of files that an export does not write: {name!r}, {found['weights']!r}")
    if source not in ({"file", "sha256"}, {"made of"}) or not found["variants"]:
        raise ValueError("it does not tell what it was made from")
    for number, v in enumerate(found["variants"]):
        program = program_of(found, number)
        if len(v["constants"]) != len(program.constants) or {k.name for k in program.kernels} != v["kernels"].keys():
            raise ValueError("it tells of other kernels or constants than those of its program")
    result: Mapping[str, Any] = found
    return result


def _check(value: Any, wanted: Any, where: str) -> None:
    """Raises TypeError where a value of a manifest is of another type."""
    kind = dict if isinstance(wanted, dict) else list if isinstance(wanted, list) else wanted
    if type(value) is not kind:
        raise TypeError(f"{where} is no {kind.__name__}")
    if isinstance(wanted, list):
        for x in value:
            _check(x, wanted[0], where)
    elif isinstance(wanted, dict) and str in wanted:
        for key, x in value.items():
            _check(x, wanted[str], f"{where}, {key}")
    elif isinstance(wanted, dict):
        if value.keys() != wanted.keys():
            raise TypeError(f"{where} has other parts: {', '.join(sorted(value.keys() ^ wanted.keys()))}")
        for key, x in value.items():
            _check(x, wanted[key], f"{where}, {key}")


def sealed_text(told: Mapping[str, Any]) -> bytes:
    """A manifest as a text that carries its own seal."""
    seal = hashlib.sha256(_dumped(told)).hexdigest()
    return _dumped({**told, "seal": seal})


def unsealed_text(text: bytes) -> Any:
    """The manifest in such a text.

    Raises:
        ValueError: one of its bytes is not what it was.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or _dumped(found) != text:
        raise ValueError("its bytes are not those that were exported")
    seal = found.pop("seal", "")
    if hashlib.sha256(_dumped(found)).hexdigest() != seal:
        raise ValueError("its bytes are not those that were exported")
    return found


def _dumped(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, indent=1).encode()


def _expanded(data: bytes) -> bytes:
    """What was compressed.

    Raises:
        ValueError: it is damaged, or longer than manifests are.
    """
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
