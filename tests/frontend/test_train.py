"""Compiled training steps beside eager ones."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import Language, cnn, eager_step, images, mlp, pair, rows, text

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DataLoader, NDArrayDataset

R = np.random.default_rng(21)


CASES = [
    ("mlp sgd", mlp, rows, lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)),
    ("mlp plain", mlp, rows, lambda p: optim.GradientDescent(p, 0.1)),
    ("mlp unbiased", mlp, rows, lambda p: optim.SGD(p, 0.1, momentum=0.9, unbiased=True)),
    ("mlp rmsprop", mlp, rows, lambda p: optim.RMSProp(p, 0.01)),
    ("cnn adam", cnn, images, lambda p: optim.Adam(p, 0.01, weight_decay=1e-3)),
    ("lstm adamw", lambda: Language("LSTM"), text, lambda p: optim.AdamW(p, 0.01)),
    ("gru", lambda: Language("GRU"), text, lambda p: optim.Adam(p, 0.01)),
    ("transformer", lambda: Language("transformer"), text, lambda p: optim.SGD(p, 0.1, momentum=0.9)),
]


@pytest.mark.parametrize(("name", "make", "data", "optimizer"), CASES, ids=[c[0] for c in CASES])
@pytest.mark.drawn(1 / 2)
def test_compiled_and_eager_steps_lose_the_same(name: str, make: Any, data: Any, optimizer: Any) -> None:
    one, two = pair(make)
    first, second = optimizer(one.parameters()), optimizer(two.parameters())
    batches = [data() for _ in range(3)]
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batches[0], seed=5)
    before = {k: v.copy() for k, v in two.state_dict().items()}
    assert all(np.array_equal(v, one.state_dict()[k]) for k, v in before.items())  # compiling changes nothing
    for number in range(6):
        first.lr = second.lr = first.lr * 0.9
        batch = batches[number % 3]
        expected, got = eager_step(one, nn.SoftmaxLoss(), first, batch, seed=5), step(*batch)
        assert np.isclose(got, expected, rtol=2e-4), number
    assert second.t == first.t == step.steps == 6
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values()):
        np.testing.assert_allclose(b, a, rtol=5e-3, atol=5e-4, err_msg=key)
    for key, a in first.state_dict().items():
        np.testing.assert_allclose(second.state_dict()[key], a, rtol=2e-2, atol=5e-4, err_msg=key)


def test_state_lives_in_the_arrays_that_the_step_changes() -> None:
    model, _ = pair(mlp)
    optimizer = optim.Adam(model.parameters(), 0.01)
    batch = rows()
    step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, batch)
    step(*batch)
    weight = model.parameters()[0]
    array, moment = weight.cached_data, optimizer.state[0][0].cached_data
    before, moved = array.copy(), moment.copy()
    step(*batch)
    assert weight.cached_data is array and optimizer.state[0][0].cached_data is moment
    assert not np.array_equal(array, before) and not np.array_equal(moment, moved)
    model.load_state_dict(model.state_dict())  # other arrays: taken up by the next step
    kept = weight.numpy().copy()
    step(*batch)
    assert not np.array_equal(weight.numpy(), kept)
    eager_step(model, nn.SoftmaxLoss(), optimizer, batch)  # by turns
    assert np.isfinite(step(*batch)) and step.steps == 5


def test_updates_are_written_in_place_without_copies() -> None:
    model, _ = pair(mlp)
    batch = rows()
    step = train.compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 0.01), batch)
    step(*batch)
    assert len(step.executable.program.updates) == 3 * len(model.parameters()) + 2
    assert "memcpy" not in step.executable.ir("asm") and step.executable.memory is not None


def test_batches_of_other_shapes_are_compiled_when_they_come() -> None:
    one, two = pair(mlp)
    first, second = optim.SGD(one.parameters(), 0.1), optim.SGD(two.parameters(), 0.1)
    step = train.compile_step(two, nn.SoftmaxLoss(), second, rows())
    for n in (7, 3, 7):
        batch = [R.standard_normal((n, 12)).astype("float32"), R.integers(0, 4, n)]
        assert np.isclose(step(*batch), eager_step(one, nn.SoftmaxLoss(), first, batch), rtol=1e-4)


def test_parameters_that_others_train_are_read_anew_each_step() -> None:
    one, two = pair(lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)))
    first, second = (optim.SGD(m[0].parameters(), 0.1) for m in (one, two))
    batch = rows()
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch)
    for _ in range(3):
        for m in (one, two):
            m[2].weight.data = m[2].weight.data * 0.5
        kept = two[2].weight.numpy().copy()
        assert np.isclose(step(*batch), eager_step(one, nn.SoftmaxLoss(), first, batch), rtol=1e-5)
        assert np.array_equal(two[2].weight.numpy(), kept)


def test_parameters_may_have_any_name_and_unused_ones_stay() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lr, self.key, self.x0 = (nn.Parameter(np.full((12, 4), v, "float32")) for v in (0.1, 0.2, 0.3))

        def forward(self, x: ndl.Tensor) -> ndl.Tensor:
            return x @ (self.lr * self.key)

    one, two = Odd(), Odd()
    first, second = (optim.AdamW(m.parameters(), 0.1, weight_decay=0.5) for m in (one, two))
    batch = rows()
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch)
    for _ in range(3):
        assert np.isclose(step(*batch), eager_step(one, nn.SoftmaxLoss(), first, batch), rtol=1e-5)
    assert (two.x0.numpy() == np.float32(0.3)).all() and np.allclose(two.key.numpy(), one.key.numpy(), atol=1e-4)


def test_a_loss_function_may_return_more() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.LSTM(4, 6), nn.Linear(6, 4)

        def forward(self, x: ndl.Tensor, h: ndl.Tensor, c: ndl.Tensor) -> tuple:
            y, (h, c) = self.body(x, (h, c))
            return self.head(y), h, c

    def loss(model: nn.Module, x: ndl.Tensor, h: ndl.Tensor, c: ndl.Tensor, y: ndl.Tensor) -> tuple:
        out, h, c = model(x, h, c)
        return nn.SoftmaxLoss()(out, y), h.detach(), c.detach()

    one, two = pair(Recurrent)
    first, second = (optim.Adam(m.parameters(), 0.01) for m in (one, two))
    x, y = R.standard_normal((5, 2, 4)).astype("float32"), R.integers(0, 4, (5, 2))
    states = [np.zeros((1, 2, 6), "float32")] * 2
    step = train.compile_step(two, loss, second, [x, *states, y])
    carried = states
    for _ in range(3):
        got = step(x, *states, y)
        expected = eager_step(one, loss, first, [x, *carried, y])
        states, carried = list(got[1:]), list(expected[1:])
        assert np.isclose(got[0], expected[0], rtol=1e-4)
        for a, b in zip(states, carried):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_dropout_draws_anew_each_step_and_again_from_the_same_seed() -> None:
    def losses(seed: int) -> list[float]:
        np.random.seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 4))
        batch = [np.ones((7, 12), "float32"), np.zeros(7, np.int64)]
        step = train.compile_step(model, nn.SoftmaxLoss(), optim.GradientDescent(model.parameters(), 0.0), batch, seed=seed)  # fmt: skip
        return [step(*batch) for _ in range(4)]

    first = losses(1)
    assert len(set(first)) == 4 and losses(1) == first and losses(2) != first


def test_a_resumed_run_loses_the_same_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    batches = [images() for _ in range(3)]

    def start() -> train.TrainStep:
        np.random.seed(3)
        model = cnn()
        return train.compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 0.01), batches[0], seed=9)

    whole = start()
    losses = [whole(*batches[i % 3]) for i in range(6)]
    first = start()
    assert [first(*batches[i % 3]) for i in range(3)] == losses[:3]
    first.save(path)
    first(*batches[0])  # what follows the checkpoint is lost
    again = start()
    again.load(path)
    assert again.steps == 3 and [again(*batches[i % 3]) for i in range(3, 6)] == losses[3:]
    for key, a in whole.model.state_dict().items():
        assert np.array_equal(a, again.model.state_dict()[key])
    raw, before = path.read_bytes(), again.model.state_dict()
    path.write_bytes(raw[:-100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        again.load(path)
    flipped = bytearray(raw)
    flipped[-1000] ^= 1  # in a tensor: the file is whole all the same
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="is damaged: its arrays are not those"):
        again.load(path)
    path.write_bytes(raw)
    other, _ = pair(mlp)
    step = train.compile_step(other, nn.SoftmaxLoss(), optim.SGD(other.parameters()), rows())
    with pytest.raises(ValueError, match="no checkpoint of this step"):
        step.load(path)
    assert all(np.array_equal(v, again.model.state_dict()[k]) for k, v in before.items()) and again.steps == 6


def deep(layers: int, width: int = 64) -> nn.Module:
    return nn.Sequential(
        *[nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)], nn.Linear(width, 10)
    )


TARGETS = ["cpu", "llvm -mcpu=x86-64", "llvm -mcpu=haswell"]
"""With vectors of the machine's own, without multiply-add instructions, and with those of AVX2."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.drawn(1 / 3)
def test_recomputed_layers_take_the_square_root_of_the_memory_and_lose_the_same(target: str) -> None:
    batch = [R.standard_normal((256, 64)).astype("float32"), R.integers(0, 10, 256)]
    memory: dict[Any, int] = {}
    losses: dict[Any, list[Any]] = {}
    for every in (None, 2, 4, 8):
        np.random.seed(0)
        model = deep(16)
        optimizer = optim.Adam(model.parameters(), 0.01)
        step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, batch, target, recompute=every)
        losses[every] = [step(*batch) for _ in range(4)]
        memory[every] = step.executable.memory.arena
        losses[every].append([a.tobytes() for a in model.state_dict().values()])
    layer = 256 * 64 * 4
    assert losses[2] == losses[4] == losses[8] == losses[None]
    assert memory[None] > 16 * layer and memory[4] < 12 * layer and memory[4] < memory[2] and memory[4] < memory[8]


