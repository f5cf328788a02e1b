"""Object code on disk, under a key of what it was made from.

An entry is written to a temporary name and renamed, so that processes never see half of one. It carries a digest of its key and
its code: one that is damaged, or stands under another key (made for another program or CPU), is dropped and made anew. A folder that
others own or may write to is not used: whoever writes there could run code here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import warnings
from functools import cache
from pathlib import Path

from llvmlite import __version__ as llvmlite_version
from platformdirs import user_cache_dir

from ..config import config

_MAGIC = b"TCOMPOBJ2"
_DIGEST = 32


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
    return Path(config().cache_dir or user_cache_dir("tcomp")) / "objects"


def _digest(key: str, payload: bytes) -> bytes:
    return hashlib.blake2b(len(key).to_bytes(8, "little") + key.encode() + payload, digest_size=_DIGEST).digest()


def _read_regular(path: Path) -> bytes:
    """A file's bytes; never waits for a pipe.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read()


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
    warnings.warn(f"the object cache {folder} is not used: others own it or may write to it", stacklevel=3)
    return False


class ObjectCache:
    """A folder of object files by key. All failures to read or write count as misses: the cache is never needed."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.enabled = config().use_cache and _is_ours(self.folder)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.o"

    def get(self, key: str) -> bytes | None:
        """The object code, or None where there is none or it is damaged."""
        if not self.enabled:
            return None
        try:
            data = _read_regular(self.path(key))
        except OSError:
            return None
        digest, payload = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
        if data.startswith(_MAGIC) and _digest(key, payload) == digest:
            return payload
        with contextlib.suppress(OSError):
            self.path(key).unlink()
        return None

    def put(self, key: str, payload: bytes) -> None:
        """Keep object code."""
        if not self.enabled:
            return
        target = self.path(key)
        try:
            for folder in (self.folder, target.parent):
                folder.mkdir(0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
            try:
                with os.fdopen(handle, "wb") as f:
                    f.write(_MAGIC + _digest(key, payload) + payload)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return
