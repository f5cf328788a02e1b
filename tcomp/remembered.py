"""Models that were compiled before: the whole executable is on disk, so that a file need not even be read as a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .codegen.cache import PROGRAMS, DiskCache, cache_folder, fingerprint
from .config import config
from .errors import TcompError
from .runtime import saved

if TYPE_CHECKING:
    from .backends import Backend
    from .runtime.device.base import Library
    from .runtime.executable import TextViews
    from .runtime.program import Program


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the executable of a file is kept, for given options.

    Attributes:
        file: the model. stamp: its size and time, when its bytes were counted in the key.
    """

    cache: DiskCache
    key: str
    file: Path
    stamp: tuple[int, int]

    def load(self, backend: Backend) -> tuple[Program, Library] | None:
        """What was kept; None where there is nothing, or files beside the model are not what they were."""
        data = self.cache.read(self.key)
        if data is None:
            return None
        data.flags.writeable = False
        if data.base is not None:
            data.base.flags.writeable = False
        try:
            program, objects, notes = saved.load(data)
            if any(_digest(self.file.parent / name) != digest for name, digest in notes["beside"].items()):
                return None
            return program, backend.load(objects)
        except (TcompError, OSError):
            return None

    def save(self, program: Program, library: Library, beside: Sequence[str]) -> None:
        """Keep an executable.

        Args:
            beside: the files besides the model's own that it was read from, by their places in its folder.
        """
        try:
            digests = {name: _digest(self.file.parent / name) for name in beside}
            if library.objects and _stamp(self.file) == self.stamp:
                self.cache.write(self.key, saved.dump(program, library.objects, {"beside": digests}))
        except OSError:
            return


def entry_of(
    model: Any,
    inputs: Any,
    dims: Mapping[str, Any] | None,
    shapes: Mapping[str, Any] | None,
    options: Sequence[Any],
) -> Entry | None:
    """The entry of a model that is a file; None for others, or where nothing is to be kept."""
    settings = config()
    if not isinstance(model, (str, os.PathLike)) or settings.verify or settings.dump or not settings.cache_mib:
        return None
    cache = DiskCache(cache_folder() / PROGRAMS, ".program", settings.cache_mib << 20)
    given = inputs if isinstance(inputs, (list, tuple)) else [] if inputs is None else [inputs]
    if not cache.enabled or not all(hasattr(x, "shape") for x in given):
        return None
    file = Path(model)
    try:
        stamp = _stamp(file)
        content = _digest(file)
    except OSError:
        return None
    asked = [
        [tuple(x.shape) for x in given],
        sorted((dims or {}).items()),
        sorted((name, tuple(s)) for name, s in (shapes or {}).items()),
        inputs is None,
        settings.code_limit,
        *options,
    ]
    key = hashlib.sha256(f"{content}|{file.name}|{asked!r}|{fingerprint()}".encode()).hexdigest()[:40]
    return Entry(cache, key, file, stamp)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _digest(file: Path) -> str:
    if not file.is_file():  # a pipe, or a device, may have no end
        raise OSError(f"{file} is no file")
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class LaterStages:
    """The stages of a model that was found compiled: made when first asked for.

    Args:
        make: compiles it again.
    """

    def __init__(self, make: Callable[[], TextViews]) -> None:
        self._make = make

    @cached_property
    def _views(self) -> TextViews:
        return self._make()

    @property
    def kernels(self) -> Mapping[str, Any]:
        return self._views.kernels

    def __call__(self, stage: str, kernel: str | None = None) -> str:
        return self._views(stage, kernel)
