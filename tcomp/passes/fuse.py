"""Operator fusion: which calls become one kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ..analysis.dataflow import between, dataflow, nx, post_dominators
from ..ir.equal import structural_hash
from ..ir.expr import Expr, Var
from ..ir.graph import Binding, FuncCall, Function, OpCall, Operand, Value
from ..ir.module import IRModule
from ..ir.names import unique_name
from ..ir.node import walk, with_fields
from ..ir.stmt import Attrs
from ..ops.registry import get

_FOLLOWS = {
    "elementwise": {"elementwise", "injective"},
    "injective": {"elementwise", "injective"},
    "reduction": {"elementwise"},
    "anchor": {"elementwise"},
    "row_reduction": {"elementwise"},
    "source": {"elementwise"},
}
"""Which kinds may join the kernel of a producer of each kind, in its write-back."""

_HEAVY = ("anchor", "reduction", "row_reduction", "source", "scatter")


class Store(Protocol):
    """Bytes by key; a miss is None."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, payload: bytes) -> None: ...


@dataclass(frozen=True)
class FuseOps:
    """Group calls into kernels.

    A call joins the group of its immediate post-dominator when everything between the two can be part of one kernel: after
    a product or a reduction come only elementwise calls of its own shape; elementwise and injective calls join each other
    and run inside the reduction that consumes them. So no intermediate result is computed twice or leaves the kernel.

    Then groups of elementwise calls of one shape that have an operand in common become one kernel of several results: what leaves the
    kernel may still be used inside it, as an optimizer's new moments are, and what two groups read is read once.

    The scheme is that of T. Chen et al., TVM: An Automated End-to-End Optimizing Compiler for Deep Learning, OSDI 2018.

    Attributes:
        max_calls: the largest group.
        store: where groupings are remembered between processes, by the graph's structural hash.
        version: what else decides them: tcomp's own sources.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"typed"})
    ensures: ClassVar[frozenset[str]] = frozenset({"fused"})
    max_calls: int = 24
    store: Store | None = None
    version: str = ""

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        if all(isinstance(b.call, FuncCall) for b in main.bindings):
            return module
        if self.store is None:
            return _outline(module, _Grouping(main, self.max_calls).run())
        key = f"{structural_hash(with_fields(main, name=''))}g{self.max_calls}{self.version}"
        known = self.store.get(key)
        if known is None:
            groups = _Grouping(main, self.max_calls).run()
            number = {b: i for i, b in enumerate(main.bindings)}
            self.store.put(key, json.dumps([[number[b] for b in members] for members in groups]).encode())
        else:
            groups = [[main.bindings[i] for i in members] for members in json.loads(known)]
        return _outline(module, groups)


def _kind(b: Binding) -> str:
    return get(b.call.op).kind if isinstance(b.call, OpCall) else "opaque"


@dataclass
class _Group:
    members: set[Binding]
    heavy: Binding | None = None
    root: _Group | None = field(default=None, repr=False)

    def top(self) -> _Group:
        g = self
        while g.root is not None:
            g = g.root
        return g


class _Grouping:
    """A union-find over bindings."""

    def __init__(self, func: Function, limit: int) -> None:
        self.func = func
        self.limit = limit
        self.graph = dataflow(func)
        self.groups = {b: _Group({b}, b if _kind(b) in _HEAVY else None) for b in func.bindings}
        self.results = set(func.results)

    def run(self) -> list[list[Binding]]:
        dominators = post_dominators(self.func, self.graph)
        for wanted in (_HEAVY, ("elementwise", "injective")):
            for b in self.func.bindings:
                end = dominators.get(b)
                if _kind(b) in wanted and isinstance(end, Binding):
                    self.try_fuse(b, end)
        found: dict[int, list[Binding]] = {}
        for b in self.func.bindings:
            found.setdefault(id(self.groups[b].top()), []).append(b)
        return _side_by_side(self.func, list(found.values()), self.limit)

    def try_fuse(self, start: Binding, end: Binding) -> None:
        path = between(self.graph, start, end)
        if not self.allowed(start, path, end):
            return
        tops = {id(g): g for g in (self.groups[b].top() for b in (start, end, *path))}
        groups = list(tops.values())
        heavy = [g.heavy for g in groups if g.heavy is not None]
        if len(heavy) > 1 or sum(len(g.members) for g in groups) > self.limit:
            return
        # nothing inside may be a result of the function: it would have to leave the kernel
        if any(r in self.results for b in (start, *path) for r in b.results):
            return
        merged = self.groups[end].top()
        for g in groups:
            if g is not merged:
                g.root = merged
                merged.members |= g.members
        merged.heavy = heavy[0] if heavy else None

    def allowed(self, start: Binding, path: set[Binding], end: Binding) -> bool:
        kind, end_kind = _kind(start), _kind(end)
        follows = _FOLLOWS.get(kind, set())
        if any(_kind(b) not in follows for b in path):
            return False
        if kind == "scatter":
            return False
        if kind in _HEAVY:
            if len(start.results) > 1:
                return False  # it has no single write-back
            same = all(b.result.type.shape == start.result.type.shape for b in (*path, end))
            return end_kind == "elementwise" and same
        if end_kind in ("reduction", "scatter"):
            return True
        if end_kind not in follows:
            return False
        own_heavy, end_heavy = self.groups[start].top().heavy, self.groups[end].top().heavy
        if any(h is not None and len(h.results) > 1 for h in (own_heavy, end_heavy)):
            return False
        if own_heavy is not None:
            # the write-back that the call stands in has one shape
            return all(b.result.type.shape == own_heavy.result.type.shape for b in (*path, end))
        if end_heavy is None:
            return True
        # what joins the write-back of a product must have its shape, and must not feed the product itself
        if _kind(end_heavy) == "reduction" and end_heavy not in path and self.feeds(start, end_heavy):
            return True
        shape = end_heavy.result.type.shape
        return all(b.result.type.shape == shape for b in (start, *path)) and not self.feeds(start, end_heavy)

    def feeds(self, start: Binding, end: Binding) -> bool:
        return self.graph.has_edge(start, end) or bool(between(self.graph, start, end))


MOST_OPERANDS = 12
"""Arrays that a kernel of several results reads and writes: each is a stream of its own for the prefetcher."""


def _side_by_side(func: Function, groups: list[list[Binding]], limit: int) -> list[list[Binding]]:
    """Groups in an order that respects dataflow, those together that compute elementwise results of one shape from common operands:
    a value that leaves a group may still be used inside it, and what two read is read once."""
    graph = _dependences(groups)
    home = {b: number for number, members in enumerate(groups) for b in members}
    touched: dict[Operand, list[int]] = {}
    for number, members in enumerate(groups):
        if _pointwise_shape(members) is not None:
            for x in _operands(members):
                touched.setdefault(x, []).append(number)
    for users in touched.values():
        for other in users[1:]:
            a, b = home[groups[users[0]][0]], home[groups[other][0]]
            if a != b and _may_join(graph, groups, a, b, limit):
                for member in groups[b]:
                    home[member] = a
                groups[a] = groups[a] + groups[b]
                graph = nx.contracted_nodes(graph, a, b, self_loops=False, copy=False)
    place = {b: i for i, b in enumerate(func.bindings)}
    last = {n: min(place[b] for b in groups[n]) for n in graph}
    ordered = nx.lexicographical_topological_sort(graph, key=last.__getitem__)
    return [sorted(groups[n], key=place.__getitem__) for n in ordered]


def _dependences(groups: list[list[Binding]]) -> Any:
    """Which group must come before which, by number."""
    home: dict[Operand, int] = {r: n for n, members in enumerate(groups) for b in members for r in b.results}
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(groups)))
    for n, members in enumerate(groups):
        graph.add_edges_from((home[a], n) for b in members for a in b.call.args if home.get(a, n) != n)
    return graph


def _pointwise_shape(members: list[Binding]) -> tuple[int | Expr, ...] | None:
    """The shape of all results of elementwise calls, and of such that move what comes from outside; None where the group is anything
    else."""
    made = {r for b in members for r in b.results}
    for b in members:
        kind = _kind(b)
        if kind != "elementwise" and (kind != "injective" or not made.isdisjoint(b.call.args)):
            return None
    shapes = {r.type.shape for b in members for r in b.results}
    return shapes.pop() if len(shapes) == 1 else None


def _operands(members: list[Binding]) -> set[Operand]:
    """What a group reads and makes, of its own shape."""
    shape = _pointwise_shape(members)
    found: set[Operand] = {r for b in members for r in b.results}
    return found | {a for b in members for a in b.call.args if a.type.shape == shape}


def _may_join(graph: Any, groups: list[list[Binding]], a: int, b: int, limit: int) -> bool:
    """Whether two groups of one shape can be one kernel: of a bearable size, and no third one must run between the two."""
    together = groups[a] + groups[b]
    if _pointwise_shape(together) is None or len(together) > limit or len(_operands(together)) > limit + MOST_OPERANDS:
        return False
    return not any(
        n not in (a, b) and nx.has_path(graph, n, end)
        for start, end in ((a, b), (b, a))
        for n in graph.successors(start)
    )


def _outline(module: IRModule, groups: list[list[Binding]]) -> IRModule:
    """Make each group a function of its own, equal ones the same, and call them from the entry."""
    functions = {name: f for name, f in module.functions.items() if name != module.entry}
    taken = set(module.functions)
    known: dict[str, str] = {}
    calls: list[Binding] = []
    main = module.main
    used_outside = _used_outside(main, groups)
    for members in groups:
        if len(members) == 1 and (not isinstance(members[0].call, OpCall) or _kind(members[0]) == "view"):
            calls.append(members[0])
            continue
        f, args, results = _as_function(members, used_outside, main.bounds)
        key = structural_hash(with_fields(f, name=""))
        if key not in known:
            known[key] = unique_name("_".join(b.call.op for b in members if isinstance(b.call, OpCall))[:48], taken)
            functions[known[key]] = with_fields(f, name=known[key])
        origins = ", ".join(dict.fromkeys(b.origin for b in members if b.origin))
        calls.append(Binding(results, FuncCall(known[key], args, f.dims), origins))
    new_main = with_fields(main, bindings=tuple(calls))
    return with_fields(module, functions={module.entry: new_main, **functions})


def _used_outside(main: Function, groups: list[list[Binding]]) -> set[Operand]:
    home: dict[Operand, int] = {r: i for i, members in enumerate(groups) for b in members for r in b.results}
    outside: set[Operand] = set(main.results)
    for i, members in enumerate(groups):
        for b in members:
            outside.update(a for a in b.call.args if home.get(a, i) != i)
    return outside


def _vars(e: Expr) -> list[Var]:
    """The symbolic extents in an expression, in the order of the text."""
    return [x for x in walk(e) if isinstance(x, Var)]


def _as_function(
    members: list[Binding], outside: set[Operand], bounds: Mapping[Var, int]
) -> tuple[Function, tuple[Operand, ...], tuple[Value, ...]]:
    inner = {r for b in members for r in b.results}
    mapping: dict[Operand, Value] = {}
    for b in members:
        for a in b.call.args:
            if a not in inner and a not in mapping:
                mapping[a] = Value(f"p{len(mapping)}", a.type)
    bindings = []
    for b in members:
        made = tuple(Value(r.name, r.type) for r in b.results)
        args = tuple(mapping[a] for a in b.call.args)
        mapping.update(zip(b.results, made))
        bindings.append(Binding(made, with_fields(b.call, args=args), b.origin))
    results = tuple(r for b in members for r in b.results if r in outside)
    params = tuple(v for a, v in mapping.items() if a not in inner)
    types = [v.type for v in params] + [r.type for b in bindings for r in b.results]
    dims = tuple(dict.fromkeys(v for t in types for e in t.shape if isinstance(e, Expr) for v in _vars(e)))
    attrs = Attrs.of(dim_max=tuple(bounds[v] for v in dims)) if dims else Attrs()
    f = Function("", params, tuple(bindings), tuple(mapping[r] for r in results), attrs, dims)
    return f, tuple(a for a in mapping if a not in inner), results
