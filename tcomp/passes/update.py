"""Results that take the place of inputs: the parameters and the state of a training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ..analysis.dataflow import nx
from ..analysis.regions import accesses, blocks_under, writes
from ..ir.expr import Buffer, Load
from ..ir.graph import Binding, FuncCall, Function, OpCall, Operand, Value, definitions
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.primfunc import PrimFunc
from ..ir.query import as_int
from ..ir.stmt import Block, Store, without_block
from ..ops.registry import get


@dataclass(frozen=True)
class PlaceUpdates:
    """Let as many updates as possible be written right where the input lies.

    The entry's attribute `updates` pairs inputs with the results that take their place. A kernel may write such a result at
    once where all other readers of the input run before it (they are moved there where the dataflow permits) and where it
    reads the input, if at all, only at the element that it writes. The other ones are computed elsewhere, and copied in
    the end. The attribute `direct` names the former; a kernel's attribute `aliases` pairs its buffers of one address, and `in_place`
    those of which the output's elements are the input's until they are changed.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"lowered"})
    ensures: ClassVar[frozenset[str]] = frozenset({"placed"})

    def run(self, module: IRModule) -> IRModule:
        main = module.main
        updates = main.attrs.get("updates", ())
        if not updates:
            return module
        source = views(main)
        table = definitions(main)
        graph = _order(main)
        direct: list[int] = []
        aliases: dict[str, list[set[tuple[int, int]]]] = {}
        for number, result in updates:
            param, root = main.params[number], source.get(main.results[result], main.results[result])
            writer = table.get(root) if isinstance(root, Value) else None
            if writer is None or [source.get(r, r) for r in main.results].count(root) > 1:
                continue
            readers = [b for b in main.bindings if any(source.get(a, a) is param for a in b.call.args)]
            others = [b for b in readers if b is not writer and not _is_view(b)]
            pairs = _pairs(module.functions, writer, root, param, source)
            if pairs is None or any(nx.has_path(graph, writer, b) for b in others):
                continue
            graph.add_edges_from((b, writer) for b in others)
            direct.append(result)
            assert isinstance(writer.call, FuncCall)
            aliases.setdefault(writer.call.callee, []).append(pairs)
        place = {b: i for i, b in enumerate(main.bindings)}
        bindings = tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
        moved = with_fields(main, bindings=bindings, attrs=main.attrs.with_(direct=tuple(direct)))
        calls = Counter(b.call.callee for f in module.graphs for b in f.bindings if isinstance(b.call, FuncCall))
        functions = {
            name: _aliased(f, aliases[name], calls[name]) if name in aliases else f
            for name, f in module.functions.items()
        }
        return with_fields(module, functions={**functions, module.entry: moved})


def views(main: Function) -> dict[Operand, Operand]:
    """Whose bytes each view shares."""
    source: dict[Operand, Operand] = {}
    for b in main.bindings:
        if _is_view(b):
            a = b.call.args[0]
            source[b.result] = source.get(a, a)
    return source


def _is_view(b: Binding) -> bool:
    return isinstance(b.call, OpCall) and get(b.call.op).kind == "view"


def _order(main: Function) -> Any:
    """Which binding must run before which."""
    graph = nx.DiGraph()
    graph.add_nodes_from(main.bindings)
    table = definitions(main)
    graph.add_edges_from((table[a], b) for b in main.bindings for a in b.call.args if a in table)
    return graph


def _pairs(
    functions: Mapping[str, Function | PrimFunc],
    writer: Binding,
    root: Operand,
    param: Value,
    source: dict[Operand, Operand],
) -> set[tuple[int, int]] | None:
    """The writer's parameters that will have one address (none where it does not read the input), or None where it reads other
    elements of the input than the one that it writes."""
    func = functions[writer.call.callee] if isinstance(writer.call, FuncCall) else None
    if not isinstance(func, PrimFunc):
        return None
    output = len(func.inputs) + writer.results.index(root)
    own = [i for i, a in enumerate(writer.call.args) if source.get(a, a) is param]
    if all(_is_pointwise(func, func.buffers[i], func.buffers[output]) for i in own):
        return {(i, output) for i in own}
    return None


def _is_pointwise(func: PrimFunc, read: Buffer, written: Buffer) -> bool:
    """Whether each element of one buffer reaches the same element of another, and other outputs only through that."""
    if read.shape != written.shape:
        return False
    reached = {read}
    for block in func.blocks.values():
        touched = [a for a in accesses(block) if a.buffer in reached and a.buffer is not written]
        if not touched:
            continue
        own = tuple(it.var for it in block.iters)
        made = [a for a in accesses(block) if a.is_write]
        if block.is_reduction or any(a.indices != own for a in (*touched, *made)):
            return False
        reached.update(writes(block))
    return reached & set(func.outputs) <= {written}


def _aliased(func: Function | PrimFunc, found: Sequence[set[tuple[int, int]]], calls: int) -> Function | PrimFunc:
    """A kernel that knows which of its buffers may have one address, and copies none to itself.

    Args:
        found: those pairs, for each call that has such.
    """
    assert isinstance(func, PrimFunc)
    every = set().union(*found)
    if not every:
        return func
    func = with_fields(func, attrs=func.attrs.with_(aliases=tuple(sorted(every))))
    always = sorted(set.intersection(*found)) if len(found) == calls else []
    for i, o in always:
        copy = next((b for b in func.blocks.values() if _copies(b, func.buffers[i], func.buffers[o])), None)
        if copy is not None and len(func.blocks) > 1:
            func = _without_copy(func, copy, (i, o))
    return func


def _copies(block: Block, source: Buffer, target: Buffer) -> bool:
    """Whether a block does nothing but copy a buffer to another."""
    own = tuple(it.var for it in block.iters)
    body = block.body
    if not isinstance(body, Store) or body.buffer is not target or body.indices != own or block.where is not None:
        return False
    return isinstance(body.value, Load) and body.value.buffer is source and body.value.indices == own


def _without_copy(func: PrimFunc, copy: Block, pair: tuple[int, int]) -> PrimFunc:
    """A kernel whose output begins with the input's elements, since both lie in one place."""
    rest = {id(func.buffers[n]) for n in range(len(func.buffers)) if n not in pair}
    body = without_block(func.body, copy)
    output = func.buffers[pair[1]]
    changed = sum(_points(b) * output.dtype.itemsize for b in blocks_under(body) if output in writes(b))
    moved = (
        sum(prod(as_int(e, 1) for e in b.shape) * b.dtype.itemsize for b in func.buffers if id(b) in rest) + 2 * changed
    )
    in_place = (*func.attrs.get("in_place", ()), pair)
    return with_fields(func, body=body, attrs=func.attrs.with_(in_place=in_place, bytes=moved))


def _points(block: Block) -> int:
    return prod(as_int(it.extent, 1) for it in block.iters)
