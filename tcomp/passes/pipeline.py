"""The graph passes in the order in which compile(), `tools opt` and `tools bisect` run them."""

from __future__ import annotations

from .base import Pipeline
from .batch import SplitBatch
from .expand import ExpandComposites
from .fold import EliminateCommonSubexpressions, EliminateDeadCode, FoldConstants
from .fuse import FuseOps, Store
from .lower import LowerToPrimFuncs
from .pack import LayoutPolicy, PackWeights
from .scans import SimplifyScans
from .simplify import Canonicalize, FoldScales, SimplifyAlgebra
from .update import PlaceUpdates

GRAPH = Pipeline(
    (
        ExpandComposites(),
        FoldConstants(),  # so that loops know weights as constants
        SimplifyScans(),
        Canonicalize(),
        SimplifyAlgebra(),
        FoldScales(),
        SimplifyScans(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
    )
)
"""From a traced model to a small graph of the same meaning."""

FUSE = Pipeline((FuseOps(),))
"""Calls -> groups."""

LOWER = Pipeline((LowerToPrimFuncs(), PlaceUpdates()), frozenset({"typed", "fused"}))
"""Groups -> kernels, in the order in which they run."""

SNAPSHOTS = {"PackWeights": "graph", "FuseOps": "fused"}
"""The passes after which a module is shown to users, under which name."""


def pipeline(layout: LayoutPolicy, store: Store | None = None, version: str = "", lets_go: bool = False) -> Pipeline:
    """All passes, from a traced model to kernels that are not scheduled yet.

    Args:
        layout: how the target's rules want operands to lie.
        store, version: where groupings are remembered, see `FuseOps`.
        lets_go: whether weights may be let go as they are packed, see `PackWeights`.
    """
    graph = tuple(Canonicalize(layout.resident_bytes) if isinstance(p, Canonicalize) else p for p in GRAPH.passes)
    return Pipeline(
        (
            *graph,
            SplitBatch(layout.near_bytes),
            PackWeights(layout, lets_go),
            FuseOps(store=store, version=version),
            *LOWER.passes,
        )
    )


def before_packing(layout: LayoutPolicy) -> Pipeline:
    """The passes up to where weights are packed. Arguments as for `pipeline`."""
    passes = pipeline(layout).passes
    return Pipeline(passes[: next(i for i, p in enumerate(passes) if isinstance(p, PackWeights))])
