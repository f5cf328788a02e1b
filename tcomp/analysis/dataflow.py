"""networkx views of graph functions."""

from __future__ import annotations

from ..ir.graph import Binding, Function, Value, definitions
from ..lazy import lazy_module

nx = lazy_module("networkx")

SINK = "results"
"""The node that stands for whatever reads the function's results."""


def dataflow(func: Function) -> object:
    """A directed graph of bindings: an edge leads from each definition to each use, and to SINK from each result."""
    graph = nx.DiGraph()
    table = definitions(func)
    for b in func.bindings:
        graph.add_node(b)
        for a in b.call.args:
            if isinstance(a, Value) and a in table:
                graph.add_edge(table[a], b)
    graph.add_node(SINK)
    for r in func.results:
        if isinstance(r, Value) and r in table:
            graph.add_edge(table[r], SINK)
    for b in func.bindings:
        if graph.out_degree(b) == 0:
            graph.add_edge(b, SINK)
    return graph


def post_dominators(func: Function, graph: object) -> dict[Binding, Binding | str]:
    """For each binding, the nearest place that everything computed from it passes through."""
    table = nx.immediate_dominators(graph.reverse(copy=False), SINK)
    return {b: d for b, d in table.items() if b != SINK and d is not None}


def between(graph: object, start: Binding, end: Binding | str) -> set[Binding]:
    """The bindings on paths from one to another, both left out."""
    forward = nx.descendants(graph, start)
    backward = nx.ancestors(graph, end)
    return (forward & backward) - {start, end}
