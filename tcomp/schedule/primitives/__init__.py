"""The schedule primitives, one file a family; `ALL` lists them by name."""

from .annotate import ANNOTATE, PARALLEL, UNROLL, VECTORIZE
from .base import BlockRef, Primitive, Refusal
from .caching import CACHE_READ, CACHE_WRITE, SET_SCOPE
from .loops import FUSE, REORDER, SPLIT
from .placement import COMPUTE_AT, COMPUTE_INLINE, REVERSE_COMPUTE_AT
from .reduction import DECOMPOSE_REDUCTION, RFACTOR

ALL = {
    p.name: p
    for p in (
        SPLIT,
        FUSE,
        REORDER,
        PARALLEL,
        VECTORIZE,
        UNROLL,
        ANNOTATE,
        COMPUTE_INLINE,
        COMPUTE_AT,
        REVERSE_COMPUTE_AT,
        CACHE_READ,
        CACHE_WRITE,
        SET_SCOPE,
        DECOMPOSE_REDUCTION,
        RFACTOR,
    )
}

__all__ = ["ALL", "BlockRef", "Primitive", "Refusal"]
