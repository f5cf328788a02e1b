"""Tensors, operators, and reverse-mode automatic differentiation.

A gradient is computed by the same operators as the values, so it is part of the graph and can be differentiated again.
`frontend.differentiate` builds the rest on that: gradients of functions, forward mode, Hessian-vector products.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from .device import Device, default_device
from .modes import ASSIGNING, DETECTING, DIFFERENTIATING, TRACING, autocast, enable_grad, no_grad
from .registry import ops

TENSOR_COUNTER = 0
"""How many nodes of graphs are alive."""


class AnomalyError(ArithmeticError):
    """An operator made NaN of numbers."""


class Op:
    """An operator: `compute` on arrays, `gradient` on tensors.

    Attributes:
        is_differentiable: results that are no numbers (comparisons, places) have no gradient.
        precision: of the products in its gradient (see `autocast`). is_closed: whether that reads no tensors but its inputs.
    """

    is_differentiable = True
    is_closed = True
    precision: np.dtype | None = None

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError

    def compute(self, *args: Any, **_: Any) -> Any:
        """The value, from the values of the inputs."""
        raise NotImplementedError

    def gradient(self, out_grad: Any, node: Any) -> Any:
        """The gradients of the inputs, from the gradient of the output: one Tensor, or a tuple with one an input; None of an
        input that has none. It is linear in `out_grad`, and made of operators."""
        raise NotImplementedError

    def gradient_as_tuple(self, out_grad: Any, node: Any) -> tuple[Any, ...]:
        """`gradient`, always as a tuple."""
        out = self.gradient(out_grad, node)
        if isinstance(out, tuple):
            return out
        return tuple(out) if isinstance(out, list) else (out,)

    def infer(self, inputs: Sequence[Any]) -> Any:
        """What is known of the result before it is computed (see `Value.known`); None where the meaning in graphs tells it."""
        return None

    def lower(self, graph: Any, *args: Any, **_: Any) -> Any:
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
    inputs: list[Any]
    cached_data: Any
    requires_grad: bool
    _spec: Any = None

    def realize_cached_data(self) -> Any:
        """The value, computed now if it was not yet."""
        if self.cached_data is None:
            for node in find_topo_sort([self]):
                if node.cached_data is None:
                    assert node.op is not None
                    node.cached_data = compute_value(node.op, [x.cached_data for x in node.inputs])
        return self.cached_data

    @property
    def known(self) -> Any:
        """What has the value's `shape`, `dtype` and `size`, or a tuple of such: the value itself, where it has been computed."""
        return self._spec if self.cached_data is None else self.cached_data

    def __new__(cls, *_: Any, **__: Any) -> Any:
        global TENSOR_COUNTER
        TENSOR_COUNTER += 1
        return super().__new__(cls)

    def __del__(self) -> None:
        global TENSOR_COUNTER
        TENSOR_COUNTER -= 1

    def is_leaf(self) -> bool:
        return self.op is None

    def _init(self, op: Op | None, inputs: Sequence[Any], cached_data: Any, requires_grad: bool) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.cached_data = cached_data
        self.requires_grad = requires_grad

    @classmethod
    def make_from_op(cls, op: Op, inputs: Sequence[Any]) -> Any:
        value = cls.__new__(cls)
        wanted = DIFFERENTIATING.get() and op.is_differentiable and any(x.requires_grad for x in inputs)
        infer = TRACING.get()
        if infer is not None and not DETECTING.get():
            value._spec = infer(op, inputs)
        data = None if value._spec is not None else compute_value(op, [x.realize_cached_data() for x in inputs])
        is_kept = wanted or infer is not None
        value._init(op if is_kept else None, inputs if is_kept else (), data, wanted)
        return value

    def detach(self) -> Any:
        raise NotImplementedError


def compute_value(op: Op, arrays: Sequence[Any]) -> Any:
    """What an operator makes of arrays.

    Raises:
        AnomalyError: within `detect_anomaly`, it made NaN of numbers.
    """
    result = op.compute(*arrays)
    result = result if isinstance(result, tuple) else np.asarray(result)
    if DETECTING.get() and _has_nan(result) and not any(map(_has_nan, arrays)):
        shown = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays if isinstance(a, np.ndarray))
        raise AnomalyError(f"{type(op).__name__} made NaN of numbers; its inputs are {shown}")
    return result


def _has_nan(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_has_nan, value))
    return value.dtype.kind == "f" and bool(np.isnan(value).any())


