"""Tensors, operators, and reverse-mode automatic differentiation.

A gradient is computed by the same operators as the values, so it is part of the graph and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .device import Device, default_device

TENSOR_COUNTER = 0
_keep_graph: ContextVar[bool] = ContextVar("keep_graph", default=False)


@contextmanager
def keep_graph() -> Iterator[None]:
    """Within, every operation is recorded, also those that need no gradient: this is how models are traced."""
    token = _keep_graph.set(True)
    try:
        yield
    finally:
        _keep_graph.reset(token)


class Op:
    """An operator: `compute` on arrays, `gradient` on tensors."""

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError

    def compute(self, *args: np.ndarray) -> Any:
        """The value, from the values of the inputs."""
        raise NotImplementedError

    def gradient(self, out_grad: Any, node: Any) -> Any:
        """The gradients of the inputs, from the gradient of the output: one Tensor, or a tuple with one an input."""
        raise NotImplementedError

    def gradient_as_tuple(self, out_grad: Any, node: Any) -> tuple[Any, ...]:
        """`gradient`, always as a tuple."""
        out = self.gradient(out_grad, node)
        if isinstance(out, tuple):
            return out
        return tuple(out) if isinstance(out, list) else (out,)

    def lower(self, graph: Any, *args: Any) -> Any:
        """The same operation as calls on a `tcomp.GraphBuilder`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be compiled")


class TensorOp(Op):
    """An operator whose result is a Tensor."""

    def __call__(self, *args: Any) -> Tensor:
        return Tensor.make_from_op(self, args)


class TensorTupleOp(Op):
    """An operator whose result is a TensorTuple."""

    def __call__(self, *args: Any) -> TensorTuple:
        return TensorTuple.make_from_op(self, args)


class Value:
    """A node of the graph: the operator that made it, its inputs, and its value."""

    op: Op | None
    inputs: list[Value]
    cached_data: Any
    requires_grad: bool

    def realize_cached_data(self) -> Any:
        """The value, computed now if it was not yet."""
        if self.cached_data is None:
            assert self.op is not None
            self.cached_data = self.op.compute(*[x.realize_cached_data() for x in self.inputs])
        return self.cached_data

    def is_leaf(self) -> bool:
        return self.op is None

    def _init(
        self, op: Op | None, inputs: Sequence[Any], *, cached_data: Any = None, requires_grad: bool | None = None
    ) -> None:
        global TENSOR_COUNTER
        TENSOR_COUNTER += 1
        self.op = op
        self.inputs = list(inputs)
        self.cached_data = cached_data
        self.requires_grad = any(x.requires_grad for x in self.inputs) if requires_grad is None else requires_grad

    @classmethod
    def make_from_op(cls, op: Op, inputs: Sequence[Any]) -> Any:
        value = cls.__new__(cls)
        value._init(op, inputs)
        value.realize_cached_data()
        if not value.requires_grad and not _keep_graph.get():
            return value.detach()
        return value

    def detach(self) -> Any:
        raise NotImplementedError


