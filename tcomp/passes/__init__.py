"""Transformations of graphs."""

from .base import Pass, Pipeline
from .fuse import FuseOps
from .pack import PackWeights
from .pipeline import ALL, FUSE, GRAPH, LOWER
from .plan import MemoryPlan, Slot, plan_memory

__all__ = [
    "ALL",
    "FUSE",
    "GRAPH",
    "FuseOps",
    "LOWER",
    "MemoryPlan",
    "PackWeights",
    "Pass",
    "Pipeline",
    "Slot",
    "plan_memory",
]
