"""Schedule: the user's handle on a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..analysis.regions import loops_around, reads, writes
from ..errors import ScheduleError
from ..ir.expr import Buffer, Var
from ..ir.primfunc import PrimFunc
from ..ir.printer import excerpt, text
from ..ir.verify import verify
from .primitives import ALL, BlockRef, Refusal
from .trace import Trace


class Schedule:
    """Transforms a kernel step by step; each step is checked, and one that is refused changes nothing.

    A loop's handle is its iteration variable: it stays valid as long as the loop exists. A block's handle is its name.

        sch = Schedule(func)
        c = sch.get_block("C")
        i, j, k = sch.get_loops(c)
        i0, i1 = sch.split(i, [None, 8])

    Attributes:
        func: the kernel as it stands.
        trace: the steps so far.
    """

    def __init__(self, func: PrimFunc) -> None:
        if not isinstance(func, PrimFunc):
            raise ScheduleError(
                f"a Schedule is of a PrimFunc, got {type(func).__name__}", hint="te.create_prim_func(...)"
            )
        verify(func)
        self.func = func
        self.trace = Trace()
        self._consumed: dict[Any, str] = {}

    def copy(self) -> Schedule:
        """An independent schedule in the same state; handles are valid in both."""
        other = Schedule.__new__(Schedule)
        other.func, other.trace, other._consumed = self.func, self.trace.copy(), dict(self._consumed)
        return other

    def __str__(self) -> str:
        return text(self.func)

    def show(self) -> None:
        """Print the loop nest."""
        print(text(self.func))

    # looking around

    def get_block(self, name: str) -> BlockRef:
        """The handle of a block.

        Raises:
            ScheduleError: there is no such block.
        """
        if name not in self.func.blocks:
            raise self._error(f"no block {name!r}", f"the blocks are {', '.join(self.func.blocks)}")
        ref = BlockRef(name)
        self.trace.record("get_block", (name,), ref)
        return ref

    def get_blocks(self) -> list[BlockRef]:
        """The handles of all blocks, in program order."""
        return [BlockRef(name) for name in self.func.blocks]

    def get_loops(self, block: BlockRef | str) -> list[Var]:
        """The loops around a block, outermost first."""
        ref = self._block(block)
        from_root = [s.var for s in loops_around(self.func, self.func.blocks[ref.name])]
        self.trace.record("get_loops", (ref,), from_root)
        return from_root

    def get_extent(self, loop: Var) -> Any:
        """A loop's extent: an int, or an expression of symbolic extents."""
        extent = self.func.loops[self._loop(loop)].extent
        return getattr(extent, "value", extent)

    # loops

    def split(self, loop: Var, factors: Sequence[int | None]) -> list[Var]:
        """Split a loop into nested loops, outermost first; one factor may be None (inferred).

        Factors need not divide the extent: the last iterations are then guarded.
        """
        return self._run("split", self._loop(loop), tuple(factors))

    def fuse(self, *loops: Var) -> Var:
        """Make one loop of directly nested ones, named outermost first."""
        return self._run("fuse", *map(self._loop, loops))

    def reorder(self, *loops: Var) -> None:
        """Put loops of one perfect nest in the given order; others keep their places."""
        self._run("reorder", *map(self._loop, loops))

    def tile(self, i: Var, j: Var, i_factor: int, j_factor: int) -> tuple[Var, Var, Var, Var]:
        """Split two nested loops and bring the inner parts inside: returns (i outer, j outer, i inner, j inner)."""
        before = self.copy()
        try:
            i0, i1 = self.split(i, [None, i_factor])
            j0, j1 = self.split(j, [None, j_factor])
            self.reorder(i0, j0, i1, j1)
        except ScheduleError:
            self.func, self.trace, self._consumed = before.func, before.trace, before._consumed
            raise
        return i0, j0, i1, j1

    # how loops run

    def parallel(self, loop: Var) -> None:
        """Run the iterations in the threads of the pool. They must be independent."""
        self._run("parallel", self._loop(loop))

    def vectorize(self, loop: Var) -> None:
        """Run the iterations in vector lanes. They must be independent and their number constant."""
        self._run("vectorize", self._loop(loop))

    def unroll(self, loop: Var) -> None:
        """Write the iterations out one after another. Their number must be constant."""
        self._run("unroll", self._loop(loop))

    def annotate(self, target: Var | BlockRef | str, key: str, value: bool | int | float | str) -> None:
        """Attach a note to a loop or block."""
        place = self._loop(target) if isinstance(target, Var) else self._block(target)
        self._run("annotate", place, key, value)

    # placement

    def compute_inline(self, block: BlockRef | str) -> None:
        """Put a block's expression in place of every read of what it writes."""
        self._run("compute_inline", self._block(block))

    def compute_at(self, block: BlockRef | str, loop: Var) -> None:
        """Compute a block where it is used: in each iteration of a loop, the part that the iteration needs."""
        self._run("compute_at", self._block(block), self._loop(loop))

    def reverse_compute_at(self, block: BlockRef | str, loop: Var) -> None:
        """Run a block right where its input is made: in each iteration of a loop, on the part that it completes."""
        self._run("reverse_compute_at", self._block(block), self._loop(loop))

    # caching

    def cache_read(self, block: BlockRef | str, buffer: Buffer | str | int, scope: str = "global") -> BlockRef:
        """Copy a buffer before a block reads it. `buffer`: its name, or its place among the block's reads."""
        ref = self._block(block)
        return self._run("cache_read", ref, self._buffer(ref, buffer, "read"), scope)

    def cache_write(self, block: BlockRef | str, buffer: Buffer | str | int = 0, scope: str = "global") -> BlockRef:
        """Let a block write to a copy, which is copied back after it. Returns the copying block."""
        ref = self._block(block)
        return self._run("cache_write", ref, self._buffer(ref, buffer, "written"), scope)

    def set_scope(self, block: BlockRef | str, buffer: Buffer | str | int, scope: str) -> None:
        """Move an intermediate buffer that a block writes to another scope."""
        ref = self._block(block)
        self._run("set_scope", ref, self._buffer(ref, buffer, "written"), scope)

    # reduction

    def decompose_reduction(self, block: BlockRef | str, loop: Var) -> BlockRef:
        """Make a reduction's init a block of its own, right before a loop. Returns the init's block."""
        return self._run("decompose_reduction", self._block(block), self._loop(loop))

    def rfactor(self, block: BlockRef | str, loop: Var) -> BlockRef:
        """Split a reduction in two: partial results for each iteration of a reduce loop, and the reduction of these.

        The loop becomes spatial in the first block, which is returned: there it may be vectorized or parallel. The order
        in which elements are added changes.
        """
        return self._run("rfactor", self._block(block), self._loop(loop))

    # machinery

    def refusal(self, primitive: str, *args: Any) -> Refusal | None:
        """Why a step would be refused, without raising and without doing it; None where it is legal.

        Args:
            primitive: the method's name; args: resolved handles, as the primitive's check takes them.
        """
        return ALL[primitive].check(self.func, *args)

    def _run(self, name: str, *args: Any) -> Any:
        primitive = ALL[name]
        refusal = primitive.check(self.func, *args)
        if refusal is not None:
            raise self._error(refusal.what, refusal.why, refusal.marks, refusal.hint)
        before = self.func
        func, results = primitive.apply(before, *args)
        step = self.trace.record(name, args, results)
        self.func = func
        for gone in before.loops.keys() - func.loops.keys():
            self._consumed[gone] = step.as_python()
        for gone in before.blocks.keys() - func.blocks.keys():
            self._consumed[gone] = step.as_python()
        return results

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
        if name not in self.func.blocks:
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
