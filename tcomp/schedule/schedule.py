"""Schedule: the user's handle on a kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from ..analysis.check import check
from ..analysis.regions import accesses, blocks_under, consumers, loops_around, producers, reads, writes
from ..config import config
from ..errors import ExprError, ScheduleError, TcompError
from ..ir.expr import Buffer, Var
from ..ir.index_map import IndexMap
from ..ir.primfunc import PrimFunc
from ..ir.printer import excerpt, text
from ..ir.query import MAX_NEST, as_int
from ..ir.stmt import nest_depth
from ..ir.verify import verify
from ..lazy import lazy_module
from ..target import Target
from .inspection import Estimate, difference, estimate, explain
from .primitives import ALL, BlockRef, Refusal, why_not
from .primitives.sampling import DRAW
from .steps import Steps
from .trace import Step, Trace

console = lazy_module("rich.console")
syntax = lazy_module("rich.syntax")
report = lazy_module("tcomp.schedule.report")


class Schedule(Steps):
    """Transforms a kernel step by step; each step is checked, and one that is refused changes nothing.

    A loop's handle is its iteration variable: it stays valid as long as the loop exists. A block's handle is its name.

        sch = Schedule(func)
        c = sch.get_block("C")
        i, j, k = sch.get_loops(c)
        i0, i1 = sch.split(i, [None, 8])

    Attributes:
        func: the kernel as it stands.
        trace: the steps so far.
        history: each step that changed something, and the kernel before it.

    Args:
        seed: of the decisions of `sample_...` steps.
    """

    def __init__(self, func: PrimFunc, seed: int | None = None) -> None:
        if not isinstance(func, PrimFunc):
            raise ScheduleError(
                f"a Schedule is of a PrimFunc, got {type(func).__name__}", hint="te.create_prim_func(...)"
            )
        verify(func)
        self.func = func
        self.trace = Trace()
        self.history: list[tuple[Step, PrimFunc]] = []
        self.rng = Random(seed)
        self._consumed: dict[Any, str] = {}

    def copy(self) -> Schedule:
        """An independent schedule in the same state; handles are valid in both."""
        other = Schedule.__new__(Schedule)
        other.restore(self)
        other.rng = Random()
        other.rng.setstate(self.rng.getstate())
        return other

    def __str__(self) -> str:
        return text(self.func)

    def show(self) -> None:
        """Print the loop nest; in colours on a terminal."""
        shown = text(self.func)
        if sys.stdout.isatty():
            console.Console().print(syntax.Syntax(shown, "python", background_color="default"))
        else:
            print(shown)

    def explain(self, loop: Var) -> str:
        """What a loop runs over, and whether it may be parallel, vectorized, unrolled or bound, with the reason."""
        return explain(self.func, self._loop(loop))

    def diff(self) -> str:
        """What the last step changed, as a unified diff; empty where there was none."""
        return difference(self.history[-1][1], self.func) if self.history else ""

    def estimate(self, target: str | Target = "cpu", **sizes: int) -> Estimate:
        """Operations, bytes moved into each level of memory, registers of the inner tile: by arithmetic, not measured.

        Args:
            sizes: values of symbolic extents, by name.
        """
        return estimate(self.func, Target.parse(target), sizes)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML page that steps through the schedule; returns its path."""
        return report.write(path, report.page(self.func.name, self.history, self.func))

    # looking around

    def get_block(self, name: str) -> BlockRef:
        """The handle of a block.

        Raises:
            ScheduleError: there is no such block.
        """
        if name not in self.func.blocks:
            raise self._error(f"no block {name!r}", f"the blocks are {', '.join(self.func.blocks)}")
        ref = BlockRef(name)
        if not self.trace.knows(ref):
            self.trace.record("get_block", (name,), ref)
        return ref

    def get_blocks(self) -> list[BlockRef]:
        """The handles of all blocks, in program order."""
        return [BlockRef(name) for name in self.func.blocks]

    def get_loops(self, block: BlockRef | str) -> list[Var]:
        """The loops around a block, outermost first."""
        ref = self._block(block)
        from_root = [s.var for s in loops_around(self.func, self.func.blocks[ref.name])]
        if not all(map(self.trace.knows, from_root)):
            self.trace.record("get_loops", (ref,), from_root)
        return from_root

    def get_producers(self, block: BlockRef | str) -> list[BlockRef]:
        """The blocks that write what a block reads, in program order."""
        known = self.func.blocks[self._block(block).name]
        read = {a.buffer for a in accesses(known) if not a.is_write}
        return self._refs(p for b in read for p in producers(self.func, b) if p is not known)

    def get_consumers(self, block: BlockRef | str) -> list[BlockRef]:
        """The blocks that read what a block writes, in program order."""
        known = self.func.blocks[self._block(block).name]
        return self._refs(c for b in writes(known) for c in consumers(self.func, b) if c is not known)

    def get_output_blocks(self) -> list[BlockRef]:
        """The blocks that write outputs of the kernel, in program order."""
        return self._refs(b for b in self.func.blocks.values() if set(writes(b)) & set(self.func.outputs))

    def get_child_blocks(self, loop: Var) -> list[BlockRef]:
        """The blocks inside a loop, in program order."""
        return self._refs(blocks_under(self.func.loops[self._loop(loop)]))

    def _refs(self, found: Iterable[Any]) -> list[BlockRef]:
        names = {b.name for b in found}
        return [BlockRef(name) for name in self.func.blocks if name in names]

    def get_extent(self, loop: Var) -> Any:
        """A loop's extent: an int, or an expression of symbolic extents."""
        extent = self.func.loops[self._loop(loop)].extent
        value = as_int(extent)
        return extent if value is None else value

    # machinery

    def why_not(self, primitive: str, *args: Any) -> Refusal | None:
        """Why a step would be refused, without raising and without doing it; None where it is legal.

        Args:
            primitive: the method's name; args: resolved handles, as the primitive's check takes them.
        """
        return why_not(self.func, primitive, *args)

    def _run(self, name: str, *args: Any) -> Any:
        try:
            refused = why_not(self.func, name, *args)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            if isinstance(error, TcompError):
                raise
            shown = ", ".join(repr(a) for a in args)
            why = f"an argument is of the wrong kind ({type(error).__name__}: {error})"
            raise self._error(f"cannot {name}({shown[:200]})", why) from error
        if refused is not None:
            raise self._error(refused.what, refused.why, refused.marks, refused.hint)
        before = self.func
        func, results = ALL[name].apply(before, *args)
        if len(func.loops) > MAX_NEST and nest_depth(func.body) > MAX_NEST:
            shown = ", ".join(getattr(a, "name", None) or repr(a) for a in args)
            raise self._error(
                f"cannot {name}({shown[:200]})", f"more than {MAX_NEST} loops would stand one inside another"
            )
        if config().verify:
            check(func)
        step = self.trace.record(name, args, results)
        self.func = func
        self.history.append((step, before))
        gone = (before.loops.keys() - func.loops.keys(), before.blocks.keys() - func.blocks.keys())
        self._consumed.update(dict.fromkeys((handle for handles in gone for handle in handles), step.as_python()))
        return results

    def _draw(self, name: str, decision: Any, *args: Any) -> Any:
        """Run a sampling step, with a new decision where none is given."""
        if decision is None:
            decision = DRAW[name](self.func, self.rng, *args)
        return self._run(name, *args, tuple(decision) if isinstance(decision, (list, tuple)) else decision)

    def _together(self, steps: Callable[[], Any]) -> Any:
        """Several steps, or none where one is refused."""
        before = self.copy()
        try:
            return steps()
        except ScheduleError:
            self.restore(before)
            raise

    def restore(self, other: Schedule) -> None:
        """Go back to the state of a copy."""
        self.func, self.trace, self.history = other.func, other.trace.copy(), list(other.history)
        self._consumed, self.rng = dict(other._consumed), other.rng

    def _several(self, name: str, values: Any) -> tuple[Any, ...]:
        """What a step takes as a sequence; whole numbers of NumPy as Python's."""
        if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            raise self._error(f"cannot {name} by {values!r}", "it takes a sequence", hint=f"[{values!r}, ...]")
        return tuple(
            v if v is None or isinstance(v, (bool, int)) or not hasattr(v, "__index__") else v.__index__()
            for v in values
        )

    def _map(self, source: Any) -> IndexMap:
        try:
            return IndexMap.parse(source)
        except ExprError as error:
            raise self._error(error.what, error.why, hint=error.hint) from None

    def _error(self, what: str, why: str, marks: Any = None, hint: str = "") -> ScheduleError:
        shown = excerpt(self.func, {k: v for k, v in marks.items() if v}) if marks else ""
        steps = [s.as_python() for s in self.trace.steps if not s.method.startswith("get_")]
        if steps:
            shown += ("\n" if shown else "") + "schedule so far: " + "; ".join(steps[-6:])
        return ScheduleError(what, why=why, excerpt=shown, hint=hint)

    def _loop(self, loop: Any) -> Var:
        if not isinstance(loop, Var):
            raise self._error(f"{loop!r} is no loop", "a loop's handle is what get_loops, split and fuse return")
        if loop not in self.func.loops:
            step = self._consumed.get(loop)
            why = f"it was consumed by: {step}" if step else "it belongs to another schedule"
            names = ", ".join(v.name for v in self.func.loops)
            raise self._error(f"loop {loop.name} no longer exists", why, hint=f"the loops are {names}")
        return loop

    def _block(self, block: Any) -> BlockRef:
        name = block if isinstance(block, str) else getattr(block, "name", None)
        if not isinstance(name, str) or name not in self.func.blocks:
            step = self._consumed.get(name)
            why = f"it was consumed by: {step}" if step else f"the blocks are {', '.join(self.func.blocks)}"
            raise self._error(f"no block {name!r}", why)
        return BlockRef(name)

    def _buffer(self, block: BlockRef, buffer: Buffer | str | int, how: str) -> Buffer:
        known = (reads if how == "read" else writes)(self.func.blocks[block.name])
        if isinstance(buffer, int) and 0 <= buffer < len(known):
            return known[buffer]
        for b in (*known, *self.func.buffers, *self.func.allocs):
            if b is buffer or b.name == buffer:
                return b
        names = ", ".join(b.name for b in known)
        raise self._error(f"block {block.name} has no buffer {buffer!r}", f"the buffers {how} by it are {names}")