class TensorTuple(Value):
    """Several tensors as one value."""

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> Tensor:
        return ops.tuple_get_item(self, index)

    def tuple(self) -> tuple[Tensor, ...]:
        return tuple(self[i] for i in range(len(self)))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"frontend.TensorTuple{self.tuple()}"

    def __add__(self, other: TensorTuple) -> TensorTuple:
        return ops.make_tuple(*(a + b for a, b in zip(self, other, strict=True)))

    def detach(self) -> TensorTuple:
        """The same values without gradient."""
        return ops.make_tuple(*(x.detach() for x in self))


class Tensor(Value):
    """An array that knows how it was computed.

    Args:
        array: numbers, an array, or another Tensor.
        device: where it lives; dtype: by default float32 for Python numbers, else the array's.
        requires_grad: whether `backward` computes its gradient; only floating-point tensors have one.

    Attributes:
        grad: what the last `backward` found, of a leaf or after `retain_grad`.
    """

    grad: Tensor | None = None
    _keeps_grad = False

    def __init__(
        self, array: Any, *, device: Device | None = None, dtype: Any = None, requires_grad: bool = True, **_: Any
    ) -> None:
        values = array.realize_cached_data() if isinstance(array, Tensor) else array
        if dtype is None and not isinstance(values, (np.ndarray, np.generic)):
            dtype = "float32"
        data = np.array(values, dtype=dtype)
        self._init(None, (), data, requires_grad and is_float(data.dtype))

    @staticmethod
    def make_const(data: Any, *, requires_grad: bool = False) -> Tensor:
        """A leaf that holds existing data."""
        value = Tensor.__new__(Tensor)
        raw = data.realize_cached_data() if isinstance(data, Tensor) else np.asarray(data)
        value._init(None, (), raw, requires_grad and is_float(raw.dtype))
        return value

    @property
    def data(self) -> Tensor:
        """The value, cut off from the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data is set to a Tensor, not to a {type(value).__name__}")
        if value.dtype != self.dtype:
            raise TypeError(f"data of dtype {value.dtype} given to a tensor of dtype {self.dtype}")
        changes = ASSIGNING.get()
        if changes is None:
            self.cached_data = value.realize_cached_data()
        else:
            changes[id(self)] = value

    def detach(self) -> Tensor:
        """The same value without gradient: a leaf, or, in a trace, still a part of the graph."""
        return ops.stop_gradient(self)

    def retain_grad(self) -> Tensor:
        """Let `backward` keep the gradient of this tensor, though it was computed from others."""
        self._keeps_grad = True
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.known.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.known.size

    @property
    def dtype(self) -> np.dtype:
        return self.known.dtype

    @property
    def device(self) -> Device:
        return default_device()

    @property
    def T(self) -> Tensor:
        """All axes in reverse order."""
        return self if self.ndim < 2 else ops.permute(self, tuple(reversed(range(self.ndim))))

    def numpy(self) -> np.ndarray:
        """A copy of the value as a NumPy array: changing it does not change the tensor."""
        return np.array(self.realize_cached_data())

    def item(self) -> float | int:
        """The value of a tensor with one element."""
        return self.realize_cached_data().item()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.realize_cached_data(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"frontend.Tensor({self.realize_cached_data()})"

    def __str__(self) -> str:
        return str(self.realize_cached_data())

    def backward(self, out_grad: Tensor | None = None, create_graph: bool = True) -> None:
        """Compute `.grad` of every leaf that this tensor was computed from and that requires one; it takes the place of the one
        before.

        Args:
            out_grad: the gradient of this tensor; ones by default.
            create_graph: record how the gradients are computed, so that they can be differentiated again.
        """
        seed = out_grad if out_grad is not None else Tensor.make_const(np.ones(self.shape, self.dtype))
        if seed.shape != self.shape:
            raise ValueError(f"out_grad has shape {seed.shape}, the tensor {self.shape}")
        with enable_grad() if create_graph else no_grad():
            compute_gradient_of_variables(self, seed)

    # operators

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other) if isinstance(other, Tensor) else ops.add_scalar(self, other)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other) if isinstance(other, Tensor) else ops.mul_scalar(self, other)

    def __pow__(self, other: Any) -> Tensor:
        return ops.power(self, other) if isinstance(other, Tensor) else ops.power_scalar(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other) if isinstance(other, Tensor) else ops.sub_scalar(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other) if isinstance(other, Tensor) else ops.divide_scalar(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    def __neg__(self) -> Tensor:
        return ops.negate(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __lt__(self, other: Any) -> Tensor:
        return ops.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.greater_equal(self, other)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def matmul(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    def sum(self, axes: Any = None, keepdims: bool = False) -> Tensor:
        return ops.summation(self, axes, keepdims)

    def mean(self, axes: Any = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axes, keepdims)

    def var(self, axes: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return ops.var(self, axes, keepdims, ddof)

    def max(self, axes: Any = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axes, keepdims)

    def min(self, axes: Any = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axes, keepdims)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        return ops.broadcast_to(self, shape)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, axes: Any = None) -> Tensor:
        return ops.transpose(self, axes)

    def astype(self, dtype: Any) -> Tensor:
        return ops.cast(self, dtype)

    __radd__ = __add__
    __rmul__ = __mul__


def is_float(dtype: Any) -> bool:
    """Whether numbers of a NumPy dtype have gradients; ml_dtypes' bfloat16 is of kind V."""
    kind = np.dtype(dtype)
    return kind.kind == "f" or kind.name == "bfloat16"


