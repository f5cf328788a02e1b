"""networkx views of graph functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..ir.graph import Binding, Function, Value, definitions
from ..lazy import lazy_module

nx = lazy_module("networkx")

SINK = "results"
"""The node that stands for whatever reads the function's results."""


def dataflow(func: Function) -> Any:
    """A directed graph of bindings: an edge leads from each definition to each use, and to SINK from each result."""
    graph = nx.DiGraph()
    table = definitions(func)
    for place, b in enumerate(func.bindings):
        graph.add_node(b, place=place)
        for a in b.call.args:
            if isinstance(a, Value) and a in table:
                graph.add_edge(table[a], b)
    graph.add_node(SINK, place=len(func.bindings))
    for r in func.results:
        if isinstance(r, Value) and r in table:
            graph.add_edge(table[r], SINK)
    for b in func.bindings:
        if graph.out_degree(b) == 0:
            graph.add_edge(b, SINK)
    return graph


def post_dominators(func: Function, graph: Any) -> dict[Binding, Binding | str]:
    """For each binding, the nearest place that everything computed from it passes through."""
    table = nx.immediate_dominators(graph.reverse(copy=False), SINK)
    return {b: d for b, d in table.items() if b != SINK and d is not None}


def between(graph: Any, start: Binding, end: Binding | str) -> set[Binding]:
    """The bindings on paths from one to another, both left out."""
    place = graph.nodes
    first, last = place[start]["place"], place[end]["place"]
    # definitions come before uses, so that a path keeps between the two places
    forward = _reach(start, lambda b: [n for n in graph.succ[b] if place[n]["place"] < last])
    return _reach(end, lambda b: [n for n in graph.pred[b] if place[n]["place"] > first and n in forward])


def _reach(start: object, step: Callable[[object], Iterable[object]]) -> set:
    """What can be reached from a node, itself left out."""
    found: set = set()
    stack = [start]
    while stack:
        for n in step(stack.pop()):
            if n not in found:
                found.add(n)
                stack.append(n)
    return found
