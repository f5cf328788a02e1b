"""Arrays in files that are whole or not there: models and checkpoints, as safetensors."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_CHECKSUM = "crc32"
"""The entry of a file's metadata that tells whether its arrays are as they were written; files of other programs have none."""


def write_safetensors(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write arrays to a file that takes its name when it is whole and on the disk; until then the one before stays.

    What a process that is killed meanwhile leaves behind (.NAME.part) is overwritten by the next one.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    plain = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    try:
        with open(part, "wb") as file:
            file.write(save(plain, {_CHECKSUM: _checksum(plain)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged.
    """
    try:
        with safe_open(path, "np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            expected = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    if expected is not None and expected != _checksum(found):
        raise ValueError(f"{path} is damaged: its arrays are not those that were written (their checksum differs)")
    return found


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    total = 0
    for name in sorted(arrays):
        a = arrays[name]
        total = zlib.crc32(f"{name} {a.dtype} {a.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8), total)
    return f"{total:08x}"
