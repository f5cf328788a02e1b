"""Arrays in files that are whole or not there: models and checkpoints, as safetensors."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
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

    A symbolic link stays one, a file keeps its mode. Several processes may write to one name: the last one wins, whole. What killed
    ones leave behind (.NAME.PID.*.part) goes with the next write.

    Raises:
        OSError: the place cannot be written, or is no regular file.
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    plain = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    _remove_leftovers(target)
    handle, part = tempfile.mkstemp(".part", f".{target.name}.{os.getpid()}.", target.parent)
    try:
        with open(handle, "wb") as file:
            file.write(save(plain, {_CHECKSUM: _checksum(plain)}))
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _mode_of(target: Path) -> int:
    """The mode that the file is to have: the one it has, else what the process gives to new files."""
    try:
        status = target.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"cannot write to {target}: it is no regular file")
    return stat.S_IMODE(status.st_mode)


def _remove_leftovers(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\..*\.part")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match is None:
            continue
        try:
            os.kill(int(match[1]), 0)
        except (ProcessLookupError, OverflowError):  # its writer is gone
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
        except OSError:
            continue


def read_safetensors(path: str | os.PathLike[str], needs_checksum: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
        needs_checksum: refuse a file without one: of another program, or with the entry removed.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged, or no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no regular file")
    try:
        with safe_open(path, "np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            expected = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    if expected is None and needs_checksum:
        raise ValueError(f"{path} has no checksum: it was not written by frontend, or was changed since")
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