def test_a_memory_limit_chooses_what_is_computed_again() -> None:
    batch = [R.standard_normal((256, 64)).astype("float32"), R.integers(0, 10, 256)]

    def arena(limit: int) -> tuple[int, int | None]:
        np.random.seed(0)
        model = deep(9)
        step = train.compile_step(
            model, nn.SoftmaxLoss(), optim.SGD(model.parameters(), 0.01), batch, memory_limit=limit
        )
        step(*batch)
        return step.executable.memory.arena, model.segment

    whole, none = arena(1 << 30)
    least, chosen = arena(whole - 1)
    assert none is None and chosen in (2, 3, 4) and least < 0.75 * whole
    with pytest.raises(MemoryError, match=r"a step needs .* the limit is 1,000"):
        arena(1000)
    model = deep(9)
    with pytest.raises(ValueError, match="not both"):
        train.compile_step(model, nn.SoftmaxLoss(), optim.SGD(model.parameters()), batch, recompute=2, memory_limit=1)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.drawn(1 / 3)
def test_a_recomputed_transformer_with_dropout_loses_the_same(target: str) -> None:
    batch, losses = text(), {}
    for every in (None, 1):
        np.random.seed(0)
        model = Language("transformer")
        optimizer = optim.Adam(model.parameters(), 0.01)
        step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, batch, target, recompute=every)
        losses[every] = [step(*batch) for _ in range(5)]
    assert losses[1] == losses[None]