class TensorTuple(Value):
    """Several tensors as one value."""

    def __len__(self) -> int:
        return len(self.realize_cached_data())

    def __getitem__(self, index: int) -> Tensor:
        return ops.tuple_get_item(self, index)

    def tuple(self) -> tuple[Tensor, ...]:
        return tuple(self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"frontend.TensorTuple{self.tuple()}"

    def detach(self) -> TensorTuple:
        value = TensorTuple.__new__(TensorTuple)
        value._init(None, [], cached_data=self.realize_cached_data(), requires_grad=False)
        return value


class Tensor(Value):
    """An array that knows how it was computed.

    Args:
        array: numbers, an array, or another Tensor.
        device: where it lives; dtype: by default float32 for Python numbers, else the array's.
        requires_grad: whether `backward` computes its gradient.
    """

    grad: Tensor | None

    def __init__(
        self, array: Any, *, device: Device | None = None, dtype: Any = None, requires_grad: bool = True, **_: Any
    ) -> None:
        values = array.realize_cached_data() if isinstance(array, Tensor) else array
        if dtype is None and not isinstance(values, (np.ndarray, np.generic)):
            dtype = "float32"
        self.grad = None
        self._init(None, [], cached_data=np.array(values, dtype=dtype), requires_grad=requires_grad)

    @staticmethod
    def make_const(data: Any, *, requires_grad: bool = False) -> Tensor:
        """A leaf that holds existing data."""
        value = Tensor.__new__(Tensor)
        value.grad = None
        raw = data.realize_cached_data() if isinstance(data, Tensor) else data
        value._init(None, [], cached_data=raw, requires_grad=requires_grad)
        return value

    @classmethod
    def make_from_op(cls, op: Op, inputs: Sequence[Any]) -> Tensor:
        value = super().make_from_op(op, inputs)
        value.grad = None
        return value

    @property
    def data(self) -> Tensor:
        """The value, cut off from the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, Tensor)
        if value.dtype != self.dtype:
            raise TypeError(f"data of dtype {value.dtype} given to a tensor of dtype {self.dtype}")
        self.cached_data = value.realize_cached_data()

    def detach(self) -> Tensor:
        """The same value as a leaf without gradient."""
        return Tensor.make_const(self.realize_cached_data())

    @property
    def shape(self) -> tuple[int, ...]:
        return self.realize_cached_data().shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.realize_cached_data().dtype

    @property
    def device(self) -> Device:
        return default_device()

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array."""
        return self.realize_cached_data()

    def item(self) -> float | int:
        """The value of a tensor with one element."""
        return self.realize_cached_data().item()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"frontend.Tensor({self.realize_cached_data()})"

    __str__ = __repr__

    def backward(self, out_grad: Tensor | None = None) -> None:
        """Compute `.grad` of every tensor that this one was computed from."""
        seed = out_grad if out_grad is not None else init.ones(*self.shape, dtype=self.dtype, requires_grad=False)
        compute_gradient_of_variables(self, seed)

    # operators

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other) if isinstance(other, Tensor) else ops.add_scalar(self, other)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other) if isinstance(other, Tensor) else ops.mul_scalar(self, other)

    def __pow__(self, other: Any) -> Tensor:
        return ops.power(self, other) if isinstance(other, Tensor) else ops.power_scalar(self, other)

    def __sub__(self, other: Any) -> Tensor:
        return ops.add(self, ops.negate(other)) if isinstance(other, Tensor) else ops.add_scalar(self, -other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.add_scalar(ops.negate(self), other)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other) if isinstance(other, Tensor) else ops.divide_scalar(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.mul_scalar(ops.power_scalar(self, -1), other)

    def __matmul__(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    def matmul(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    def sum(self, axes: Any = None) -> Tensor:
        return ops.summation(self, axes)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        return ops.broadcast_to(self, shape)

    def reshape(self, shape: Sequence[int]) -> Tensor:
        return ops.reshape(self, shape)

    def transpose(self, axes: Any = None) -> Tensor:
        return ops.transpose(self, axes)

    def __neg__(self) -> Tensor:
        return ops.negate(self)

    __radd__ = __add__
    __rmul__ = __mul__


def compute_gradient_of_variables(output_tensor: Tensor, out_grad: Tensor) -> None:
    """Set `.grad` of every tensor that `output_tensor` depends on and that requires one.

    Reverse-mode differentiation: A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, chapter 3.
    """
    partial: dict[int, list[Tensor]] = {id(output_tensor): [out_grad]}
    for node in reversed(find_topo_sort([output_tensor])):
        parts = partial.pop(id(node), None)
        if parts is None or not node.requires_grad:
            continue
        total = sum_node_list(parts)
        if isinstance(node, Tensor):
            node.grad = total
        if node.op is None:
            continue
        for x, g in zip(node.inputs, node.op.gradient_as_tuple(total, node)):
            if x.requires_grad and g is not None:
                partial.setdefault(id(x), []).append(g)


def find_topo_sort(node_list: Sequence[Value]) -> list[Value]:
    """The nodes that some nodes depend on, inputs before users (a post-order walk, without recursion)."""
    order: list[Value] = []
    visited: set[int] = set()
    stack: list[tuple[Value, bool]] = [(n, False) for n in reversed(node_list)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in visited:
            visited.add(id(node))
            stack.append((node, True))
            stack.extend((x, False) for x in reversed(node.inputs) if id(x) not in visited)
    return order


def sum_node_list(nodes: Sequence[Any]) -> Any:
    """The sum, without adding to zero."""
    total = nodes[0]
    for n in nodes[1:]:
        total = total + n
    return total


from . import init, ops  # noqa: E402  (operators are made of Tensors, and Tensor's methods of operators)
