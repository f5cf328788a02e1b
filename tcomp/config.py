"""Settings from the environment, read once.

| variable | meaning | default |
| --- | --- | --- |
| `TCOMP_NUM_THREADS` | threads of a parallel loop | the cores this process may use |
| `TCOMP_CACHE_DIR` | folder of cached object code and compiled models | the user's cache folder |
| `TCOMP_CACHE` | 0 switches the cache off | 1 |
| `TCOMP_CACHE_MIB` | how much whole models may take in the cache, with their weights | 4096 |
| `TCOMP_DUMP` | folder that receives the program after each pass that changed it | none |
| `TCOMP_VERIFY` | 0: check the final program; 1: after each pass; 2: also run it in the interpreter | 0 |
| `TCOMP_CODE_LIMIT` | instructions that unrolling and vectorizing may make of a block, before a step is refused | 32768 |
| `TCOMP_WORKERS` | processes that help to build the kernels of a large model | the cores but one |
| `TCOMP_TUNE_DB` | file of records of `tcomp.tune`, whose schedules `compile` uses | none |
| `TCOMP_SPIN` | turns a waiting thread spins before it sleeps (200-4000 are sensible); while a model runs 64 times as many | 1000 |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import overload

from .errors import TcompError


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; see the module's table."""

    num_threads: int | None = None
    cache_dir: str | None = None
    use_cache: bool = True
    cache_mib: int = 4096
    dump: str | None = None
    verify: int = 0
    code_limit: int = 32768
    workers: int | None = None
    spin: int = 1000
    tune_db: str | None = None


@overload
def _integer(name: str, default: int, low: int, high: int) -> int: ...
@overload
def _integer(name: str, default: None, low: int, high: int) -> int | None: ...
def _integer(name: str, default: int | None, low: int, high: int) -> int | None:
    text = os.environ.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise TcompError(f"bad setting {name}={text!r}", why=f"it must be an integer from {low} to {high}")
    return int(text)


@cache
def config() -> Config:
    """The settings of this process.

    Raises:
        TcompError: a variable holds something that it cannot mean.
    """
    return Config(
        num_threads=_integer("TCOMP_NUM_THREADS", None, 1, 1024),
        cache_dir=os.environ.get("TCOMP_CACHE_DIR") or None,
        use_cache=bool(_integer("TCOMP_CACHE", 1, 0, 1)),
        cache_mib=_integer("TCOMP_CACHE_MIB", 4096, 0, 1 << 30),
        dump=os.environ.get("TCOMP_DUMP") or None,
        verify=_integer("TCOMP_VERIFY", 0, 0, 2),
        code_limit=_integer("TCOMP_CODE_LIMIT", 32768, 1, 1 << 40),
        workers=_integer("TCOMP_WORKERS", None, 0, 1024),
        spin=_integer("TCOMP_SPIN", 1000, 0, 1_000_000),
        tune_db=os.environ.get("TCOMP_TUNE_DB") or None,
    )


@cache
def memory_bytes() -> int:
    """Physical memory of this machine; 64 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 36