@pytest.mark.parametrize("make", [mlp, lambda: Language("transformer")])
def test_recomputed_layers_draw_and_count_once(make: Any) -> None:
    """Dropout masks are the same again, running statistics change once; eager steps agree, too."""
    one, two = pair(make)
    batch = rows() if isinstance(one, nn.Sequential) else text()
    first, second = (optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (one, two))
    whole = train.compile_step(one, nn.SoftmaxLoss(), first, batch, seed=3)
    step = train.compile_step(two, nn.SoftmaxLoss(), second, batch, seed=3, recompute=1)
    for number in range(4):
        got = eager_step(two, nn.SoftmaxLoss(), second, batch, 3) if number == 2 else step(*batch)
        assert np.isclose(got, whole(*batch), rtol=1e-4)
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values()):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5, err_msg=key)
    two.eval()
    assert two(ndl.Tensor(batch[0])) is not None  # nothing is computed again where nothing is trained


def test_what_cannot_be_recomputed_is_refused() -> None:
    model, _ = pair(mlp)
    optimizer = optim.SGD(model.parameters())
    for every, why in ((0, "at least one layer"), (50, "no Sequential or Transformer of more than 50")):
        with pytest.raises(ValueError, match=why):
            train.compile_step(model, nn.SoftmaxLoss(), optimizer, rows(), recompute=every)


def training() -> tuple[train.TrainStep, DataLoader]:
    """A run with everything that is random: order, augmentation, dropout."""
    np.random.seed(3)
    data = Augmented(IMAGES, np.arange(23) % 5)
    loader = DataLoader(data, 6, shuffle=True, seed=4)
    model = cnn()
    step = train.compile_step(
        model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 0.01), next(loader.batches(0)), seed=9
    )
    return step, loader


IMAGES = np.random.default_rng(33).standard_normal((23, 3, 8, 8)).astype("float32")


class Augmented(NDArrayDataset):
    def __getitem__(self, index: Any) -> tuple:
        x, y = super().__getitem__(index)
        return x + np.random.randn(1).astype("float32"), y


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import test_train as t
from frontend import train
step, loader = t.training()
def stop(step, loss):
    print(step.steps, repr(loss), flush=True)
    if step.steps == int(sys.argv[1]):
        os.kill(os.getpid(), 9)
