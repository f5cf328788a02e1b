"""Values and gradients of every operator, against central differences; gradients of gradients."""

from collections.abc import Callable

import numpy as np
import pytest

import frontend as ndl
from frontend import ops

R = np.random.default_rng(5)


def rand(*shape: int, positive: bool = False) -> np.ndarray:
    x = R.standard_normal(shape)
    return np.abs(x) + 0.5 if positive else x


CASES: list[tuple[str, Callable, list[np.ndarray], Callable]] = [
    ("add", ops.add, [rand(3, 4), rand(3, 4)], np.add),
    ("add broadcast", ops.add, [rand(3, 4), rand(4)], np.add),
    ("add_scalar", lambda a: a + 2.5, [rand(3, 4)], lambda a: a + 2.5),
    ("rsub", lambda a: 1 - a, [rand(3, 4)], lambda a: 1 - a),
    ("rdiv", lambda a: 2 / a, [rand(3, 4, positive=True)], lambda a: 2 / a),
    ("multiply", ops.multiply, [rand(3, 1), rand(1, 4)], np.multiply),
    ("mul_scalar", lambda a: a * 3, [rand(3, 4)], lambda a: a * 3),
    ("divide", ops.divide, [rand(3, 4), rand(3, 4, positive=True)], np.divide),
    ("divide broadcast", ops.divide, [rand(3, 4), rand(1, 4, positive=True)], np.divide),
    ("divide_scalar", lambda a: a / 4, [rand(3, 4)], lambda a: a / 4),
    ("power_scalar", lambda a: a**3, [rand(3, 4)], lambda a: a**3),
    ("ewise_pow", ops.ewise_pow, [rand(3, 4, positive=True), rand(3, 4)], np.power),
    ("negate", ops.negate, [rand(3, 4)], np.negative),
    ("transpose", ops.transpose, [rand(2, 3, 4)], lambda a: a.swapaxes(-1, -2)),
    ("transpose pair", lambda a: ops.transpose(a, (0, 2)), [rand(2, 3, 4)], lambda a: a.swapaxes(0, 2)),
    ("transpose all", lambda a: ops.transpose(a, (2, 0, 1)), [rand(2, 3, 4)], lambda a: a.transpose(2, 0, 1)),
    ("reshape", lambda a: ops.reshape(a, (6, 4)), [rand(2, 3, 4)], lambda a: a.reshape(6, 4)),
    ("broadcast_to", lambda a: ops.broadcast_to(a, (2, 3, 4)), [rand(3, 1)], lambda a: np.broadcast_to(a, (2, 3, 4))),
    ("summation", ops.summation, [rand(3, 4)], np.sum),
    ("summation axes", lambda a: ops.summation(a, (0, -1)), [rand(2, 3, 4)], lambda a: a.sum((0, 2))),
    ("matmul", ops.matmul, [rand(3, 4), rand(4, 5)], np.matmul),
    ("matmul batched", ops.matmul, [rand(2, 3, 4), rand(2, 4, 5)], np.matmul),
    ("matmul broadcast", ops.matmul, [rand(2, 2, 3, 4), rand(4, 5)], np.matmul),
    ("log", ops.log, [rand(3, 4, positive=True)], np.log),
    ("exp", ops.exp, [rand(3, 4)], np.exp),
    ("sqrt", ops.sqrt, [rand(3, 4, positive=True)], np.sqrt),
    ("relu", ops.relu, [rand(3, 4)], lambda a: np.maximum(a, 0)),
    ("tanh", ops.tanh, [rand(3, 4)], np.tanh),
    ("sigmoid", ops.sigmoid, [rand(3, 4)], lambda a: 1 / (1 + np.exp(-a))),
    ("logsumexp", ops.logsumexp, [rand(3, 4)], lambda a: np.log(np.exp(a).sum())),
    ("logsumexp axes", lambda a: ops.logsumexp(a, (1,)), [rand(3, 4)], lambda a: np.log(np.exp(a).sum(1))),
    ("logsoftmax", ops.logsoftmax, [rand(3, 4)], lambda a: a - np.log(np.exp(a).sum(-1, keepdims=True))),
    ("stack", lambda a, b: ops.stack([a, b], 1), [rand(3, 4), rand(3, 4)], lambda a, b: np.stack([a, b], 1)),
    ("split", lambda a: ops.split(a, 1)[2] * ops.split(a, 1)[0], [rand(3, 4)], lambda a: a[:, 2] * a[:, 0]),
    ("flip", lambda a: ops.flip(a, (0, 1)), [rand(3, 4)], lambda a: a[::-1, ::-1]),
    ("dilate", lambda a: ops.dilate(a, (0,), 1), [rand(3, 4)], lambda a: np.insert(a, [1, 2, 3], 0, axis=0)),
    ("undilate", lambda a: ops.undilate(a, (1,), 1), [rand(3, 4)], lambda a: a[:, ::2]),
    ("pad", lambda a: ops.pad(a, ((1, 0), (0, 2))), [rand(3, 4)], lambda a: np.pad(a, ((1, 0), (0, 2)))),
    ("slice_axes", lambda a: ops.slice_axes(a, (1, 0), (3, 2)), [rand(3, 4)], lambda a: a[1:3, :2]),
    ("max_pool2d", lambda a: ops.max_pool2d(a, 2), [rand(1, 2, 4, 4)], lambda a: a.reshape(1, 2, 2, 2, 2, 2).max((3, 5))),
    ("avg_pool2d", lambda a: ops.avg_pool2d(a, 2), [rand(1, 2, 4, 4)], lambda a: a.reshape(1, 2, 2, 2, 2, 2).mean((3, 5))),
]  # fmt: skip
for _shape, _k, _stride, _pad in (((2, 6, 7, 3), 3, 1, 1), ((1, 7, 8, 2), 3, 2, 1), ((2, 5, 5, 2), 2, 1, 0), ((1, 6, 6, 1), 1, 2, 0), ((1, 5, 6, 2), 3, 2, 0), ((1, 4, 4, 1), 2, 1, 2)):  # fmt: skip

    def _conv_reference(a: np.ndarray, b: np.ndarray, s: int = _stride, p: int = _pad) -> np.ndarray:
        a = np.pad(a, ((0, 0), (p, p), (p, p), (0, 0)))
        k = b.shape[0]
        rows, columns = (a.shape[1] - k) // s + 1, (a.shape[2] - k) // s + 1
        out = np.zeros((a.shape[0], rows, columns, b.shape[3]))
        for y in range(rows):
            for x in range(columns):
                out[:, y, x] = np.tensordot(a[:, y * s : y * s + k, x * s : x * s + k], b, 3)
        return out

    CASES.append(
        (f"conv k={_k} s={_stride} p={_pad}", lambda a, b, s=_stride, p=_pad: ops.conv(a, b, s, p), [rand(*_shape), rand(_k, _k, _shape[3], 4)], _conv_reference)
    )  # fmt: skip
