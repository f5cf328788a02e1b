"""One rule for dtypes, eager and compiled, against NumPy's; 16-bit floats are summed up in float32."""

import operator

import ml_dtypes
import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import nn, ops

DTYPES = ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64"]
NUMBERS = [True, 0, 3, -1, 300, 0.5, 2.0, -1.5]
OPERATIONS = {
    "add": operator.add,
    "sub": operator.sub,
    "rsub": lambda a, b: b - a,
    "mul": operator.mul,
    "div": operator.truediv,
    "less": operator.lt,
    "greater_equal": operator.ge,
}


def numpys(name: str, x: np.ndarray, number: object) -> np.ndarray:
    """What NumPy gives; where it refuses a number that the dtype cannot hold, what it gives in the dtype that holds both."""
    f = OPERATIONS[name]
    if x.dtype == bool and name in ("sub", "rsub") and isinstance(number, bool):
        pytest.skip("NumPy refuses to subtract truths")
    with np.errstate(all="ignore"):
        if (
            x.dtype.kind in "iu"
            and type(number) is int
            and not np.iinfo(x.dtype).min <= number <= np.iinfo(x.dtype).max
        ):
            x = x.astype(np.result_type(x.dtype, np.min_scalar_type(number)))
        return np.asarray(f(x, number))


@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_number_beside_a_tensor(name: str, kind: str, number: object) -> None:
    x = np.array([0, 1, 3, 5]).astype(kind)
    want = numpys(name, x, number)
    got = OPERATIONS[name](ndl.Tensor(x), number).numpy()
    assert got.dtype == want.dtype and np.array_equal(got, want, equal_nan=True)


@pytest.mark.parametrize(
    ("a", "b"), [("int32", "float32"), ("uint8", "int8"), ("bool", "float16"), ("float32", "float64")]
)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "less"])
def test_tensors_of_two_dtypes(name: str, a: str, b: str) -> None:
    x, y = np.array([1, 0, 3, 1]).astype(a), np.array([2, 4, 1, 5]).astype(b)
    want = np.asarray(OPERATIONS[name](x, y))
    got = OPERATIONS[name](ndl.Tensor(x), ndl.Tensor(y)).numpy()
    assert got.dtype == want.dtype and np.array_equal(got, want)


COMPILED = {
    "fraction of integers": (lambda x: x * 0.5, "int32", [0.5, 1.0, 1.5]),
    "image": (lambda x: x * (1 / 255), "uint8", [1 / 255, 2 / 255, 3 / 255]),
    "divided": (lambda x: x / 300, "uint8", [1 / 300, 2 / 300, 3 / 300]),
    "by a half": (lambda x: x / 0.5, "int64", [2.0, 4.0, 6.0]),
    "plus": (lambda x: x + 0.5, "int8", [1.5, 2.5, 3.5]),
    "power": (lambda x: x**0.5, "int32", [1.0, 2**0.5, 3**0.5]),
    "whole power": (lambda x: x**3, "int32", [1, 8, 27]),
    "under": (lambda x: 1 / x, "int32", [1.0, 0.5, 1 / 3]),
    "base": (lambda x: 2.5**x, "int32", [2.5, 6.25, 15.625]),
    "less": (lambda x: ops.less(x, 1.5), "int32", [True, False, False]),
    "maximum": (lambda x: ops.maximum(x, 1.5), "int32", [1.5, 2.0, 3.0]),
    "wider": (lambda x: x * 300, "uint8", [300, 600, 900]),
    "below zero": (lambda x: x + (-5), "uint8", [-4, -3, -2]),
    "minus": (lambda x: x - 1, "uint8", [0, 1, 2]),
    "where": (lambda x: ops.where(ops.greater(x, 1), x, 0.5), "int32", [0.5, 2.0, 3.0]),
    "sum": (lambda x: (x * 40).sum(), "int8", 240),
    "mean": (lambda x: x.mean(), "uint8", 2.0),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_as_eager(name: str) -> None:
    f, kind, want = COMPILED[name]
    x = np.array([1, 2, 3], kind)
    eager = f(ndl.Tensor(x)).numpy()
    assert np.allclose(eager, want, rtol=1e-12)
    compiled = tcomp.compile(ndl.trace(f, [x]))(x)
    assert compiled.dtype == eager.dtype and np.allclose(compiled, eager, rtol=1e-12)


def test_what_cannot_be_is_refused() -> None:
    x = ndl.Tensor(np.array([1, 2], "int32"))
    with pytest.raises(ValueError, match="integers have no power -1"):
        x**-1
    with pytest.raises(TypeError, match="no integer dtype holds"):
        x + 2**80
    with pytest.raises(TypeError, match="expected a tensor or a real number"):
        x * "3"


@pytest.mark.parametrize(("kind", "eps"), [(np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8)])
def test_halves_are_summed_up_in_float32(kind: type, eps: float) -> None:
    rng = np.random.default_rng(0)
    x = (10 + rng.standard_normal((3, 768))).astype(kind)
    t, wide = ndl.Tensor(x), x.astype(np.float64)
    cases = [(t.mean(-1), wide.mean(-1)), (t.sum(-1), wide.sum(-1)), (t.var(-1), wide.var(-1))]
    cases.append(
        (ops.rms_norm(t, ndl.Tensor(np.ones(768, kind))), wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6))
    )
    for got, want in cases:
        assert got.dtype == kind and np.abs(got.numpy().astype(np.float64) - want).max() <= 2 * eps * np.abs(want).max()
    assert ndl.Tensor(np.full(5000, 20, kind)).mean().numpy() == 20


def test_many_equal_halves_share_the_gradient_of_their_maximum() -> None:
    x = ndl.Tensor(np.ones(70000, np.float16), requires_grad=True)
    ops.max(x).backward()
    assert np.allclose(x.grad.numpy().astype(np.float64), 1 / 70000, rtol=2e-2) and x.grad.dtype == np.float16


def test_the_gradient_of_a_power_of_zero_is_zero() -> None:
    x = ndl.Tensor(np.array([1.0, 2.0], "float32"), requires_grad=True)
    (x**0).sum().backward()
    assert np.array_equal(x.grad.numpy(), [0, 0])


def test_what_numpy_gives_is_a_copy() -> None:
    p = nn.Linear(3, 2).weight
    before = p.numpy()
    w = p.numpy()
    w[:] = 0
    assert np.array_equal(p.numpy(), before) and before.any()
    x = ndl.Tensor(np.ones(3, "float32"), requires_grad=True)
    x.sum().backward()
    grad = x.grad.numpy()
    grad /= 2
    assert np.array_equal(grad, [0.5] * 3)


def test_batch_normalisation_trains_on_float64() -> None:
    norm = nn.BatchNorm2d(3)
    x = ndl.Tensor(np.random.default_rng(0).standard_normal((4, 3, 5, 5)))
    y = norm(x)
    assert y.dtype == np.float64 and norm.running_mean.dtype == np.float32
    assert np.allclose(y.numpy().mean((0, 2, 3)), 0, atol=1e-12)


def test_text_batches_have_the_dtype_asked_for() -> None:
    from frontend.data import batchify, get_batch

    batches = batchify(list(range(20)), 2, dtype="float32")
    data, target = get_batch(batches, 0, 3, dtype="float64")
    assert batches.dtype == np.float32 and data.dtype == target.dtype == np.float64


def test_an_unknown_alignment_of_attention_is_refused() -> None:
    q = ndl.Tensor(np.ones((3, 4), "float32"))
    with pytest.raises(ValueError, match="causal is True .* got 'left'"):
        ops.attention(q, q, q, causal="left")
