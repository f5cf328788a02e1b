"""Memory planning: where each tensor of a lowered module lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..ir.expr import Expr
from ..ir.graph import Binding, Cond, ConstRef, Function, Operand, Scan, Value
from ..ir.module import IRModule
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


Move = tuple[Slot, Slot, int | Expr]
"""(source, target, bytes)."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where everything lives. The plan of a body counts from where its region of the arena begins; its inputs and outputs are the
    arguments and results of the scan or cond that runs it.

    Attributes:
        slots: of each value and constant.
        constants: names of the constants in use, in slot order; those of bodies are among them.
        arena_bytes: size of the one workspace, the peak of what is alive at once.
        total_bytes: what all intermediate tensors would take, each on its own.
        before: inputs whose bytes a result takes, and which are results of their own, too: moved before anything runs.
        after: results that are not computed in place.
        regions: where the workspaces of bodies begin.
        bodies: the plans of functions that scans and conds run.
    """

    slots: dict[Operand, Slot]
    constants: tuple[str, ...]
    arena_bytes: int
    total_bytes: int
    before: tuple[Move, ...]
    after: tuple[Move, ...]
    regions: dict[Binding, int]
    bodies: dict[str, MemoryPlan]


def plan_memory(module: IRModule) -> MemoryPlan:
    """Assign offsets so that tensors alive at the same time never overlap.

    A reshape shares its argument's bytes. Results are written in place, those that take the place of inputs where `PlaceUpdates`
    found that they may be. The rest is packed into one arena, largest first,
    each at the lowest offset that is free during its whole life (greedy by size: Y. Pisarchyk and J. Lee, Efficient Memory
    Management for Deep Neural Net Inference, 2020). The workspace of a scan's or cond's body lives as long as its call. Symbolic
    extents count with their largest values.
    """
    return _plan(module, module.main, {})


def _plan(module: IRModule, func: Function, constants: dict[str, int]) -> MemoryPlan:
    bodies = {
        name: _plan(module, module.graph(name), constants)
        for b in func.bindings
        if isinstance(b.call, (Scan, Cond))
        for name in b.call.bodies
    }
    source = views(func)
    slots: dict[Operand, Slot] = {p: Slot("input", i) for i, p in enumerate(func.params)}
    for a in (*(a for b in func.bindings for a in b.call.args), *func.results):
        if isinstance(a, ConstRef):
            slots[a] = Slot("constant", constants.setdefault(a.name, len(constants)))
    copies = _place_results(func, source, slots)
    lifetimes = _lifetimes(func, source)
    arena: dict[Value | Binding, tuple[int, int, int]] = {}
    for v, life in lifetimes.items():
        if v not in slots:
            arena[v] = (*life, _aligned(v.type.at(func.bounds).nbytes))
    total = sum(size for _, _, size in arena.values())
    for step, b in enumerate(func.bindings):
        if isinstance(b.call, (Scan, Cond)):
            inner = [bodies[name] for name in b.call.bodies]
            arena[b] = (step, step, max(plan.arena_bytes for plan in inner))
            total += sum(plan.total_bytes for plan in inner)
    kept = {func.params[i]: func.params[i].type.at(func.bounds).nbytes for i in _lost(func, source, copies)}
    arena.update({p: (-1, len(func.bindings), _aligned(size)) for p, size in kept.items()})
    offsets, peak = _pack(arena)
    slots.update({v: Slot("arena", at) for v, at in offsets.items() if isinstance(v, Value) and v not in slots})
    slots.update({view: slots[root] for view, root in source.items()})
    before, after = _moves(func, source, slots, copies, {p: Slot("arena", offsets[p]) for p in kept})
    regions = {b: at for b, at in offsets.items() if isinstance(b, Binding)}
    return MemoryPlan(slots, tuple(constants), peak, total, before, after, regions, bodies)


def _place_results(
    func: Function, source: dict[Operand, Operand], slots: dict[Operand, Slot]
) -> list[tuple[Operand, int]]:
    """Give results that can be written in place their slots; the other ones, with their numbers."""
    updates = {result: param for param, result in func.attrs.get("updates", ())}
    copies: list[tuple[Operand, int]] = []
    for i, r in enumerate(func.results):
        root = source.get(r, r)
        may_write = i not in updates or i in func.attrs.get("direct", ())
        if isinstance(root, Value) and root not in slots and may_write:
            slots[root] = Slot("output", i)
        elif i not in updates or root is not func.params[updates[i]]:
            copies.append((r, i))
    return copies


def _overwritten(func: Function) -> dict[Operand, int]:
    """The inputs whose bytes a result takes, and which one."""
    return {func.params[param]: result for param, result in func.attrs.get("updates", ())}


def _lost(func: Function, source: dict[Operand, Operand], copies: list[tuple[Operand, int]]) -> list[int]:
    """The numbers of inputs that are overwritten, and are results that overwrite other inputs: two that swap, for one."""
    updated = _overwritten(func)
    targets = set(updated.values())
    lost = {source.get(r, r) for r, i in copies if i in targets} & updated.keys()
    return [i for i, p in enumerate(func.params) if p in lost]


def _moves(
    func: Function,
    source: dict[Operand, Operand],
    slots: dict[Operand, Slot],
    copies: list[tuple[Operand, int]],
    kept: dict[Operand, Slot],
) -> tuple[tuple[Move, ...], tuple[Move, ...]]:
    """The copies of results, before anything runs and after everything: an input that is overwritten must be read before."""
    updated = _overwritten(func)
    targets = set(updated.values())
    before = [(slots[p], slot, p.type.nbytes) for p, slot in kept.items()]
    after = []
    for r, i in copies:
        root, nbytes = source.get(r, r), r.type.nbytes
        if root in kept and i in targets:
            after.append((kept[root], Slot("output", i), nbytes))
        elif root in updated:
            before.append((slots[r], Slot("output", i), nbytes))
        else:
            after.append((slots[r], Slot("output", i), nbytes))
    return tuple(before), tuple(after)


def _aligned(size: int) -> int:
    return max(-(-size // ALIGN) * ALIGN, ALIGN)


def _lifetimes(func: Function, source: dict[Operand, Operand]) -> dict[Value, tuple[int, int]]:
    """(first, last) step of each value that owns bytes."""
    lives: dict[Value, tuple[int, int]] = {}
    for step, b in enumerate(func.bindings):
        for r in b.results:
            if r not in source:
                lives[r] = (step, step)
        for a in b.call.args:
            root = source.get(a, a)
            if isinstance(root, Value) and root in lives:
                lives[root] = (lives[root][0], step)
    for root in (source.get(r, r) for r in func.results):
        if isinstance(root, Value) and root in lives:
            lives[root] = (lives[root][0], len(func.bindings))
    return lives


def _pack(items: dict[Value | Binding, tuple[int, int, int]]) -> tuple[dict[Value | Binding, int], int]:
    offsets: dict[Value | Binding, int] = {}
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
