"""The graph passes in the order in which compile() runs them."""

from __future__ import annotations

from .base import Pipeline
from .fold import EliminateCommonSubexpressions, EliminateDeadCode, FoldConstants
from .fuse import FuseOps
from .lower import LowerToPrimFuncs
from .simplify import Canonicalize, FoldScales, SimplifyAlgebra
from .update import PlaceUpdates

GRAPH = Pipeline(
    (
        FoldConstants(),
        Canonicalize(),
        SimplifyAlgebra(),
        FoldScales(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
    )
)
"""From a traced model to a small graph of the same meaning."""

FUSE = Pipeline((FuseOps(),))
"""Calls -> groups."""

LOWER = Pipeline((LowerToPrimFuncs(), PlaceUpdates()), frozenset({"typed", "fused"}))
"""Groups -> kernels, in the order in which they run."""

ALL = {type(p).__name__: p for pipeline in (GRAPH, FUSE, LOWER) for p in pipeline.passes}
"""Every pass by name."""
