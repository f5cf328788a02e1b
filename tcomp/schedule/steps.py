"""The steps of a schedule: one method for each primitive. Each resolves handles and names; the primitive does the rest.

The primitives' own docstrings (`help(tcomp.schedule.primitives.loops.apply_split)`) show the loops before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.expr import Buffer, Var
from ..ir.index_map import IndexMap
from .primitives import BlockRef

Block = BlockRef | str
Map = str | Callable[..., Any] | IndexMap
AnyBuffer = Buffer | str | int
"""A buffer, its name, or its place among those that the block reads or writes."""


class Steps:
    """Mixed into Schedule, which resolves handles (`_loop`, `_block`, `_buffer`) and runs primitives (`_run`)."""

    _run: Callable[..., Any]
    _draw: Callable[..., Any]
    _loop: Callable[..., Var]
    _block: Callable[..., BlockRef]
    _buffer: Callable[..., Buffer]
    _map: Callable[..., IndexMap]
    _together: Callable[..., Any]
    _several: Callable[..., Any]

    # loops

    def split(self, loop: Var, factors: Sequence[int | None], disable_predication: bool = False) -> list[Var]:
        """Split a loop into nested loops, outermost first; one factor may be None (inferred).

        Factors need not divide the extent: the last iterations are then guarded. With `disable_predication` the step is
        refused where a guard would be needed.
        """
        return self._run(
            "split", self._loop(loop), self._several("split", factors), *([True] if disable_predication else [])
        )

    def fuse(self, *loops: Var) -> Var:
        """Make one loop of directly nested ones, named outermost first."""
        return self._run("fuse", *map(self._loop, loops))

    def reorder(self, *loops: Var) -> None:
        """Put loops of one perfect nest in the given order; others keep their places."""
        self._run("reorder", *map(self._loop, loops))

    def tile(self, i: Var, j: Var, i_factor: int, j_factor: int) -> tuple[Var, Var, Var, Var]:
        """Split two nested loops and bring the inner parts inside: returns (i outer, j outer, i inner, j inner)."""

        def steps() -> tuple[Var, Var, Var, Var]:
            i0, i1 = self.split(i, [None, i_factor])
            j0, j1 = self.split(j, [None, j_factor])
            self.reorder(i0, j0, i1, j1)
            return i0, j0, i1, j1

        return self._together(steps)

    def merge(self, *loops: Var) -> Var:
        """Make one loop of several of the same extent that stand directly behind one another."""
        return self._run("merge", *map(self._loop, loops))

    def loop_partition(self, loop: Var, sizes: Sequence[int | None]) -> list[Var]:
        """Cut a loop into several that run one after another; one size may be None (the rest)."""
        return self._run("loop_partition", self._loop(loop), tuple(sizes))

    def add_unit_loop(self, place: Var | Block) -> Var:
        """Put a loop of one iteration around a block or a loop."""
        return self._run("add_unit_loop", self._place(place))

    def _place(self, place: Var | Block) -> Var | BlockRef:
        return self._loop(place) if isinstance(place, Var) else self._block(place)

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

    def bind(self, loop: Var, thread: str) -> None:
        """Let the iteration be an index of a GPU: blockIdx, threadIdx or vthread, each .x, .y or .z.

        A reduce loop bound to a threadIdx is a cross-thread reduction. On a CPU the iterations run one after another.
        """
        self._run("bind", self._loop(loop), thread)

    def annotate(self, target: Var | Block, key: str, value: bool | int | float | str) -> None:
        """Attach a note to a loop or block."""
        self._run("annotate", self._place(target), key, value)

    def unannotate(self, target: Var | Block, key: str) -> None:
        """Remove a note or a pragma."""
        self._run("unannotate", self._place(target), key)

    def pragma(self, loop: Var, name: str, value: int) -> None:
        """Tell the code generator about a loop: "auto_unroll_max_step" (statements), "prefetch" (iterations ahead),
        "prefetch_next" (runs that read the same), "double_buffer" (of a GPU's shared memory)."""
        self._run("pragma", self._loop(loop), name, value)

    # placement

    def compute_inline(self, block: Block) -> None:
        """Put a block's expression in place of every read of what it writes."""
        self._run("compute_inline", self._block(block))

    def reverse_compute_inline(self, block: Block) -> None:
        """Put a block's expression into the one block whose result it reads."""
        self._run("reverse_compute_inline", self._block(block))

    def compute_at(self, block: Block, loop: Var) -> None:
        """Compute a block where it is used: in each iteration of a loop, the part that the iteration needs."""
        self._run("compute_at", self._block(block), self._loop(loop))

    def reverse_compute_at(self, block: Block, loop: Var) -> None:
        """Run a block right where its input is made: in each iteration of a loop, on the part that it completes."""
        self._run("reverse_compute_at", self._block(block), self._loop(loop))

    # caching

    def cache_read(self, block: Block, buffer: AnyBuffer, scope: str = "global") -> BlockRef:
        """Copy a buffer before a block reads it. Returns the copying block."""
        ref = self._block(block)
        return self._run("cache_read", ref, self._buffer(ref, buffer, "read"), scope)

    def cache_write(self, block: Block, buffer: AnyBuffer = 0, scope: str = "global") -> BlockRef:
        """Let a block write to a copy, which is copied back after it. Returns the copying block."""
        ref = self._block(block)
        return self._run("cache_write", ref, self._buffer(ref, buffer, "written"), scope)

    def cache_inplace(self, block: Block, buffer: AnyBuffer = 0, scope: str = "global") -> list[BlockRef]:
        """Let a block update a copy of a buffer. Returns the blocks that copy in and out."""
        ref = self._block(block)
        return self._run("cache_inplace", ref, self._buffer(ref, buffer, "written"), scope)

    def read_at(self, loop: Var, block: Block, buffer: AnyBuffer, scope: str = "global") -> BlockRef:
        """Copy, in each iteration of a loop, the part of a buffer that the iteration reads. Returns the copying block."""
        ref = self._block(block)
        return self._run("read_at", self._loop(loop), ref, self._buffer(ref, buffer, "read"), scope)

    def write_at(self, loop: Var, block: Block, buffer: AnyBuffer = 0, scope: str = "global") -> BlockRef:
        """Write to a copy; each iteration of a loop copies back what it completes. Returns the copying block."""
        ref = self._block(block)
        return self._run("write_at", self._loop(loop), ref, self._buffer(ref, buffer, "written"), scope)

    def reindex(self, block: Block, buffer: AnyBuffer) -> BlockRef:
        """Give a block a copy of an operand whose index is the block's own iterators. Returns the copying block."""
        ref = self._block(block)
        return self._run("reindex", ref, self._buffer(ref, buffer, "read"))

    def reindex_cache_read(self, block: Block, buffer: AnyBuffer, scope: str, index_map: Map) -> BlockRef:
        """cache_read into a layout: `index_map` takes the block's iterators to the copy's index."""
        ref = self._block(block)
        return self._run("reindex_cache_read", ref, self._buffer(ref, buffer, "read"), scope, self._map(index_map))

    def reindex_cache_write(self, block: Block, buffer: AnyBuffer, scope: str, index_map: Map) -> BlockRef:
        """cache_write in a layout: `index_map` takes the block's iterators to the copy's index."""
        ref = self._block(block)
        return self._run("reindex_cache_write", ref, self._buffer(ref, buffer, "written"), scope, self._map(index_map))

    def cache_index(self, block: Block, scope: str = "global") -> list[BlockRef]:
        """Compute a block's read indices that need a division ahead, into tables. Returns the blocks that fill them."""
        return self._run("cache_index", self._block(block), scope)

    # buffers

    def set_scope(self, block: Block, buffer: AnyBuffer, scope: str) -> None:
        """Move an intermediate buffer that a block writes to another scope: global, shared or local."""
        ref = self._block(block)
        self._run("set_scope", ref, self._buffer(ref, buffer, "written"), scope)

    def unsafe_set_dtype(self, block: Block, buffer: AnyBuffer, dtype: str) -> None:
        """Keep an intermediate buffer in another dtype. Nothing checks that its values fit."""
        ref = self._block(block)
        self._run("unsafe_set_dtype", ref, self._buffer(ref, buffer, "written"), str(dtype))

    def storage_align(self, block: Block, buffer: AnyBuffer, axis: int, factor: int, offset: int) -> None:
        """Pad the stride of an axis of an intermediate buffer to offset modulo factor, in elements."""
        ref = self._block(block)
        self._run("storage_align", ref, self._buffer(ref, buffer, "written"), axis, factor, offset)

    def rolling_buffer(self, block: Block, buffer: AnyBuffer = 0) -> None:
        """Compute only what no earlier iteration has made, into a buffer that is written round and round."""
        ref = self._block(block)
        self._run("rolling_buffer", ref, self._buffer(ref, buffer, "written"))

    def double_buffer(self, block: Block, loop: Var) -> BlockRef:
        """Fill a block's buffer for the next iteration of a loop while this one uses another copy."""
        return self._run("double_buffer", self._block(block), self._loop(loop))

    def transform_layout(
        self, block: Block, buffer: AnyBuffer, index_map: Map, pad_value: float | int | None = None
    ) -> BlockRef | None:
        """Keep an intermediate buffer in another layout: `index_map` takes old indices to new ones.

        Returns the block that fills padding with `pad_value`, where there is one.
        """
        ref = self._block(block)
        args = (ref, self._buffer(ref, buffer, "written"), self._map(index_map))
        return self._run("transform_layout", *args, *([] if pad_value is None else [pad_value]))

    # reductions and padding

    def decompose_reduction(self, block: Block, loop: Var) -> BlockRef:
        """Make a reduction's init a block of its own, right before a loop. Returns the init's block."""
        return self._run("decompose_reduction", self._block(block), self._loop(loop))

    def rfactor(self, block: Block, loop: Var) -> BlockRef:
        """Split a reduction in two: partial results for each iteration of a reduce loop, and the reduction of these.

        The loop becomes spatial in the first block, which is returned: there it may be vectorized or parallel. The order
        in which elements are added changes.
        """
        return self._run("rfactor", self._block(block), self._loop(loop))

    def fuse_reduction_epilogue(self, block: Block, epilogue: Block) -> None:
        """Let a sum begin with what an epilogue block would add to it."""
        self._run("fuse_reduction_epilogue", self._block(block), self._block(epilogue))

    def pad_einsum(self, block: Block, padding: Sequence[int]) -> list[BlockRef]:
        """Pad a sum of products with zeros, each iterator to a multiple of its number. Returns the copying blocks."""
        return self._run("pad_einsum", self._block(block), self._several("pad_einsum", padding))

    def decompose_padding(self, block: Block, loop: Var) -> BlockRef:
        """Fill with the padding's constant first, right before a loop, then copy without conditions. Returns the first."""
        return self._run("decompose_padding", self._block(block), self._loop(loop))

    # blocks

    def transform_block_layout(self, block: Block, index_map: Map) -> list[Var]:
        """Iterate over a block in another space: `index_map` takes its iterators to new ones. Returns the new loops."""
        return self._run("transform_block_layout", self._block(block), self._map(index_map))

    def reorder_block_iter_var(self, block: Block, order: Sequence[int]) -> None:
        """List a block's iterators in another order."""
        self._run("reorder_block_iter_var", self._block(block), tuple(order))

    def blockize(self, loop: Var) -> BlockRef:
        """Make a loop and what is inside it one block. Returns it."""
        return self._run("blockize", self._loop(loop))

    def tensorize(self, place: Var | Block, intrin: str) -> BlockRef:
        """Let a registered tensor intrinsic do what a block's loops do (of a loop: blockize it first)."""
        return self._run("tensorize", self._place(place), intrin)

    # decisions of a search

    def sample_perfect_tile(
        self, loop: Var, n: int, max_innermost_factor: int = 16, decision: Sequence[int] | None = None
    ) -> list[int]:
        """n random factors whose product is the loop's extent; `decision` fixes them."""
        return self._draw("sample_perfect_tile", decision, self._loop(loop), n, max_innermost_factor)

    def sample_partitioned_tile(
        self,
        loop: Var,
        n: int,
        partition_pos: int = 1,
        innerpart_factor: int = 1,
        decision: Sequence[int] | None = None,
    ) -> list[int]:
        """n random factors; the product of those from `partition_pos` on is a multiple of `innerpart_factor`."""
        return self._draw("sample_partitioned_tile", decision, self._loop(loop), n, partition_pos, innerpart_factor)

    def sample_categorical(self, candidates: Sequence[int], probs: Sequence[float], decision: int | None = None) -> int:
        """One of several numbers, by their weights; `decision` is its place."""
        return self._draw("sample_categorical", decision, tuple(candidates), tuple(probs))

    def sample_compute_location(self, block: Block, decision: int | None = None) -> Var | None:
        """A loop at which a block may be computed, or None: where it is. `decision` is its number."""
        return self._draw("sample_compute_location", decision, self._block(block))
