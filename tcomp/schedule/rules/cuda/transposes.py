"""The default schedule of a GPU for transposes: tiles that pass through shared memory, so that both sides move whole runs of neighbours.

Rows of a tile begin in banks of their own (G. Ruetsch, P. Micikevicius, Optimizing Matrix Transpose in CUDA, NVIDIA 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

from ....errors import ScheduleError
from ....ir.expr import Buffer
from ....ir.primfunc import PrimFunc
from ....target import CudaTarget
from ...library import fuse_all, inline_elementwise, steps_along, transposed_loop
from ...schedule import Schedule
from ..plan import decision
from .common import GRID, THREADS, WIDEST, grid_of

NAME = "transpose_tiles"


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: bytes of its widest element."""

    itemsize: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    """Whether there is one block, which walks along the result's neighbours while an operand's lie along another loop."""
    (block, *more) = func.blocks.values()
    return not more and not block.is_reduction and len(block.spatial) > 1 and bool(_turned(Schedule(func), block.name))


def problem_of(func: PrimFunc) -> Problem:
    return Problem(max(b.dtype.itemsize for b in func.buffers))


@dataclass(frozen=True, slots=True)
class TransposePlan:
    """How a transpose is tiled."""

    tile: int = decision("rows and columns of a tile", lambda p, t: (16, 32, 64))
    threads: int = decision("threads of a block", lambda p, t: (64, 128, 256, 512))
    lanes: int = decision("neighbours that a thread moves at once", lambda p, t: (1, 2, 4, 8, 16))


def plan(p: Problem, target: CudaTarget) -> TransposePlan:
    """A tile gives each of 256 threads one access of 16 bytes, or some."""
    lanes = max(WIDEST // p.itemsize, 1)
    return TransposePlan(64 if p.itemsize < 4 else 32, 256, lanes)


def apply(sch: Schedule, plan: TransposePlan) -> None:
    """The turned operands come to shared memory along their own neighbours, and leave it along the result's."""
    inline_elementwise(sch)
    (name,) = sch.func.blocks
    turned = _turned(sch, name)
    other = transposed_loop(sch, name)
    if other is None:
        raise ScheduleError(f"block {name} turns no operand")
    *_, last = sch.get_loops(name)
    rest = [v for v in sch.get_loops(name) if v not in (other, last)]
    far, near = sch.split(other, [None, plan.tile])
    column, inner = sch.split(last, [None, plan.tile])
    sch.reorder(*rest, far, column, near, inner)
    blocks = grid_of(sch, [*rest, far, column])
    for buffer in turned:
        copy = sch.cache_read(name, buffer, "shared").name
        sch.compute_at(copy, blocks[-1])
        axes = len(sch.func.blocks[copy].spatial)
        sch.storage_align(copy, 0, axes - 2, 2, 1)
        _by_threads(sch, copy, len(blocks), plan)
    _by_threads(sch, name, len(blocks), plan)
    for v, index in zip(reversed(blocks), GRID):
        sch.bind(v, index)


def _turned(sch: Schedule, name: str) -> list[Buffer]:
    """The operands whose neighbours do not lie along the innermost loop."""
    if transposed_loop(sch, name) is None:
        return []
    along = steps_along(sch, name, sch.get_loops(name)[-1])
    return [b for b, step in along.items() if step not in (0, 1) and len(b.shape) > 1]


def _by_threads(sch: Schedule, name: str, depth: int, plan: TransposePlan) -> None:
    """Share a tile out among the threads, in runs of neighbours."""
    own = list(sch.get_loops(name)[depth:])
    extents = [sch.get_extent(v) for v in own]
    last, vector = extents[-1], None
    if isinstance(last, int) and last % plan.lanes == 0 and plan.lanes > 1:
        own[-1], vector = sch.split(own[-1], [None, plan.lanes])
    whole = fuse_all(sch, own)
    assert whole is not None
    _, thread = sch.split(whole, [None, plan.threads])
    sch.bind(thread, THREADS)
    if vector is not None:
        sch.vectorize(vector)
