"""Writing several files, all or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import TcompError


def place(files: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write files so that each is there whole, or as it was before; returns their paths.

    Raises:
        TcompError: one of them cannot be written.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, data in files.items():
            part = path.with_name(f".{path.name}.part")
            written.append((part, path))
            part.write_bytes(data)
        for part, path in written:
            os.replace(part, path)
    except OSError as error:
        for part, _ in written:
            part.unlink(missing_ok=True)
        raise TcompError(f"cannot write {path}", why=error.strerror or str(error)) from error
    return tuple(files)
