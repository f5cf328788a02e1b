"""Optimizers beside torch's, schedules, clipping, Newton's method, and their saved state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import frontend as ndl
from frontend import nn, optim

R = np.random.default_rng(4)


def losses(make: Callable[[list], Any], steps: int = 12, dtype: str = "float64") -> tuple[list[np.ndarray], Any]:
    """Two parameters after each step of least squares."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)).astype(dtype), rng.standard_normal((20, 2)).astype(dtype)
    w, b = (nn.Parameter(rng.standard_normal(s).astype(dtype)) for s in ((3, 2), (2,)))
    optimizer = make([w, b])
    seen = []
    for _ in range(steps):
        optimizer.reset_grad()
        error = ndl.Tensor(x) @ w + b - ndl.Tensor(y)
        (error * error).mean().backward()
        optimizer.step()
        seen.append(np.concatenate([w.numpy().reshape(-1), b.numpy()]))
    return seen, optimizer


def losses_of_torch(make: Callable[[list], Any], steps: int = 12) -> list[np.ndarray]:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.standard_normal(s)) for s in ((20, 3), (20, 2)))
    w, b = (torch.nn.Parameter(torch.tensor(rng.standard_normal(s))) for s in ((3, 2), (2,)))
    optimizer = make([w, b])
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        ((x @ w + b - y) ** 2).mean().backward()
        optimizer.step()
        seen.append(np.concatenate([w.detach().numpy().reshape(-1), b.detach().numpy()]))
    return seen


@pytest.mark.parametrize(
    ("ours", "name", "theirs"),
    [
        (lambda p: optim.GradientDescent(p, 0.1), "SGD", {"lr": 0.1}),
        (lambda p: optim.SGD(p, 0.1, weight_decay=0.01), "SGD", {"lr": 0.1, "weight_decay": 0.01}),
        (lambda p: optim.SGD(p, 0.1, 0.9, 0.01, dampening=0), "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (lambda p: optim.SGD(p, 0.1, 0.9, dampening=0, nesterov=True), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (lambda p: optim.Adam(p, 0.05), "Adam", {"lr": 0.05}),
        (lambda p: optim.Adam(p, 0.05, 0.8, 0.9, 1e-6, 0.1), "Adam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}),
        (lambda p: optim.AdamW(p, 0.05, weight_decay=0.2), "AdamW", {"lr": 0.05, "weight_decay": 0.2}),
        (lambda p: optim.RMSProp(p, 0.05, 0.9), "RMSprop", {"lr": 0.05, "alpha": 0.9}),
    ],
)  # fmt: skip
def test_steps_are_those_of_torch(ours: Any, name: str, theirs: dict) -> None:
    torch = pytest.importorskip("torch")
    for a, b in zip(losses(ours)[0], losses_of_torch(lambda p: getattr(torch.optim, name)(p, **theirs))):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_unbiased_momentum_starts_at_full_speed() -> None:
    p = nn.Parameter(np.array([1.0]))
    optimizer = optim.SGD([p], 0.1, momentum=0.9, unbiased=True)
    for _ in range(3):  # a constant gradient: the unbiased mean of the gradients is that gradient
        p.grad = ndl.Tensor(np.array([2.0]))
        optimizer.step()
    assert np.isclose(p.item(), 1 - 3 * 0.1 * 2)
    plain = nn.Parameter(np.array([1.0]))
    first = optim.SGD([plain], 0.1, momentum=0.9)
    plain.grad = ndl.Tensor(np.array([2.0]))
    first.step()
    assert np.isclose(plain.item(), 1 - 0.1 * 0.1 * 2)  # needle's: a running mean


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.2), lambda p: optim.SGD(p, lr=0.2, momentum=0.9, weight_decay=1e-4), lambda p: optim.Adam(p, lr=0.1),
        lambda p: optim.Adam(p, lr=0.1, weight_decay=1e-4), lambda p: optim.AdamW(p, lr=0.1, weight_decay=1e-4), lambda p: optim.RMSProp(p, lr=0.02),
    ],
)  # fmt: skip
def test_optimizers_find_the_least_squares_solution(make: object) -> None:
    x, w = R.standard_normal((64, 3)).astype("float32"), np.array([[1.0], [-2.0], [0.5]], "float32")
    p = nn.Parameter(np.zeros((3, 1), "float32"))
    optimizer = make([p])
    for _ in range(300):
        optimizer.reset_grad()
        error = ndl.Tensor(x) @ p - ndl.Tensor(x @ w)
        ((error * error).sum() / 64).backward()
        optimizer.step()
    assert np.allclose(p.numpy(), w, atol=0.02) and p.dtype == np.float32


