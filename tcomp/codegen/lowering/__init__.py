"""Scheduled PrimFunc -> PrimFunc that code generation takes, one file a step; `STEPS` is their order."""

from collections.abc import Callable

from ...analysis.dependence import private_loops
from ...ir.arith import dims_env
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from .blocks import lower_blocks, operands_of_instructions
from .common import simplify_statements
from .flatten import flatten_buffers
from .intrinsics import place_intrinsics
from .open_tiles import split_open_tiles
from .partition import partition_loops
from .pragmas import apply_pragmas
from .storage import place_storage
from .syncs import place_syncs
from .unroll import unroll_loops
from .vectorize import vectorize_loops


def simplify_func(func: PrimFunc) -> PrimFunc:
    """Simplify every expression of a function."""
    return with_fields(func, body=simplify_statements(func.body, dims_env(func.dims)))


def place_blocks(func: PrimFunc) -> PrimFunc:
    """Blocks become statements over buffers of their final size (one step: blocks that fill scratch memory run over whole
    tiles, for which storage then makes room)."""
    return place_storage(lower_blocks(func), private_loops(func), operands_of_instructions(func))


STEPS: tuple[Callable[[PrimFunc], PrimFunc], ...] = (
    place_syncs,
    place_blocks,
    simplify_func,
    split_open_tiles,
    partition_loops,
    flatten_buffers,
    place_intrinsics,
    apply_pragmas,
    vectorize_loops,
    unroll_loops,
)


def lower(func: PrimFunc) -> PrimFunc:
    """Run all steps."""
    for step in STEPS:
        func = step(func)
    return func


__all__ = ["STEPS", "lower"]
