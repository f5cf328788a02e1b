"""How the threads of a launch touch memory: the width of their accesses, what of each 32 bytes they use, conflicts of banks.

Told from a launch's loops, without a GPU. A warp is that of the first threads of the first block, in the first round of all loops around an
access; conditions are taken to hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd, prod

from ...ir.arith import linear
from ...ir.expr import (
    Add,
    Broadcast,
    Buffer,
    Call,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Load,
    Max,
    Min,
    Mul,
    Ramp,
    Sub,
    Var,
)
from ...ir.matrix_intrin import SIDE
from ...ir.node import walk
from ...ir.query import as_int
from ...ir.stmt import For, If, Let, Stmt, Store, sub_statements
from ...target.cuda import WARP
from .launches import AXES, GridLaunch, is_of_warp

SECTOR = 32
"""Bytes that memory and the L2 cache hand over at once."""
BANKS, BANK_BYTES = 32, 4
"""Of shared memory: each gives so many bytes a cycle."""
WIDEST = 16
"""Bytes that a thread moves at once, at most."""


@dataclass(frozen=True)
class Accesses:
    """What a launch's threads ask of memory.

    Attributes:
        global_bytes: that warps ask for of the device's memory or its caches, what several of its threads ask for counted once; an extent that is
            open counts as 1.
        wide_bytes: of these, by accesses of 16 bytes.
        sector_bytes: what is handed over for them, in whole sectors.
        wavefronts: cycles that shared memory takes. least: that it would take without conflicts of banks.
    """

    global_bytes: int = 0
    wide_bytes: int = 0
    sector_bytes: int = 0
    wavefronts: int = 0
    least: int = 0

    def __add__(self, other: Accesses) -> Accesses:
        return Accesses(
            self.global_bytes + other.global_bytes,
            self.wide_bytes + other.wide_bytes,
            self.sector_bytes + other.sector_bytes,
            self.wavefronts + other.wavefronts,
            self.least + other.least,
        )

    def __str__(self) -> str:
        told = []
        if self.global_bytes:
            wide = f"{100 * self.wide_bytes / self.global_bytes:.0f} % of {self.global_bytes:,} bytes by 16 at once"
            told.append(f"{wide}, {100 * self.global_bytes / max(self.sector_bytes, 1):.0f} % of each sector used")
        if self.least:
            told.append(f"shared memory: {self.wavefronts / self.least:.2f} cycles for one without conflicts of banks")
        return "; ".join(told)


@dataclass(frozen=True)
class _One:
    """A load or store, and how often a thread does it.

    Attributes:
        known: what variables around it stand for: the number of a thread along an axis, or an expression.
        step: of a tile that a warp moves together, the elements from row to row; 0 of what each thread does by itself.
    """

    buffer: Buffer
    index: Expr
    mask: Expr | None
    lanes: int
    times: int
    known: Known
    step: int = 0


Known = Mapping[Var, int | Expr]


def accesses_of(launch: GridLaunch) -> Accesses:
    """Those of one launch."""
    threads = prod(launch.block) * prod(as_int(e, 1) for e in launch.grid)
    return sum((_told(one, launch.block, threads) for one in _each(launch.body, 1, {})), Accesses())


def _each(s: Stmt, times: int, known: Known) -> Iterator[_One]:
    if isinstance(s, For) and s.thread.startswith("threadIdx"):
        known = {**known, s.var: AXES.index(s.thread[-1])}
    elif isinstance(s, For) and not s.thread.startswith("blockIdx"):
        times *= as_int(s.extent, 1)
    elif isinstance(s, Let):
        known = {**known, s.var: s.value}
    roots: Sequence[Expr] = ()
    if is_of_warp(s):
        yield from _of_tile(s, times, known)
    elif isinstance(s, Store):
        roots = (*s.indices, s.value, *(() if s.mask is None else (s.mask,)))
        yield _One(s.buffer, s.indices[0], s.mask, s.value.dtype.lanes, times, known)
    elif isinstance(s, Let):
        roots = (s.value,)
    elif isinstance(s, If):
        roots = (s.cond,)
    seen: set[int] = set()
    for e in roots:
        for x in walk(e):
            if isinstance(x, Load) and id(x) not in seen:  # what is one object is loaded once
                seen.add(id(x))
                yield _One(x.buffer, x.indices[0], x.mask, x.dtype.lanes, times, known)
    for inner in sub_statements(s):
        yield from _each(inner, times, known)


def _of_tile(s: Stmt, times: int, known: Known) -> Iterator[_One]:
    """What a warp moves from memory to a tile, or back."""
    assert isinstance(s, Store) and isinstance(s.value, Call)
    last = s.value.args[-1]
    step = int(last.value) if isinstance(last, Const) else 0
    for x in (s, *s.value.args):
        if isinstance(x, (Store, Load)) and x.buffer.scope != "warp":
            yield _One(x.buffer, x.indices[0], None, 1, times, known, step)


def _told_tile(one: _One, threads: int) -> Accesses:
    """By runs of 16 bytes, the rows side by side first, as instructions that load matrices take them."""
    size, first = one.buffer.dtype.itemsize, _number(one.index, (0, 0, 0), one.known)
    run, warps = WIDEST // size, threads // WARP
    starts = [(first + row * one.step + column) * size for column in range(0, SIDE, run) for row in range(SIDE)]
    nbytes = SIDE * SIDE * size
    if one.buffer.scope == "shared":
        least = nbytes // (BANKS * BANK_BYTES)
        cycles = _wavefronts([(at, WIDEST) for at in starts])
        return Accesses(wavefronts=cycles * one.times * warps, least=least * one.times * warps)
    sectors = {at // SECTOR for start in starts for at in (start, start + WIDEST - 1)}
    total = nbytes * one.times * warps
    return Accesses(total, total, len(sectors) * SECTOR * one.times * warps)


def _told(one: _One, block: tuple[int, ...], threads: int) -> Accesses:
    if one.buffer.scope == "local":
        return Accesses()
    if one.step:
        return _told_tile(one, threads)
    size, lanes = one.buffer.dtype.itemsize, max(one.index.dtype.lanes, 1)
    width = _width(one, size)
    warp = range(min(WARP, prod(block)))
    places = [_places(one, (t % block[0], t // block[0] % block[1], t // (block[0] * block[1]))) for t in warp]
    warps, rounds = -(-threads // WARP), lanes * size // width
    if one.buffer.scope == "shared":
        passes = [[(p * size, width) for p in found[:: max(width // size, 1)]] for found in places]
        cycles = sum(_wavefronts([p[i] for p in passes if i < len(p)]) for i in range(rounds))
        least = rounds * max(1, -(-len(warp) * width // (BANKS * BANK_BYTES)))
        return Accesses(wavefronts=cycles * one.times * warps, least=min(cycles, least) * one.times * warps)
    asked = {p for found in places for p in found}
    sectors = {p * size // SECTOR for p in asked}
    total, handed = len(asked) * size * one.times * warps, len(sectors) * SECTOR * one.times * warps
    return Accesses(total, total if width == WIDEST else 0, handed)


def _width(one: _One, size: int) -> int:
    """Bytes that a thread moves at once: all lanes, where they are neighbours, all on or off, and begin at a multiple of that."""
    is_masked = one.mask is not None and not isinstance(one.mask, Broadcast) and one.mask.dtype.lanes > 1
    return size if is_masked else run_bytes(one.index, size)


def run_bytes(index: Expr, size: int) -> int:
    """Bytes that the lanes of an index lie together in: those of one element, unless they are neighbours and always begin at a multiple.

    Args:
        size: bytes of an element.
    """
    if not isinstance(index, Ramp) or not isinstance(index.stride, Const) or index.stride.value != 1:
        return size
    form = linear(index.base)
    step = reduce(gcd, form.terms.values(), form.constant)
    width = min(index.lanes * size, WIDEST)
    return width if index.lanes & (index.lanes - 1) == 0 and step * size % width == 0 else size


def _places(one: _One, thread: Sequence[int]) -> list[int]:
    """The offsets that a thread asks for."""
    index = one.index
    if isinstance(index, Ramp):
        base, step = _number(index.base, thread, one.known), _number(index.stride, thread, one.known)
        return [base + step * lane for lane in range(index.lanes)]
    return [_number(index, thread, one.known)]


def _number(e: Expr, thread: Sequence[int], known: Known) -> int:
    """An index in the first round of all loops; what is loaded counts as 0, and so do extents that are open."""
    match e:
        case Const():
            return int(e.value)
        case Var():
            found = known.get(e, e)
            return thread[found] if isinstance(found, int) else 0 if found is e else _number(found, thread, known)
        case Broadcast():
            return _number(e.value, thread, known)
        case Load() | Call():
            return 0
    a, b = (_number(x, thread, known) for x in (e.a, e.b)) if hasattr(e, "a") and hasattr(e, "b") else (0, 0)
    match e:
        case Add():
            return a + b
        case Sub():
            return a - b
        case Mul():
            return a * b
        case FloorDiv():
            return a // b if b else 0
        case FloorMod():
            return a % b if b else 0
        case Min():
            return min(a, b)
        case Max():
            return max(a, b)
    return 0


def _wavefronts(accesses: Sequence[tuple[int, int]]) -> int:
    """Cycles in which shared memory serves a warp: as many threads at once as ask for 128 bytes, and of different words in a bank one after the
    other (NVIDIA, CUDA C++ Programming Guide, section on shared memory).

    Args:
        accesses: (first byte, bytes) of each thread.
    """
    width = accesses[0][1]
    group = max(1, BANKS * BANK_BYTES // max(width, BANK_BYTES))
    cycles = 0
    for first in range(0, len(accesses), group):
        words: dict[int, set[int]] = {}
        for start, nbytes in accesses[first : first + group]:
            for word in range(start // BANK_BYTES, (start + nbytes - 1) // BANK_BYTES + 1):
                words.setdefault(word % BANKS, set()).add(word)
        cycles += max(map(len, words.values()))
    return cycles
