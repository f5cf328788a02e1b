"""Derivatives of functions of tensors: reverse and forward mode, second derivatives, and a check for one's own operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import Tensor, TensorTuple, Value, accumulate_gradients, find_topo_sort, is_float, zeros_like
from .modes import enable_grad, no_grad
from .registry import ops


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    out_grads: Sequence[Tensor] | None = None,
    create_graph: bool = True,
) -> list[Tensor]:
    """The gradients of outputs by inputs, leaving `.grad` alone.

    Args:
        inputs: any tensors that the outputs were computed from; zeros for one that they do not depend on.
        out_grads: those of the outputs; ones by default.
        create_graph: record how they are computed, so that they can be differentiated again.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    seeds = [_ones_like(o) for o in outs] if out_grads is None else list(out_grads)
    for out, seed in zip(outs, seeds, strict=True):
        if out.shape != seed.shape:
            raise ValueError(f"a gradient of shape {seed.shape} is given for an output of shape {out.shape}")
    wanted = {id(x) for x in inputs}
    with enable_grad() if create_graph else no_grad():
        found = {id(n): g for n, g in accumulate_gradients(outs, seeds, inputs) if id(n) in wanted}
    return [found[id(x)] if id(x) in found else zeros_like(x) for x in inputs]


def _ones_like(x: Tensor) -> Tensor:
    return Tensor.make_const(np.ones(x.shape, x.dtype))


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns f's value and its gradient.

    Args:
        f: of tensors (or what becomes one), with one number as result.
        argnums: by which arguments; with several, the gradients are a tuple.
    """
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def both(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        given = [_input(a) if i in chosen else a for i, a in enumerate(args)]
        with enable_grad():
            value = f(*given, **kwargs)
        if not isinstance(value, Tensor) or value.size != 1:
            what = f"of shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"a function with one number as result has a gradient, this one gave a tensor {what}")
        found = gradients(value, [given[i] for i in chosen])
        return value, found[0] if isinstance(argnums, int) else tuple(found)

    return both


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns f's gradient; grad(grad(f)) is that of the gradient. See `value_and_grad`."""
    both = value_and_grad(f, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def _input(a: Any) -> Tensor:
    """A tensor to differentiate by: itself where it is a part of a graph already, so that derivatives nest."""
    if isinstance(a, Tensor) and a.requires_grad:
        return a
    return Tensor.make_const(a.numpy() if isinstance(a, Tensor) else _array(a), requires_grad=True)


def _array(a: Any) -> np.ndarray:
    values = np.asarray(a)
    return values if is_float(values.dtype) else values.astype("float32")


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of f, and its derivative along a direction: forward mode.

    Tangents are pushed through the graph operator by operator. An operator's Jacobian-vector product is the transpose of
    its gradient, which is linear in the gradient of its result (J. Townsend, A new trick for calculating Jacobian vector
    products, 2017), so operators need no further rule.

    Args:
        f: of tensors; its result is a tensor, or a tuple or list of them.
        primals: where; tangents: the direction, one for each of them.

    Returns:
        Value and tangent, each as f returns it.
    """
    inputs = [_input(p) for p in primals]
    with enable_grad():
        out = f(*inputs)
        results = [out] if isinstance(out, Tensor) else list(out)
        moving: dict[int, Any] = {}
        for x, t in zip(inputs, tangents, strict=True):
            moving[id(x)] = t if isinstance(t, Tensor) else Tensor.make_const(np.asarray(t, x.dtype))
            if moving[id(x)].shape != x.shape:
                raise ValueError(f"a tangent of shape {moving[id(x)].shape} is given for a tensor of shape {x.shape}")
        for node in find_topo_sort(results):
            if id(node) not in moving and node.requires_grad and any(id(x) in moving for x in node.inputs):
                moving[id(node)] = _push(node, moving)
    ends = [moving[id(r)] if id(r) in moving else zeros_like(r) for r in results]
    return out, ends[0] if isinstance(out, Tensor) else type(out)(ends)


def _push(node: Value, moving: dict[int, Any]) -> Any:
    """The tangent of an operator's result."""
    assert node.op is not None
    if isinstance(node.op, ops.TupleGetItem):
        return moving[id(node.inputs[0])][node.op.index]
    if isinstance(node.op, ops.MakeTensorTuple):
        return ops.make_tuple(*(moving[id(x)] if id(x) in moving else zeros_like(x) for x in node.inputs))
    is_tuple = isinstance(node, TensorTuple)
    probes = [Tensor(np.zeros(a.shape, a.dtype)) for a in (node.known if is_tuple else (node.known,))]
    found = node.op.gradient_as_tuple(ops.make_tuple(*probes) if is_tuple else probes[0], node)
    pairs: list[tuple[Tensor, Tensor]] = []
    for x, g in zip(node.inputs, found):
        if g is not None and id(x) in moving:
            t = moving[id(x)]
            pairs += zip(g, t) if isinstance(g, TensorTuple) else [(g, t)]
    tangents = gradients([g for g, _ in pairs], probes, [t for _, t in pairs])
    return ops.make_tuple(*tangents) if is_tuple else tangents[0]


def hessian_vector_product(f: Callable[..., Tensor], x: Any, v: Any) -> Tensor:
    """The Hessian of f at x, times v: the derivative of the gradient along v, without the Hessian itself.

    Args:
        f: of one tensor, with one number as result; x, v: of one shape.

    Reference:
        B. A. Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6, 1994.
    """
    return jvp(grad(f), [x], [v])[1]


class GradientError(AssertionError):
    """A gradient is not what differences say."""


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Sequence[Any],
    eps: float = 1e-6,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    second: bool = False,
) -> bool:
    """Compare the gradients of f with central differences, in float64, along every element of every input.

    Args:
        f: of tensors, with a tensor of any shape as result (a random weighting of it is differentiated).
        inputs: arrays or tensors; those that are not of floating point are passed on as they are.
        eps: the step of the differences; rtol, atol: what may differ.
        second: also check the gradient of the gradient.

    Returns:
        True.

    Raises:
        GradientError: they differ; the message says where and by how much.
    """
    arrays = [np.asarray(x.numpy() if isinstance(x, Tensor) else x) for x in inputs]
    smooth = [i for i, a in enumerate(arrays) if is_float(a.dtype)]
    arrays = [a.astype("float64") if i in smooth else a for i, a in enumerate(arrays)]
    rng = np.random.default_rng(0)
    weight = Tensor.make_const(rng.standard_normal(f(*map(Tensor.make_const, arrays)).shape))

    def weighted(*xs: Tensor) -> Tensor:
        return ops.summation(f(*xs) * weight)

    _compare(weighted, arrays, smooth, (eps, rtol, atol), "gradient")
    if second:
        directions = {i: Tensor.make_const(rng.standard_normal(arrays[i].shape)) for i in smooth}

        def slope(*xs: Tensor) -> Tensor:
            found = grad(weighted, smooth)(*xs)
            total = ops.summation(found[0] * directions[smooth[0]])
            for i, g in zip(smooth[1:], found[1:]):
                total = total + ops.summation(g * directions[i])
            return total

        _compare(slope, arrays, smooth, (eps, rtol, atol), "second derivative")
    return True


def _compare(
    f: Callable[..., Tensor], arrays: list[np.ndarray], smooth: list[int], limits: tuple[float, ...], what: str
) -> None:
    eps, rtol, atol = limits
    found = grad(f, smooth)(*map(Tensor.make_const, arrays))
    for i, g in zip(smooth, found):
        for place in np.ndindex(arrays[i].shape):
            ends = []
            for step in (eps, -eps):
                moved = list(arrays)
                moved[i] = arrays[i].copy()
                moved[i][place] += step
                ends.append(f(*map(Tensor.make_const, moved)).item())
            expected, got = (ends[0] - ends[1]) / (2 * eps), g.numpy()[place]
            if not abs(got - expected) <= atol + rtol * abs(expected):
                at = f"input {i} at {list(place)}"
                raise GradientError(f"the {what} by {at} is {got:.8g}, central differences say {expected:.8g}")
