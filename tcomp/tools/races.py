"""Brute force: run a kernel and note every access, to see whether loops that run side by side are free of races.

This shares nothing with the dependence analysis that it judges. A loop's iterations may run in any order, at once, when no
two of them touch one element that one of them writes. A buffer that only the loop uses may be private to each iteration,
unless an iteration reads what another one wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.expr import Load, Var
from ..ir.interp import Emitter, evaluate, load, store
from ..ir.node import walk
from ..ir.primfunc import PrimFunc
from ..ir.reduction import start_empty
from ..ir.stmt import For, Stmt, Store, walk_statements

_SPECIAL = ("parallel", "vectorized", "bound")


class _Recorder:
    """What happens in the loops that are being watched."""

    def __init__(self) -> None:
        self.active: list[list[Any]] = []
        self.races: list[str] = []

    def enter(self, name: str, private: frozenset[str]) -> None:
        self.active.append([name, private, None, {}])

    def step(self, value: int) -> None:
        self.active[-1][2] = value

    def note(self, buffer: str, index: tuple[int, ...], is_write: bool) -> None:
        for name, private, iteration, seen in self.active:
            last_writer, users, written = seen.get((buffer, index), (None, set(), False))
            if buffer in private:
                if not is_write and last_writer is not None and last_writer != iteration:
                    self.races.append(f"{name}: {buffer}{list(index)} flows from {last_writer} to {iteration}")
            else:
                users = users | {iteration}
                if len(users) > 1 and (written or is_write):
                    self.races.append(f"{name}: {buffer}{list(index)} is shared by iterations {sorted(users)}")
            seen[buffer, index] = (iteration if is_write else last_writer, users, written or is_write)

    def exit(self) -> None:
        self.active.pop()


class _Watcher(Emitter):
    """Emits the program with calls that report loops and accesses."""

    def __init__(self, func: PrimFunc, skip: frozenset[Var]) -> None:
        super().__init__()
        self.func, self.skip = func, skip

    def stmt(self, s: Stmt, depth: int) -> None:
        if not isinstance(s, For) or s.kind not in _SPECIAL or s.var in self.skip:
            super().stmt(s, depth)
            return
        private = frozenset(b.name for b in self.func.allocs if not _used_outside(self.func, s, b))
        self.emit(depth, f"_recorder.enter({s.var.name!r}, {private!r})")
        self.emit(depth, f"for {self.name(s.var)} in range({self.expr(s.extent)}):")
        self.emit(depth + 1, f"_recorder.step({self.name(s.var)})")
        self.stmt(s.body, depth + 1)
        self.emit(depth, "_recorder.exit()")


def _used_outside(func: PrimFunc, loop: For, buffer: Any) -> bool:
    def uses(root: Stmt) -> int:
        return sum(isinstance(x, (Load, Store)) and x.buffer is buffer for x in walk(root))

    return uses(func.body) != uses(loop.body)


def races(
    func: PrimFunc, inputs: Sequence[np.ndarray], dims: Mapping[Var, int], skip: frozenset[Var] = frozenset()
) -> list[str]:
    """What the iterations of parallel, vectorized and bound loops do to each other, in words; empty where nothing.

    Args:
        skip: loops that need not be free of races.
    """
    if not any(isinstance(s, For) and s.kind in _SPECIAL and s.var not in skip for s in walk_statements(func.body)):
        return []
    recorder = _Recorder()

    def note_load(array: np.ndarray, name: str, index: tuple[Any, ...], mask: Any = None) -> Any:
        recorder.note(name, tuple(map(int, index)), False)
        return load(array, name, index, mask)

    def note_store(array: np.ndarray, name: str, index: tuple[Any, ...], value: Any, mask: Any = None) -> None:
        recorder.note(name, tuple(map(int, index)), True)
        store(array, name, index, value, mask)

    outputs = [np.zeros([evaluate(e, dims) for e in b.shape], b.dtype.numpy) for b in func.outputs]
    func = start_empty(func)
    source, scope = _Watcher(func, skip).function(func)
    scope.update(_recorder=recorder, _load=note_load, _store=note_store)
    exec(compile(source, "<watched>", "exec"), scope)
    with np.errstate(all="ignore"):
        scope["run"](*inputs, *outputs, *(dims[v] for v in func.dims))
    return recorder.races
