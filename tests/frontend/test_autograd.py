"""Automatic differentiation: graphs and their memory, modes, functions of functions."""

import gc

import numpy as np
import pytest

import frontend as ndl
from frontend import nn, ops

R = np.random.default_rng(5)


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
    for _ in range(100_000):
        y = y + 0.001
    y.backward()
    assert x.grad.numpy() == 1
    del y  # neither does giving the memory back


def test_tensors_of_one_tuple_are_used_apart() -> None:
    x = ndl.Tensor(np.arange(6.0).reshape(3, 2))
    parts = ops.split(x, 0)
    (parts[0] * parts[2] + parts[0]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[5, 6], [0, 0], [0, 1]])
    with pytest.raises(IndexError, match="3 tensors"):
        parts[3]


def live() -> int:
    return ndl.autograd.TENSOR_COUNTER


def test_a_step_frees_its_graph_at_once() -> None:
    """Without the help of the garbage collector."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm1d(8), nn.LSTM(8, 3))
    optimizer = ndl.optim.Adam(model.parameters(), lr=0.01)
    x = ndl.Tensor(R.standard_normal((5, 2, 4)).astype("float32"), requires_grad=False)
    gc.collect()
    gc.disable()
    try:
        counts = []
        for _ in range(6):
            optimizer.reset_grad()
            (model(x)[0] ** 2).sum().backward()
            optimizer.step()
            counts.append(live())
        assert len(set(counts[1:])) == 1
        w = ndl.Tensor([1.0, 2.0])
        counts = []
        for _ in range(6):
            (w * w * w).sum().backward()
            w.data = w.data - w.grad.data * 0.01
            counts.append(live())
        assert len(set(counts)) == 1
    finally:
        gc.enable()


def test_no_grad_keeps_no_graph() -> None:
    w = ndl.Tensor([1.0, 2.0])
    with ndl.no_grad():
        y = w * w
        assert y.op is None and not y.requires_grad and not y.inputs
        with ndl.enable_grad():
            assert (w * w).requires_grad

    @ndl.no_grad()
    def f(x: ndl.Tensor) -> ndl.Tensor:
        return x * 2

    assert not f(w).requires_grad and (w * 2).requires_grad
    (w * w).sum().backward(create_graph=False)
    assert w.grad.op is None and np.array_equal(w.grad.numpy(), [2, 4])


def test_only_numbers_have_gradients() -> None:
    w = ndl.Tensor([1.0, -2.0])
    assert not ndl.Tensor(np.array([1, 2])).requires_grad and ndl.Tensor(np.array([1, 2])).dtype == np.int64
    assert not (w > 0).requires_grad and (w > 0).dtype == bool and not ops.argmax(w, 0).requires_grad
    assert not ops.cast(w, "int32").requires_grad and ops.cast(w, "float64").requires_grad


def test_gradients_are_kept_of_leaves_and_on_demand() -> None:
    x = ndl.Tensor([2.0])
    y, z = x * 3, x * 5
    y.retain_grad()
    (y * z).sum().backward()
    assert x.grad.item() == 60 and y.grad.item() == 10 and z.grad is None
    with pytest.raises(ValueError, match="shape"):
        (x * 2).backward(ndl.Tensor([1.0, 2.0]))


def test_gradient_of_the_gradient_through_backward() -> None:
    x2, x3 = ndl.Tensor([6.0]), ndl.Tensor([0.5])
    (x2 * x2 * x2 * x3).backward()
    first = x2.grad
    assert first.item() == pytest.approx(3 * 36 * 0.5)
    first.backward()
    assert x2.grad.item() == pytest.approx(6 * 6 * 0.5) and x3.grad.item() == pytest.approx(3 * 36)


def rosenbrock(x: ndl.Tensor) -> ndl.Tensor:
    a, b = x[:-1], x[1:]
    return ((b - a * a) ** 2 * 100 + (1 - a) ** 2).sum()


def test_functions_of_functions() -> None:
    at = np.array([0.3, -1.2, 2.0])
    value, slope = ndl.value_and_grad(rosenbrock)(at)
    assert value.item() == pytest.approx(100 * (-1.2 - 0.09) ** 2 + 0.49 + 100 * (2 - 1.44) ** 2 + 2.2**2)
    assert ndl.grad(ndl.grad(lambda x: x**3))(ndl.Tensor(2.0)).item() == pytest.approx(12)
    both = ndl.grad(lambda a, b: (a * a * b).sum(), (0, 1))(np.array([3.0]), np.array([2.0]))
    assert [g.item() for g in both] == [12, 9]
    hessian = np.stack([ndl.hessian_vector_product(rosenbrock, at, v).numpy() for v in np.eye(3)])
    step = 1e-5
    for i, v in enumerate(np.eye(3)):
        ends = [ndl.grad(rosenbrock)(at + s * step * v).numpy() for s in (1, -1)]
        np.testing.assert_allclose(hessian[i], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(hessian, hessian.T)
    out, tangent = ndl.jvp(lambda x: ops.split(x * x, 0)[1], [at], [np.ones(3)])
    assert out.item() == pytest.approx(1.44) and tangent.item() == pytest.approx(-2.4)
    with pytest.raises(ValueError, match="one number"):
        ndl.grad(lambda x: x * 2)(at)
    with pytest.raises(ValueError, match="tangent"):
        ndl.jvp(rosenbrock, [at], [np.ones(2)])
    unrelated = ndl.Tensor([1.0, 2.0])
    assert not ndl.gradients(rosenbrock(ndl.Tensor(at)), [unrelated])[0].numpy().any()
    assert slope.shape == at.shape


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Wrong(ndl.TensorOp):
        def compute(self, a: np.ndarray) -> np.ndarray:
            return a**2

        def gradient(self, out_grad: ndl.Tensor, node: ndl.Tensor) -> ndl.Tensor:
            return out_grad * node.inputs[0]

    assert ndl.gradcheck(lambda a, b: ops.tanh(a @ b), [R.random((2, 3)), R.random((3, 2))], second=True)
    assert ndl.gradcheck(lambda a, i: ops.take(a, i), [R.random((3, 2)), np.array([0, 2, 0])])
    with pytest.raises(ndl.differentiate.GradientError, match=r"input 0 at \[0, 0\] is .* central differences say"):
        ndl.gradcheck(lambda a: Wrong()(a), [np.ones((2, 2))])


def test_the_operator_that_first_makes_nan_is_named() -> None:
    x = ndl.Tensor([4.0, -1.0])
    with ndl.detect_anomaly():
        with (
            pytest.raises(ndl.AnomalyError, match=r"^Log made NaN of numbers.*float32\[2\]"),
            np.errstate(invalid="ignore"),
        ):
            ops.exp(ops.log(x)) * 2
        y = ops.relu(ndl.Tensor([np.nan])) + 1  # NaN that came from outside is not made here
    assert np.isnan(y.numpy()).all()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda x: x.reshape((4, 2)), "do not fill"), (lambda x: ops.permute(x, (0, 0)), "no order"), (lambda x: x.sum(2), "2 axes"),
        (lambda x: x.sum((0, -2)), "twice"), (lambda x: x[2], "out of range"), (lambda x: x[0, 0, 0], "do not fit"), (lambda x: x["a"], "integers"),
        (lambda x: ops.slice_axes(x, (0, 0), (3, 1)), "leaves the tensor"), (lambda x: ops.pad(x, ((1, 1),)), "pair"),
        (lambda x: ops.take(x, np.array([0.5])), "needs integers"), (lambda x: ops.einsum("ij->k", x), "no operand has"),
        (lambda x: ops.einsum("ij,jk", x), "2 operands"), (lambda x: ops.einsum("ijk", x), "3 axes"), (lambda x: ops.einsum("ij,ij", x, x.T), "2 and 3"),
        (lambda x: ops.conv(x, x), "takes images"), (lambda x: ops.conv(x.reshape((1, 3, 2)), x.reshape((1, 3, 2))), "does not fit 2 channels"),
        (lambda x: ops.max_pool2d(x.reshape((1, 1, 2, 3)), 4), "does not fit"), (lambda x: ops.where(x > 0, 1, 2), "at least one tensor"),
        (lambda x: ops.squeeze(x, 0), "only axes of one element"), (lambda x: ops.attention(x, x, x.T), "do not fit each other"),
        (lambda x: ops.avg_pool2d(x.reshape((1, 1, 2, 3)), 2, padding=2), "more than half"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_reason(bad: object, why: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError), match=why):
        bad(ndl.Tensor(np.ones((2, 3))))
