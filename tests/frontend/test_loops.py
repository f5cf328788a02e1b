"""Scan and cond: against plain loops, differentiated by differences, compiled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import nn, ops, optim
from frontend.train import compile_step

R = np.random.default_rng(11)


def array(*shape: int) -> np.ndarray:
    return R.standard_normal(shape) / 2


def recurrent(x: Any, h: Any, w: Any, v: Any, reverse: bool = False) -> Any:
    def step(c: Any, row: Any) -> Any:
        new = ops.tanh(c @ w + row @ v)
        return new, (new * new, c)

    return ndl.scan(step, h, x, reverse=reverse)


def unrolled(x: Any, h: Any, w: Any, v: Any, reverse: bool = False) -> Any:
    rows = list(x)
    seen = []
    for row in rows[::-1] if reverse else rows:
        new = ops.tanh(h @ w + row @ v)
        seen.append((new * new, h))
        h = new
    seen = seen[::-1] if reverse else seen
    return h, tuple(ops.stack(parts, 0) for parts in zip(*seen))


def total(out: Any) -> Any:
    last, (squares, before) = out
    return ops.summation(last * 3) + ops.summation(ops.exp(squares)) + ops.summation(before * before)


INPUTS = [array(6, 3, 4), array(3, 5), array(5, 5), array(4, 5)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_a_loop_and_so_is_its_gradient(reverse: bool) -> None:
    sides = []
    for f in (recurrent, unrolled):
        tensors = [ndl.Tensor(a) for a in INPUTS]
        value = total(f(*tensors, reverse=reverse))
        value.backward()
        sides.append([value.numpy(), *(t.grad.numpy() for t in tensors)])
    for a, b in zip(*sides):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def nested(x: Any, h: Any, w: Any) -> Any:
    """A scan in a scan, and a cond; the inner one reads what the outer one carries."""

    def outer(c: Any, rows: Any) -> Any:
        inner = lambda d, row: (ops.tanh(d * w + row * c),) * 2
        d, seen = ndl.scan(inner, c, rows)
        return ndl.cond(ops.summation(d) < 0.0, lambda q: q * 0.5, lambda q: ops.sin(q) * w, d), seen

    last, seen = ndl.scan(outer, h, x)
    return ops.summation(last) + ops.summation(seen * seen)


def chosen(flag: bool) -> Callable[..., Any]:
    def f(a: Any, b: Any) -> Any:
        first, second = ndl.cond(flag, lambda x, y: (x * y, x), lambda x, y: (ops.exp(x) + y, a * y), a, b)
        return ops.summation(first) + ops.summation(second * 2)

    return f


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "forward": (lambda *t: total(recurrent(*t)), INPUTS),
    "reversed": (lambda *t: total(recurrent(*t, reverse=True)), INPUTS),
    "nested": (nested, [array(3, 4, 5), array(5), array(5)]),
    "then": (chosen(True), [array(3, 2), array(3, 2)]),
    "else": (chosen(False), [array(3, 2), array(3, 2)]),
    "without rows": (lambda h: ops.summation(ndl.scan(lambda c, _: (ops.sin(c) * c, c), h, length=4)[1]), [array(3)]),
    "only rows": (lambda x, w: ops.summation(ndl.scan(lambda _, r: (None, ops.exp(r * w)), None, x)[1]), [array(4, 3), array(3)]),
    "last alone": (lambda x, h: ops.summation(ndl.scan(lambda c, r: (c * r, None), h, x)[0]), [array(4, 3), array(3)]),
    "carried unchanged": (lambda x, h: ops.summation(ndl.scan(lambda c, r: (c, c[1] * r), (x[0], h), x)[1]), [array(4, 3), array(3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_and_their_gradients_are_what_differences_say(name: str) -> None:
    f, inputs = FUNCTIONS[name]
    assert ndl.gradcheck(f, inputs, second=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_gradients_are_the_eager_ones(name: str) -> None:
    f, inputs = FUNCTIONS[name]
    both = ndl.value_and_grad(f, range(len(inputs)))

    def flat(*tensors: Any) -> tuple[Any, ...]:
        value, grads = both(*tensors)
        return (value, *grads)

    want = flat(*map(ndl.Tensor, inputs))
    for target in ("cpu", "reference"):
        got = tcomp.compile(ndl.trace(flat, inputs), target=target)(*inputs)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-9)


def test_forward_mode_and_hessian_products_pass_through() -> None:
    f, inputs = FUNCTIONS["forward"]
    _, tangent = ndl.jvp(f, inputs, inputs)
    grads = ndl.grad(f, range(len(inputs)))(*map(ndl.Tensor, inputs))
    np.testing.assert_allclose(tangent.numpy(), sum((g.numpy() * a).sum() for g, a in zip(grads, inputs)), rtol=1e-9)


def test_a_trip_is_traced_once_and_its_kernels_do_not_grow_with_the_rows() -> None:
    seen = []

    def step(c: Any, row: Any) -> Any:
        seen.append(row.shape)
        return ops.tanh(c + row), c

    ndl.scan(step, ndl.Tensor(array(3)), ndl.Tensor(array(50, 3)))
    assert seen == [(3,)]
    kernels = []
    for steps in (4, 40):
        model = nn.LSTM(5, 6)
        batch = [array(steps, 2, 5).astype("float32"), array(steps, 2, 6).astype("float32")]
        loss = lambda m, x, y: ops.mean((m(x)[0] - y) ** 2)
        step_of = compile_step(model, loss, optim.Adam(model.parameters(), 0.01), batch)
        losses = [step_of(*batch) for _ in range(3)]
        assert losses[2] < losses[1] < losses[0]
        kernels.append(len(step_of.executable.program.kernels))
    assert kernels[0] == kernels[1] < 40


def test_integers_may_be_carried() -> None:
    count, seen = ndl.scan(
        lambda c, r: (c + 1, r * ops.cast(c, "float64")), ndl.Tensor(np.array(0)), ndl.Tensor(array(4, 3))
    )
    assert count.item() == 4 and seen.shape == (4, 3) and not seen.numpy()[0].any()


def test_wrong_bodies_are_refused() -> None:
    x, h = ndl.Tensor(array(4, 3)), ndl.Tensor(array(3))
    buffer = ndl.Tensor(array(3))

    def sets(c: Any, r: Any) -> Any:
        buffer.data = c
        return c, r

    for error, why, wrong in (
        (TypeError, "cannot look at the values", lambda: ndl.scan(lambda c, r: (c if float(r.sum()) > 0 else r, r), h, x)),
        (TypeError, "returns", lambda: ndl.scan(lambda c, r: c, h, x)),
        (ValueError, "turns the carry", lambda: ndl.scan(lambda c, r: (ops.summation(c), r), h, x)),
        (ValueError, "one number of rows", lambda: ndl.scan(lambda c, r: (c, c), h, (x, h))),
        (ValueError, "one number of rows", lambda: ndl.scan(lambda c, r: (c, c), h)),
        (ValueError, "without axes", lambda: ndl.scan(lambda c, r: (c, c), h, ndl.Tensor(np.array(1.0)))),
        (ValueError, "cannot set the data", lambda: ndl.scan(sets, h, x)),
        (TypeError, "put recompute around", lambda: ndl.scan(lambda c, r: (ops.recompute(ops.tanh, c), r), h, x)),
        (TypeError, "expected tensors", lambda: ndl.scan(lambda c, r: (c, 3), h, x)),
        (ValueError, "a condition is one value", lambda: ndl.cond(h, lambda: h, lambda: h)),
        (ValueError, "must be alike", lambda: ndl.cond(True, lambda: h, lambda: x)),
    ):  # fmt: skip
        with pytest.raises(error, match=why):
            wrong()
