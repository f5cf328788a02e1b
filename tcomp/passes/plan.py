"""Memory planning: where each tensor of a lowered entry function lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..ir.expr import Expr
from ..ir.graph import ConstRef, Function, Operand, Value
from .update import views

ALIGN = 64
Place = Literal["input", "output", "constant", "arena"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in memory: an input, output or constant by number, or an offset in the arena.

    Attributes:
        space: the memory of the device that runs the program, or that of the host.
    """

    place: Place
    at: int
    space: Literal["device", "host"] = "device"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where everything lives.

    Attributes:
        slots: of each value and constant.
        constants: names of the constants in use, in slot order.
        arena_bytes: size of the one workspace, the peak of what is alive at once.
        total_bytes: what all intermediate tensors would take, each on its own.
        copies: (source, output number, bytes): results that are not computed in place.
    """

    slots: dict[Operand, Slot]
    constants: tuple[str, ...]
    arena_bytes: int
    total_bytes: int
    copies: tuple[tuple[Slot, int, int | Expr], ...]


def plan_memory(main: Function) -> MemoryPlan:
    """Assign offsets so that tensors alive at the same time never overlap.

    A reshape shares its argument's bytes. Results are written in place, those that take the place of inputs where `PlaceUpdates`
    found that they may be. The rest is packed into one arena, largest first,
    each at the lowest offset that is free during its whole life (greedy by size: Y. Pisarchyk and J. Lee, Efficient Memory
    Management for Deep Neural Net Inference, 2020). Symbolic extents count with their largest values.
    """
    source = views(main)
    updates = {result: param for param, result in main.attrs.get("updates", ())}
    slots: dict[Operand, Slot] = {p: Slot("input", i) for i, p in enumerate(main.params)}
    constants: dict[str, int] = {}

    def note(a: Operand) -> None:
        if isinstance(a, ConstRef):
            slots[a] = Slot("constant", constants.setdefault(a.name, len(constants)))

    for b in main.bindings:
        for a in b.call.args:
            note(a)
    for r in main.results:
        note(r)
    copies: list[tuple[Operand, int]] = []
    for i, r in enumerate(main.results):
        root = source.get(r, r)
        may_write = i not in updates or i in main.attrs.get("direct", ())
        if isinstance(root, Value) and root not in slots and may_write:
            slots[root] = Slot("output", i)
        elif i not in updates or root is not main.params[updates[i]]:
            copies.append((r, i))
    lifetimes = _lifetimes(main, source)
    arena = {v: life for v, life in lifetimes.items() if v not in slots}
    size = {v: _aligned(v.type.at(main.bounds).nbytes) for v in arena}
    offsets, peak = _pack({v: (*life, size[v]) for v, life in arena.items()})
    slots.update({v: Slot("arena", offset) for v, offset in offsets.items()})
    for v, root in source.items():
        slots[v] = slots[root]
    done = tuple((slots[r], i, r.type.nbytes) for r, i in copies)
    return MemoryPlan(slots, tuple(constants), peak, sum(size.values()), done)


def _aligned(size: int) -> int:
    return max(-(-size // ALIGN) * ALIGN, ALIGN)


def _lifetimes(main: Function, source: dict[Operand, Operand]) -> dict[Value, tuple[int, int]]:
    """(first, last) step of each value that owns bytes."""
    lives: dict[Value, tuple[int, int]] = {}
    for step, b in enumerate(main.bindings):
        for r in b.results:
            if r not in source:
                lives[r] = (step, step)
        for a in b.call.args:
            root = source.get(a, a)
            if isinstance(root, Value) and root in lives:
                lives[root] = (lives[root][0], step)
    for r in main.results:
        root = source.get(r, r)
        if isinstance(root, Value) and root in lives:
            lives[root] = (lives[root][0], len(main.bindings))
    return lives


def _pack(items: dict[Value, tuple[int, int, int]]) -> tuple[dict[Value, int], int]:
    offsets: dict[Value, int] = {}
    peak = 0
    for v, (first, last, size) in sorted(items.items(), key=lambda item: (-item[1][2], item[1][0])):
        busy = sorted(
            (offsets[o], offsets[o] + items[o][2]) for o in offsets if items[o][0] <= last and first <= items[o][1]
        )
        offset = 0
        for low, high in busy:
            if offset + size <= low:
                break
            offset = max(offset, high)
        offsets[v] = offset
        peak = max(peak, offset + size)
    return offsets, peak