def compute_gradient_of_variables(output_tensor: Tensor, out_grad: Tensor) -> None:
    """Set `.grad` of every leaf that `output_tensor` depends on and that requires one."""
    for node, total in accumulate_gradients([output_tensor], [out_grad]):
        if isinstance(node, Tensor) and (node.op is None or node._keeps_grad):
            node.grad = total


def accumulate_gradients(
    outputs: Sequence[Tensor], out_grads: Sequence[Tensor], wanted: Sequence[Value] | None = None
) -> Iterator[tuple[Value, Any]]:
    """The nodes that some outputs depend on, users before inputs, each with the gradient of all outputs.

    Reverse-mode differentiation: A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, chapter 3.

    Args:
        wanted: nothing is computed but for these nodes.
    """
    order = find_topo_sort(outputs)
    needed = {id(n) for n in order if n.requires_grad} if wanted is None else _between(order, wanted)
    partial: dict[int, list[Any]] = {}
    members: dict[int, dict[int, list[Tensor]]] = {}  # gradients of the tensors of a tuple
    for out, g in zip(outputs, out_grads):
        partial.setdefault(id(out), []).append(g)
    for node in reversed(order):
        parts, own = partial.pop(id(node), []), members.pop(id(node), None)
        if own is not None:
            parts.append(_join(node, own))
        if not parts or id(node) not in needed:
            continue
        total = sum_node_list(parts)
        yield node, total
        if isinstance(node.op, ops.TupleGetItem):
            members.setdefault(id(node.inputs[0]), {}).setdefault(node.op.index, []).append(total)
        elif node.op is not None and any(id(x) in needed for x in node.inputs):
            with autocast(node.op.precision):
                grads = node.op.gradient_as_tuple(total, node)
            for x, g in zip(node.inputs, grads, strict=True):
                if g is not None and id(x) in needed:
                    partial.setdefault(id(x), []).append(g)


def _between(order: Sequence[Value], wanted: Sequence[Value]) -> set[int]:
    """The nodes that depend on wanted ones; those included."""
    needed = {id(x) for x in wanted}
    for node in order:
        if node.requires_grad and any(id(x) in needed for x in node.inputs):
            needed.add(id(node))
    return needed


def _join(node: Value, members: dict[int, list[Tensor]]) -> TensorTuple:
    """The gradient of a tuple, from those of its tensors."""
    return ops.make_tuple(
        *(sum_node_list(members[i]) if i in members else zeros_like(a) for i, a in enumerate(node.known))
    )


def zeros_like(x: Any) -> Tensor:
    """Zeros of the shape and dtype of a tensor or array, which take no memory."""
    return Tensor.make_const(np.broadcast_to(np.zeros((), x.dtype), x.shape))


def is_zeros(x: Tensor) -> bool:
    """Whether a tensor is known to be zeros: it was made by `zeros_like`."""
    a = x.cached_data
    return a is not None and a.size > 1 and not any(a.strides) and not a.reshape(-1)[0]


def find_topo_sort(node_list: Sequence[Value], ends: Collection[int] = ()) -> list[Value]:
    """The nodes that some nodes depend on, inputs before users (a post-order walk, without recursion).

    Args:
        ends: ids of nodes whose inputs are left out; so are those of nodes that have been computed, then.
    """
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
            if not ends or (id(node) not in ends and node.cached_data is None):
                stack.extend((x, False) for x in reversed(node.inputs) if id(x) not in visited)
    return order


def sum_node_list(nodes: Sequence[Any]) -> Any:
    """The sum, without adding to zero."""
    total = nodes[0]
    for n in nodes[1:]:
        total = total + n
    return total
