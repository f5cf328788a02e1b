"""Module -> IRModule: run the model once on shapes and dtypes, recording every operation, and write the record down as a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tcomp

from .autograd import Op, Tensor, TensorTuple, Value, find_topo_sort
from .modes import keep_graph


def trace(module: Any, inputs: Sequence[Any]) -> Any:
    """The graph of a callable for inputs like the given ones.

    Parameters and whatever else the model uses become constants; the inputs become parameters x0, x1, ...; results in tuples
    become one row of results. A model in training mode is traced in evaluation mode: dropout is off, batch normalisation uses
    its running statistics.

    Args:
        module: a Module, or any function of Tensors; it may compute gradients, also by its inputs.
        inputs: arrays or Tensors.

    Raises:
        tcomp.TcompError: the model uses an operation that cannot be compiled, or its result depends on no operation of ours.
    """
    tensors = [Tensor.make_const(x, requires_grad=True) for x in inputs]
    modes = [(m, m.training) for m in module.modules()] if hasattr(module, "modules") else []
    try:
        for m, _ in modes:
            m.training = False
        with keep_graph(infer):
            out = module(*tensors)
    finally:
        for m, mode in modes:
            m.training = mode
    return write_graph([(f"x{i}", x) for i, x in enumerate(tensors)], flatten(out))


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a tensor before it is computed."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def infer(op: Op, inputs: Sequence[Value]) -> Any:
    """What an operator's result is, by the type rules of the graph; None where those have no answer, so that computing it may."""
    known = op.infer(inputs)
    if known is not None:
        return known
    graph = tcomp.GraphBuilder()

    def given(known: Any, name: str) -> Any:
        if isinstance(known, tuple):
            return tuple(given(k, f"{name}_{i}") for i, k in enumerate(known))
        return graph.input(name, known.shape, known.dtype)

    try:
        out = op.lower(graph, *(given(x.known, f"x{i}") for i, x in enumerate(inputs)))
    except Exception:  # it has none, or refuses: eager mode says why
        return None
    specs = tuple(Spec(v.type.shape, np.dtype(v.type.dtype.numpy)) for v in (out if isinstance(out, tuple) else (out,)))
    return specs if isinstance(out, tuple) else specs[0]


def flatten(out: Any) -> list[Tensor]:
    """The tensors of a result: one, or tuples and lists of them."""
    if isinstance(out, Tensor):
        return [out]
    if isinstance(out, (list, tuple, TensorTuple)):
        return [t for part in out for t in flatten(part)]
    raise _error(f"the model returned a {type(out).__name__}", "a traced model returns Tensors")


def _error(what: str, why: str, hint: str = "") -> Exception:
    return tcomp.TcompError(what, why=why, hint=hint)


def write_graph(
    inputs: Sequence[tuple[str, Tensor]], results: Sequence[Tensor], updates: Mapping[str, int] | None = None
) -> Any:
    """The graph by which results were computed from inputs; other leaves become constants.

    Args:
        inputs: (name, leaf).
        updates: names of inputs, and the numbers of the results that take their place.
    """
    graph = tcomp.GraphBuilder()
    values: dict[int, Any] = {}
    for name, x in inputs:
        values[id(x)] = graph.input(name, x.shape, x.dtype)
    named = {name: values[id(x)] for name, x in inputs}
    for node in find_topo_sort(results):
        if id(node) not in values:
            values[id(node)] = _constant(graph, node) if node.op is None else lower_node(graph, node, node.op, values)
    pairs = {named[name]: number for name, number in (updates or {}).items()}
    return graph.build(*(values[id(r)] for r in results), updates=pairs)


def _constant(graph: Any, node: Value) -> Any:
    data = node.realize_cached_data()
    if isinstance(data, tuple):
        return tuple(graph.constant(np.asarray(a)) for a in data)
    return graph.constant(np.asarray(data), "weight" if node.requires_grad else "const")


def lower_node(graph: Any, node: Value, op: Op, values: Mapping[int, Any]) -> Any:
    """What a node means as calls on a `tcomp.GraphBuilder`, given what its inputs mean, by their ids.

    Raises:
        tcomp.UnsupportedError: its operator has no such meaning.
    """
    if type(op).lower is Op.lower:
        raise tcomp.UnsupportedError(
            f"cannot compile the operation {type(op).__name__}",
            why="it has no lower(graph, *args) method, which says what it means as calls on a GraphBuilder",
            hint=f"define {type(op).__name__}.lower",
        )
    return op.lower(graph, *(values[id(x)] for x in node.inputs))
