"""The steps of a compiled module's entry function, as data."""

from __future__ import annotations

from dataclasses import dataclass

ENTRY = "tcomp_main"


@dataclass(frozen=True, slots=True)
class Argument:
    """A pointer that a kernel receives: number `index` of a table ("args" or "consts"), or an offset in the arena.

    Attributes:
        kind: "args", "consts", "arena" or "dims" (an i64 by value).
    """

    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class KernelCall:
    """symbol(arguments...)."""

    symbol: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """A result that is not computed in place."""

    source: Argument
    target: Argument
    nbytes: int