train.fit(step, loader, 3, checkpoint={path!r}, checkpoint_every=int(sys.argv[2]), lr_scheduler=lambda n: 0.9**n, on_step=stop, quiet=True)
"""


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    step, loader = training()
    whole = train.fit(step, loader, 3, lr_scheduler=lambda n: 0.9**n, quiet=True)
    assert len(whole) == step.steps == 12
    script = SCRIPT.format(tests=str(Path(__file__).parent), path=str(path))
    root = Path(__file__).resolve().parents[2]
    seen: dict[int, float] = {}

    def run(stop: int, every: int, delay: float | None = None) -> int:
        """Train until killed: by itself at a step, or from outside so many seconds after the first step."""
        command = [sys.executable, "-c", script, str(stop), str(every)]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            if delay is not None:
                time.sleep(delay)
                process.kill()
            lines = [first, *process.stdout.readlines()]
        for line in lines:
            if line.endswith("\n"):  # the last may be cut short
                number, loss = line.split()
                assert seen.setdefault(int(number), float(loss)) == float(loss)
        return process.returncode

    for stop in (5, 8):  # between checkpoints, at different places of an epoch
        assert run(stop, 3) == -9
    for delay in np.random.default_rng().uniform(0, 0.02, 3):  # at any moment, writing a checkpoint included
        assert run(0, 1, delay) in (0, -9), delay
    assert run(0, 3) == 0
    assert [seen[i] for i in range(1, 13)] == whole
    left = [p.name for p in tmp_path.iterdir() if p.name != "run.safetensors"]
    assert len(left) <= 1 and all(name.startswith(".run.safetensors.") for name in left)  # that of the last one killed


def test_nan_is_reported_with_the_operator_that_made_it() -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 4)

        def forward(self, x: ndl.Tensor) -> ndl.Tensor:
            return self.last(ndl.log(self.first(x) ** 2 - 1e3))

    np.random.seed(0)
    batch = rows()
    for detect in (True, False):
        model = Fragile()
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        with np.errstate(invalid="ignore"):
            step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, batch, detect_anomaly=detect)
        before = model.state_dict()
        loader = DataLoader(NDArrayDataset(*batch), 7)
        if detect:
            with pytest.raises(ndl.AnomalyError, match="^Log made NaN of numbers"):
                train.fit(step, loader, 1, quiet=True)
            assert all(np.array_equal(v, model.state_dict()[k]) for k, v in before.items()) and step.steps == 0
        else:
            with pytest.raises(FloatingPointError, match="loss of step 1 is NaN; compile the step with detect_anomaly"):
                train.fit(step, loader, 1, quiet=True)


def test_bad_steps_are_refused() -> None:
    model, other = pair(mlp)
    with pytest.raises(ValueError, match="not the model's"):
        train.compile_step(model, nn.SoftmaxLoss(), optim.SGD(other.parameters()), rows())
    with pytest.raises(ValueError, match="one number"):
        train.compile_step(model, lambda m, x, y: m(x), optim.SGD(model.parameters()), rows())


def test_inputs_that_are_updated_must_be_given_as_they_are() -> None:
    g = tcomp.GraphBuilder()
    p, x = g.input("p", (3, 4)), g.input("x", (3, 4))
    exe = tcomp.compile(g.build(g.sum(x), g.add(p, x), updates={p: 1}))
    array, ones = np.zeros((3, 4), "float32"), np.ones((3, 4), "float32")
    total, result = exe(array, ones)
    assert result is array and total == 12 and (array == 1).all()
    frozen = array.copy()
    frozen.flags.writeable = False
    for args in ((frozen, ones), (array.T.copy().T, ones), (array.tolist(), ones)):
        with pytest.raises(tcomp.TcompError, match="changes inputs in place|not C-contiguous|is no array"):
            exe(*args)
    with pytest.raises(tcomp.TcompError, match="missing"):
        exe(array)


def test_two_parameters_over_one_array_train_as_they_do_eagerly() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(ndl.Tensor(np.eye(3, dtype="float32") / 2)) for _ in range(2))
            self.b.cached_data = self.a.cached_data

        def forward(self, x: ndl.Tensor) -> ndl.Tensor:
            return x @ self.a @ self.b

    x, y = np.ones((2, 3), "float32"), np.array([0, 1])
    eager, compiled = Two(), Two()
    optimizer = optim.SGD(eager.parameters(), 0.1)
    step = train.compile_step(compiled, nn.SoftmaxLoss(), optim.SGD(compiled.parameters(), 0.1), (x, y))
    for _ in range(3):
        optimizer.reset_grad()
        nn.SoftmaxLoss()(eager(ndl.Tensor(x)), ndl.Tensor(y)).backward()
        optimizer.step()
        step(x, y)
    for ours, theirs in zip(compiled.parameters(), eager.parameters()):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
    assert not np.array_equal(compiled.a.numpy(), compiled.b.numpy())
