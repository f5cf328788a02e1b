"""Object code on disk, under a key of what it was made from.

An entry is written to a temporary name and renamed, so that processes never see half of one. It carries a digest; an entry
that does not match it is dropped and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from llvmlite import __version__ as llvmlite_version
from platformdirs import user_cache_dir

from ..config import config

_MAGIC = b"TCOMPOBJ1"
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


class ObjectCache:
    """A folder of object files by key. All failures to read or write count as misses: the cache is never needed."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.enabled = config().use_cache

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.o"

    def get(self, key: str) -> bytes | None:
        """The object code, or None where there is none or it is damaged."""
        if not self.enabled:
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        digest, payload = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
        if data.startswith(_MAGIC) and hashlib.blake2b(payload, digest_size=_DIGEST).digest() == digest:
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
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
            try:
                with os.fdopen(handle, "wb") as f:
                    f.write(_MAGIC + hashlib.blake2b(payload, digest_size=_DIGEST).digest() + payload)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return
