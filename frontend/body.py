"""Functions of tensors as data: what runs in loops and branches is traced once, and then computed, differentiated and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .autograd import Tensor, TensorOp, TensorTuple, Value, compute_value, find_topo_sort, is_float
from .modes import assigned, detect_anomaly, keep_graph
from .registry import ops
from .trace import Spec, infer, lower_node


class Argument(TensorOp):
    """A parameter of a body: it has a type and no value."""

    def compute(self) -> np.ndarray:
        raise TypeError(
            "the body of a scan or a cond is traced before it runs: it cannot look at the values of its tensors, "
            "and all its operators must have a meaning in graphs (lower)"
        )

    def lower(self, graph: Any) -> Any:
        raise TypeError("a parameter of a body stands outside of it")


def argument(like: Any) -> Tensor:
    """A parameter of the type of a tensor (or of what has a shape and a dtype)."""
    value: Tensor = Tensor.__new__(Tensor)
    value._init(Argument(), (), None, is_float(like.dtype))
    value._spec = Spec(tuple(like.shape), np.dtype(like.dtype))
    return value


@contextmanager
def tracing() -> Iterator[None]:
    """Within, operations are recorded and nothing is computed.

    Raises:
        ValueError: a tensor's data was set.
    """
    with keep_graph(infer), detect_anomaly(False), assigned() as changes:
        yield
    if changes:
        raise ValueError("the body of a scan or a cond cannot set the data of tensors: return what changes instead")


class Body:
    """A function of tensors.

    Attributes:
        params: tensors that stand for its arguments.
        results: what it returns.
        order: the values in between, inputs before users.
    """

    def __init__(self, params: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        self.params, self.results = tuple(params), tuple(results)
        self.order = [n for n in find_topo_sort(self.results) if not isinstance(n.op, Argument)]

    def compute(self, arrays: Sequence[np.ndarray]) -> dict[int, Any]:
        """All values of a run, by the ids of the nodes."""
        values: dict[int, Any] = dict(zip(map(id, self.params), arrays, strict=True))
        for node in self.order:
            values[id(node)] = _computed(node, values)
        return values

    def lower(self, graph: Any, args: Sequence[Any]) -> list[Any]:
        """The results as calls on a `tcomp.GraphBuilder`."""
        values = dict(zip(map(id, self.params), args, strict=True))
        for node in self.order:
            values[id(node)] = lower_node(graph, node, node.op, values)
        return [values[id(r)] for r in self.results]


def _computed(node: Value, values: Mapping[int, Any]) -> Any:
    assert node.op is not None
    return compute_value(node.op, [values[id(x)] for x in node.inputs])


def value_in(values: dict[int, Any], node: Value) -> Any:
    """A value of a run, computed now where it was not asked for then."""
    if id(node) not in values:
        for x in node.inputs:
            if isinstance(x, TensorTuple) and len(x) > len(values[id(x)]):  # a scan that got further results since
                values[id(x)] = _computed(x, values)
        values[id(node)] = _computed(node, values)
    return values[id(node)]


def trace_body(f: Callable[..., Sequence[Tensor]], like: Sequence[Any]) -> tuple[Body, list[Tensor]]:
    """The body of a function, and the tensors from outside that it uses: they are its last parameters.

    Args:
        f: of tensors, with tensors as results.
        like: what has the types of its arguments.
    """
    params = [argument(x) for x in like]
    with tracing():
        results = f(*params)
    return close(params, results)


def close(params: Sequence[Tensor], results: Sequence[Tensor]) -> tuple[Body, list[Tensor]]:
    """The function from some tensors to others that were computed from them, as a body that shares no node with them; and what else
    the results depend on: it becomes the last parameters.

    What depends on no parameter is computed outside, once.
    """
    closing = _Closing(params)
    order = find_topo_sort(results, set(closing.mapping))
    inner = set(closing.mapping)
    for node in order:
        if any(id(x) in inner for x in node.inputs):
            inner.add(id(node))
    for node in order:
        if id(node) in inner and id(node) not in closing.mapping:
            if node.op is not None and not node.op.is_closed:
                raise TypeError(
                    f"{type(node.op).__name__} cannot be a part of a scan or a cond: its gradient reads tensors that are not among its "
                    "inputs; put recompute around the scan instead"
                )
            closing.mapping[id(node)] = _copy(node, [closing.inside(x) for x in node.inputs])
    found = [closing.inside(r) for r in results]
    return Body(closing.params, found), closing.captured


class _Closing:
    """What stands inside of a body for each value outside of it."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = [argument(p) for p in params]
        self.mapping: dict[int, Value] = dict(zip(map(id, params), self.params))
        self.captured: list[Tensor] = []

    def inside(self, x: Value) -> Value:
        if id(x) not in self.mapping:
            if isinstance(x, TensorTuple):
                self.mapping[id(x)] = _copy(ops.make_tuple(*x), [self.inside(t) for t in x])
            else:
                assert isinstance(x, Tensor)
                self.captured.append(x)
                self.params.append(argument(x))
                self.mapping[id(x)] = self.params[-1]
        return self.mapping[id(x)]


def _copy(node: Value, inputs: Sequence[Value]) -> Value:
    new: Value = type(node).__new__(type(node))
    new._init(node.op, inputs, None, node.requires_grad)
    known = node.known
    new._spec = tuple(map(_spec, known)) if isinstance(known, tuple) else _spec(known)
    return new


def _spec(known: Any) -> Spec:
    return Spec(tuple(known.shape), np.dtype(known.dtype))


def specs_of(nodes: Sequence[Value]) -> tuple[Spec, ...]:
    """The types of tensors."""
    return tuple(_spec(n.known) for n in nodes)


def forward_values(results: Sequence[Value], body: Body) -> list[Tensor]:
    """The values of a body from which results were computed directly, each once."""
    known = {id(n) for n in (*body.params, *body.order)}
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    stack: list[Value] = list(reversed(results))
    while stack:
        n = stack.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        is_part = isinstance(n.op, ops.TupleGetItem) and id(n.inputs[0]) in known
        if isinstance(n, Tensor) and (id(n) in known or is_part):
            found[id(n)] = n
        else:
            stack.extend(reversed(n.inputs))
    return list(found.values())


Tree = Any
"""A tensor, None, or a tuple or list of such."""


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in order.

    Raises:
        TypeError: something else is in it.
    """
    if tree is None:
        return []
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, (tuple, list, TensorTuple)):
        return [t for part in tree for t in leaves(part)]
    raise TypeError(f"expected tensors, tuples of them or None, got {type(tree).__name__}")


def unflatten(tree: Tree, tensors: Iterator[Tensor]) -> Tree:
    """A tree of the same form with other tensors."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return next(tensors)
    return tuple(unflatten(part, tensors) for part in tree)
