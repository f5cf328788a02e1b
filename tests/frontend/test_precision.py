"""Products in short types, the loss scale that goes with them, and gradients clipped by their norm in a compiled step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from steps import Language, cnn, eager_step, images, mlp, pair, rows, text

import frontend as ndl
import tcomp
from frontend import nn, optim, train

R = np.random.default_rng(33)
SHORT = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype("float16")}


def leaf(*shape: int) -> ndl.Tensor:
    return ndl.Tensor(R.standard_normal(shape).astype("float32"))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_products_round_their_operands_and_nothing_else(kind: str) -> None:
    a, b = leaf(5, 40), leaf(40, 7)

    def rounded(x: Any) -> np.ndarray:
        return np.asarray(x).astype(SHORT[kind]).astype("float64")

    with ndl.autocast(kind):
        c = a @ b
        plain = a * 3.0 + 1.0
    assert c.dtype == np.float32 and np.array_equal(plain.numpy(), a.numpy() * np.float32(3) + np.float32(1))
    np.testing.assert_allclose(c.numpy(), rounded(a) @ rounded(b), rtol=1e-5, atol=1e-5)
    assert not np.allclose(c.numpy(), a.numpy() @ b.numpy(), rtol=1e-5, atol=1e-5)
    g = R.standard_normal(c.shape).astype("float32")
    c.backward(ndl.Tensor(g))  # outside of the context: in the precision of the product
    np.testing.assert_allclose(a.grad.numpy(), rounded(g) @ rounded(b).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(b.grad.numpy(), rounded(a).T @ rounded(g), rtol=1e-5, atol=1e-5)
    assert a.grad.dtype == b.grad.dtype == np.float32
    with ndl.autocast(kind), ndl.autocast(None):
        assert np.array_equal((a @ b).numpy(), a.numpy() @ b.numpy())


def test_what_is_no_float32_stays_as_it_is() -> None:
    a = R.standard_normal((3, 4))
    with ndl.autocast("bfloat16"):
        assert np.array_equal((ndl.Tensor(a) @ ndl.Tensor(a.T)).numpy(), a @ a.T)
    for wrong in ("float32", "int8", np.float64):
        with pytest.raises(ValueError, match="products are computed in bfloat16 or float16"), ndl.autocast(wrong):
            pass


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda a, b: a @ b, [(5, 40), (40, 7)]),
        (lambda a, b: a @ b, [(2, 3, 8, 6), (2, 1, 6, 5)]),
        (lambda a, b: ndl.conv(a, b, stride=2, padding=1), [(2, 7, 6, 8), (3, 3, 8, 5)]),
        (lambda a, b: ndl.conv(a, b, groups=4, padding=1), [(1, 5, 6, 8), (3, 3, 2, 12)]),
        (lambda a, b: ndl.conv_transpose(a, b, stride=2), [(2, 4, 5, 6), (3, 3, 4, 6)]),
        (lambda a, b: ndl.einsum("bij,bkj->ik", a, b), [(3, 5, 8), (3, 7, 8)]),
    ],
)
@pytest.mark.drawn(1 / 2)
def test_compiled_products_are_those_of_numpy(make: Any, shapes: Any, kind: str) -> None:
    """Value and gradients, against full precision and against the eager ones."""
    a, b = (leaf(*s) for s in shapes)

    def with_gradients(a: ndl.Tensor, b: ndl.Tensor) -> list[ndl.Tensor]:
        with ndl.autocast(kind):
            y = make(a, b)
        return [y, *ndl.gradients(ndl.summation(y * y), [a, b])]

    module = ndl.trace(with_gradients, [a, b])
    assert kind in str(module)
    got = tcomp.compile(module)(a.numpy(), b.numpy())
    y = make(a, b)
    for found, eager, full in zip(got, with_gradients(a, b), [y, *ndl.gradients(ndl.summation(y * y), [a, b])]):
        size = np.linalg.norm(full.numpy())
        assert found.dtype == np.float32
        assert np.linalg.norm(found - eager.numpy()) < 1e-3 * size
        assert 1e-6 * size < np.linalg.norm(found - full.numpy()) < 2e-2 * size


@pytest.mark.parametrize(
    ("make", "data", "recompute"),
    [
        (mlp, rows, None), (mlp, rows, 2), (cnn, images, None), (cnn, images, 3), (lambda: Language("LSTM"), text, None),
        (lambda: Language("transformer"), text, None), (lambda: Language("transformer"), text, 1),
    ],
)  # fmt: skip
@pytest.mark.drawn(1 / 3)
def test_steps_in_bfloat16_lose_what_eager_ones_lose(make: Any, data: Any, recompute: int | None) -> None:
    one, two = pair(make)
    batch = data()
    first, second = (optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (one, two))
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch, precision="bfloat16", recompute=recompute, seed=4)
    assert "bfloat16" in step.compile(batch).exe.ir("graph")
    for _ in range(5):
        with ndl.autocast("bfloat16"):
            expected = eager_step(one, nn.SoftmaxLoss(), first, batch, seed=4)
        assert np.isclose(step(*batch), expected, rtol=1e-2)
    assert all(p.dtype == np.float32 for p in two.parameters())


@pytest.mark.parametrize(
    "scale", [lambda: optim.LossScale(2.0**42, interval=3), lambda: optim.LossScale(2.0**60, 4.0, 2.0**-12, 2)]
)
@pytest.mark.drawn(1 / 2)
def test_steps_whose_gradients_overflow_change_nothing(scale: Any) -> None:
    """float16 ends at 65504: a large scale overflows, is halved until it does not, and grows again."""
    one, two = pair(cnn)
    batch = images()
    first, second = (optim.Adam(m.parameters(), 0.01) for m in (one, two))
    mine, theirs = scale(), scale()
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch, precision="float16", loss_scale=theirs)
    skipped = 0
    for _ in range(40):
        before = {k: v.copy() for k, v in two.state_dict().items()}
        moments = [s.numpy().copy() for state in second.state.values() for s in state]
        steps = step.steps
        loss = step(*batch)
        assert np.isfinite(loss) and step.steps == steps + 1
        if step.skipped > skipped:
            skipped = step.skipped
            assert all(np.array_equal(v, two.state_dict()[k]) for k, v in before.items())
            assert all(
                np.array_equal(a, s.numpy())
                for a, s in zip(moments, [s for state in second.state.values() for s in state])
            )
    assert 1 <= skipped < 40 and second.t == 40 - skipped and step.loss_scale is theirs
    with np.errstate(over="ignore", invalid="ignore"), ndl.autocast("float16"):
        for number in range(40):
            first.reset_grad()
            ndl.random.seed(0, number + 1)
            loss_of = nn.SoftmaxLoss()(one(ndl.Tensor(batch[0])), ndl.Tensor(batch[1], requires_grad=False))
            mine.scale(loss_of).backward()
            mine.step(first)
    assert (mine.value, mine.good, first.t) == (theirs.value, theirs.good, second.t)


def test_a_scale_changes_no_step_that_overflows_nowhere() -> None:
    one, two = pair(mlp)
    batch = rows()
    first, second = (optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (one, two))
    plain = train.compile_step(one, nn.SoftmaxLoss(), first, batch)
    scaled = train.compile_step(two, nn.SoftmaxLoss(), second, batch, loss_scale=1024)
    assert scaled.loss_scale.interval is None
    for _ in range(4):
        assert np.isclose(scaled(*batch), plain(*batch), rtol=1e-5)
    assert scaled.loss_scale.value == 1024 and scaled.skipped == 0
    for kwargs in ({"value": 0}, {"growth": 0.5}, {"backoff": 2.0}, {"interval": 0}):
        with pytest.raises(ValueError, match="a loss scale is positive"):
            optim.LossScale(**kwargs)
    with pytest.raises(ValueError, match="clip_norm is positive"):
        train.compile_step(two, nn.SoftmaxLoss(), second, batch, clip_norm=0)


def test_a_checkpoint_keeps_the_scale_and_what_was_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    batch = images()

    def start(scale: Any = None) -> train.TrainStep:
        np.random.seed(1)
        model = cnn()
        optimizer = optim.Adam(model.parameters(), 0.01)
        return train.compile_step(
            model, nn.SoftmaxLoss(), optimizer, batch, precision="float16", loss_scale=scale, seed=2
        )

    whole = start(optim.LossScale(2.0**40, interval=4))
    losses = [whole(*batch) for _ in range(20)]
    assert whole.skipped > 1
    cut = start(optim.LossScale(2.0**40, interval=4))
    assert [cut(*batch) for _ in range(9)] == losses[:9]
    cut.save(path)
    again = start()
    again.load(path)
    assert (again.steps, again.skipped, again.loss_scale.value) == (9, cut.skipped, cut.loss_scale.value)
    assert [again(*batch) for _ in range(9, 20)] == losses[9:]


def test_gradients_are_clipped_by_their_common_norm() -> None:
    one, two = pair(mlp)
    batch = rows()
    first, second = (optim.SGD(m.parameters(), 0.1, momentum=0.9, dampening=0) for m in (one, two))
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch, clip_norm=0.3)
    for _ in range(5):
        ndl.random.seed(0, first.t + 1)
        first.reset_grad()
        loss = nn.SoftmaxLoss()(one(ndl.Tensor(batch[0])), ndl.Tensor(batch[1], requires_grad=False))
        loss.backward()
        assert first.clip_grad_norm(0.3) > 0.3  # it is clipped
        first.step()
        assert np.isclose(step(*batch), loss.item(), rtol=2e-4)
