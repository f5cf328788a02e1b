"""What compiling made, on disk, under a key of what it was made from.

An entry is written to a temporary name and renamed, so that processes never see half of one. It carries a digest of its key and
its bytes: one that is damaged, or stands under another key (made for another program or CPU), is dropped and made anew. A folder that
others own or may write to is not used: whoever writes there could run code here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from llvmlite import __version__ as llvmlite_version
from platformdirs import user_cache_dir

from ..config import config
from ..memory import ALIGN, aligned_empty

OBJECTS = "objects"
PROGRAMS = "programs"
"""Folders inside `cache_folder()`."""
_MAGIC = b"TCOMP cached entry, version 3\0\0\0"
_DIGEST = 32
_HEADER = len(_MAGIC) + _DIGEST
assert _HEADER == ALIGN  # what follows is aligned as it was written


@cache
def fingerprint() -> str:
    """What besides the program and the target decides the object code: tcomp's own sources, and LLVM's version."""
    digest = hashlib.blake2b(llvmlite_version.encode(), digest_size=16)
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        status = path.stat()
        digest.update(f"{path.relative_to(root)}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()


def cache_folder() -> Path:
    """TCOMP_CACHE_DIR, else the user's cache folder."""
    return Path(config().cache_dir or user_cache_dir("tcomp"))


def _digest(key: str, parts: Sequence[bytes | np.ndarray]) -> bytes:
    digest = hashlib.sha256(len(key).to_bytes(8, "little") + key.encode())
    for p in parts:
        digest.update(p)
    return digest.digest()


def _read_regular(path: Path) -> np.ndarray:
    """A file's bytes; never waits for a pipe.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb", buffering=0) as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        data = aligned_empty(max(status.st_size, 1))[: status.st_size]
        at = 0
        while at < len(data) and (count := file.readinto(data[at:])):
            at += count
        return data[:at]


@cache
def _is_ours(folder: Path) -> bool:
    """Whether nobody else may write to a folder (or it does not exist yet)."""
    if not hasattr(os, "getuid"):
        return True
    try:
        status = folder.stat()
    except OSError:
        return True
    if status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return True
    warnings.warn(f"the cache {folder} is not used: others own it or may write to it", stacklevel=3)
    return False


class DiskCache:
    """A folder of entries by key. All failures to read or write count as misses: the cache is never needed.

    Args:
        suffix: of its files.
        limit: bytes that its entries may take; those that were not used for longest go first. None for any number.
    """

    def __init__(self, folder: Path, suffix: str, limit: int | None = None) -> None:
        self.folder = folder
        self.suffix = suffix
        self.limit = limit
        self.enabled = config().use_cache and _is_ours(self.folder)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{self.suffix}"

    def read(self, key: str) -> np.ndarray | None:
        """The bytes of an entry, aligned to a cache line; None where there is none or it is damaged."""
        if not self.enabled:
            return None
        path = self.path(key)
        try:
            data = _read_regular(path)
        except OSError:
            return None
        header, payload = data[:_HEADER].tobytes(), data[_HEADER:]
        if header == _MAGIC + _digest(key, [payload]):
            if self.limit is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)
            return payload
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def write(self, key: str, parts: Sequence[bytes | np.ndarray]) -> None:
        """Keep an entry: its parts, one behind the other."""
        if not self.enabled or (self.limit is not None and _size(parts) > self.limit):
            return
        target = self.path(key)
        try:
            for folder in (self.folder, target.parent):
                folder.mkdir(0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
            try:
                with os.fdopen(handle, "wb") as f:
                    f.write(_MAGIC + _digest(key, parts))
                    for p in parts:
                        f.write(p)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
            if self.limit is not None:
                self._make_room(target, self.limit)
        except OSError:
            return

    def _make_room(self, newest: Path, limit: int) -> None:
        """Delete the entries that were not used for longest, until the rest fit; the newest stays."""
        entries = [(p.stat(), p) for p in self.folder.rglob(f"*{self.suffix}") if p != newest]
        room = limit - newest.stat().st_size
        for status, p in sorted(entries, key=lambda e: e[0].st_mtime_ns, reverse=True):
            room -= status.st_size
            if room < 0:
                p.unlink(missing_ok=True)


def _size(parts: Sequence[bytes | np.ndarray]) -> int:
    return sum(memoryview(p).nbytes for p in parts)


class ObjectCache(DiskCache):
    """Object code by key."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder or cache_folder() / OBJECTS, ".o")

    def get(self, key: str) -> bytes | None:
        """The object code, or None where there is none or it is damaged."""
        found = self.read(key)
        return None if found is None else found.tobytes()

    def put(self, key: str, payload: bytes) -> None:
        """Keep object code."""
        self.write(key, [payload])