def test_one_adam_step_is_the_papers() -> None:
    p = nn.Parameter(np.array([1.0], "float64"), dtype="float64")
    p.grad = ndl.Tensor([0.5], dtype="float64")
    optim.Adam([p], lr=0.1).step()
    assert np.isclose(p.numpy()[0], 1 - 0.1 * 0.5 / (0.5 + 1e-8))


@pytest.mark.parametrize(
    "make", [lambda p: optim.Adam(p, 0.05), lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.RMSProp(p)]
)
def test_saved_state_goes_on_as_if_nothing_had_been(make: Any) -> None:
    whole, _ = losses(make, 8)
    _, first = losses(make, 5)
    state = first.state_dict()
    assert state["t"] == 5
    again = make(first.params)
    again.load_state_dict(state)
    assert all(np.array_equal(again.state_dict()[k], v) for k, v in state.items()) and again.t == 5
    with pytest.raises(KeyError, match="unknown"):
        again.load_state_dict({**state, "9.m": np.zeros(2)})
    some = next(k for k in state if k != "t")
    with pytest.raises(ValueError, match="expected"):
        again.load_state_dict({**state, some: np.zeros(7)})
    if len(first.slots) > 1:
        with pytest.raises(KeyError, match="misses"):
            again.load_state_dict({k: v for k, v in state.items() if k != some})
    assert len(whole) == 8


def test_schedules() -> None:
    p = nn.Parameter(np.zeros(1))

    def rates(factor: Callable[[int], float], steps: int) -> list[float]:
        schedule = optim.LRScheduler(optim.GradientDescent([p], 2.0), factor)
        first = schedule.optimizer.lr
        return [first, *(schedule.step() for _ in range(steps))]

    np.testing.assert_allclose(rates(optim.step_decay(2, 0.1), 4), [2, 2, 0.2, 0.2, 0.02])
    np.testing.assert_allclose(rates(optim.exponential_decay(0.5), 3), [2, 1, 0.5, 0.25])
    np.testing.assert_allclose(rates(optim.cosine(6, 2, 0.1), 7), [2 / 3, 4 / 3, 2, *(2 * (0.1 + 0.45 * (1 + np.cos(np.pi * k / 4))) for k in (1, 2, 3, 4)), 0.2])  # fmt: skip
    np.testing.assert_allclose(rates(optim.linear(5, 1), 6), [1, 2, 1.5, 1, 0.5, 0, 0])


def test_clipping() -> None:
    ps = [nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(1)), nn.Parameter(np.zeros(1))]
    for p, g in zip(ps, ([3.0, 0.0], [-4.0])):
        p.grad = ndl.Tensor(np.array(g))
    assert optim.clip_grad_norm(ps, 10) == 5 and ps[1].grad.item() == -4
    assert optim.SGD(ps, 0.1).clip_grad_norm(2.5) == 5
    np.testing.assert_allclose(ps[0].grad.numpy(), [1.5, 0])
    optim.clip_grad_value(ps, 1.0)
    assert ps[0].grad.numpy().tolist() == [1, 0] and ps[1].grad.item() == -1 and ps[2].grad is None


def test_newton_needs_one_step_for_a_parabola_and_few_for_rosenbrock() -> None:
    a = R.standard_normal((6, 4))
    p, target = nn.Parameter(np.zeros(4)), R.standard_normal(6)

    def square() -> ndl.Tensor:
        error = ndl.Tensor(a) @ p - ndl.Tensor(target)
        return (error * error).sum()

    optim.Newton([p], square).step()
    np.testing.assert_allclose(p.numpy(), np.linalg.lstsq(a, target, rcond=None)[0], rtol=1e-3, atol=1e-4)
    x, y = nn.Parameter(np.array([-1.2])), nn.Parameter(np.array([1.0]))

    def rosenbrock() -> ndl.Tensor:
        return ((y - x * x) ** 2 * 100 + (1 - x) ** 2).sum()

    newton = optim.Newton([x, y], rosenbrock)
    values = [newton.step() for _ in range(30)]
    assert values[0] == pytest.approx(24.2) and values == sorted(values, reverse=True)
    assert abs(x.item() - 1) < 1e-5 and abs(y.item() - 1) < 1e-5


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one parameter"):
        optim.Adam([])
    with pytest.raises(ValueError, match="momentum"):
        optim.SGD([nn.Parameter(np.zeros(1))], momentum=1.0)
