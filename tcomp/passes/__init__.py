"""Transformations of graphs."""

from .base import Pass, Pipeline
from .fuse import FuseOps
from .pack import PackWeights
from .pipeline import FUSE, GRAPH, LOWER, SNAPSHOTS, before_packing, pipeline
from .plan import MemoryPlan, Slot, plan_memory

__all__ = [
    "GRAPH",
    "FUSE",
    "FuseOps",
    "LOWER",
    "MemoryPlan",
    "PackWeights",
    "Pass",
    "Pipeline",
    "SNAPSHOTS",
    "Slot",
    "before_packing",
    "pipeline",
    "plan_memory",
]