IDS = [c[0] for c in CASES]


def tensors(arrays: list[np.ndarray]) -> list[ndl.Tensor]:
    return [ndl.Tensor(a, dtype="float64") for a in arrays]


@pytest.mark.parametrize(("name", "f", "arrays", "reference"), CASES, ids=IDS)
def test_values(name: str, f: Callable, arrays: list, reference: Callable) -> None:
    np.testing.assert_allclose(f(*tensors(arrays)).numpy(), reference(*arrays), rtol=1e-12, atol=1e-12)


def differences(f: Callable, arrays: list[np.ndarray], which: int, weight: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """The gradient of sum(weight * f) by central differences."""
    grad = np.zeros_like(arrays[which])
    for i in np.ndindex(grad.shape):
        moved = [a.copy() for a in arrays]
        moved[which][i] += eps
        up = (f(*tensors(moved)).numpy() * weight).sum()
        moved[which][i] -= 2 * eps
        grad[i] = (up - (f(*tensors(moved)).numpy() * weight).sum()) / (2 * eps)
    return grad


@pytest.mark.parametrize(("name", "f", "arrays", "reference"), CASES, ids=IDS)
def test_gradients_against_central_differences(name: str, f: Callable, arrays: list, reference: Callable) -> None:
    xs = tensors(arrays)
    out = f(*xs)
    weight = R.standard_normal(out.shape)
    out.backward(ndl.Tensor(weight, dtype="float64"))
    for i, x in enumerate(xs):
        np.testing.assert_allclose(x.grad.numpy(), differences(f, arrays, i, weight), rtol=1e-5, atol=1e-7)


SMOOTH = [
    c
    for c in CASES
    if c[0]
    in (
        "multiply",
        "divide",
        "power_scalar",
        "exp",
        "tanh",
        "sigmoid",
        "logsumexp axes",
        "logsoftmax",
        "matmul",
        "log",
        "conv k=3 s=2 p=1",
    )
]


@pytest.mark.parametrize(("name", "f", "arrays", "reference"), SMOOTH, ids=[c[0] for c in SMOOTH])
def test_gradients_of_gradients(name: str, f: Callable, arrays: list, reference: Callable) -> None:
    weight = R.standard_normal(f(*tensors(arrays)).shape)
    direction = R.standard_normal(arrays[0].shape)

    def slope(*xs: ndl.Tensor) -> ndl.Tensor:
        """<d f / d x0, direction>, itself part of the graph."""
        out = f(*xs)
        out.backward(ndl.Tensor(weight, dtype="float64"))
        return (xs[0].grad * ndl.Tensor(direction, dtype="float64")).sum()

    xs = tensors(arrays)
    second = slope(*xs)
    xs[0].grad = None
    second.backward()
    got = np.zeros_like(arrays[0]) if xs[0].grad is None else xs[0].grad.numpy()
    np.testing.assert_allclose(got, differences(slope, arrays, 0, np.ones(())), rtol=1e-4, atol=1e-6)


def test_a_tensor_used_twice_gets_the_sum_of_its_gradients() -> None:
    x = ndl.Tensor([2.0, 3.0], dtype="float64")
    (x * x * x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [12, 27])


def test_detach_and_data_cut_the_graph() -> None:
    w = ndl.Tensor([1.0, 2.0])
    for _ in range(50):
        (w * w).sum().backward()
        w.data = w.data - w.grad.data * 0.1
    assert w.op is None and w.is_leaf() and not w.detach().requires_grad
    assert (w.detach() * 2).op is None
    with pytest.raises(TypeError):
        w.data = ndl.Tensor([1.0], dtype="float64")


def test_long_chains_need_no_recursion() -> None:
    x = ndl.Tensor([1.0])
    y = x
    for _ in range(5000):
        y = y + 0.001
    y.backward()
    assert x.grad.numpy() == 1
