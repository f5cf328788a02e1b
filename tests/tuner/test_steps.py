"""Kernels of compiled training steps are tuned like others."""

from pathlib import Path

import numpy as np
from helpers import Here, kernels

import tcomp
from frontend import nn, optim
from frontend.train import compile_step
from tcomp.tuner.build import Built, build
from tcomp.tuner.measure import Arrays, Bench
from tcomp.tuner.task import Task


def make(seed: int, **how: object) -> tuple[object, object, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4))
    batch = (rng.standard_normal((16, 12)).astype("float32"), rng.integers(0, 4, 16))
    for p in model.parameters():
        p.data = type(p)(rng.standard_normal(p.shape).astype("float32") * 0.2)
    return (
        model,
        compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters()), batch, num_threads=1, **how),
        batch,
    )


def test_a_step_is_tuned_and_goes_on(tmp_path: Path) -> None:
    """The state stays, and the losses are those of a step that was not tuned; another step finds the records."""
    file = tmp_path / "tune.db"
    model, step, batch = make(3)
    _, plain, _ = make(3)
    assert step(*batch) == plain(*batch)
    before = [p.numpy().copy() for p in model.parameters()]
    report = step.tune(file, budget_s=8, trials=16, executor=Here())
    assert len(report.tasks) > 5 and sum(t.trials for t in report.tasks) > 20
    assert all(np.array_equal(a, p.numpy()) for a, p in zip(before, model.parameters()))
    assert np.allclose([step(*batch) for _ in range(5)], [plain(*batch) for _ in range(5)], rtol=1e-4)
    _, again, _ = make(3, database=file)
    again(*batch)
    tuned = [line for line in again.executable.explain().splitlines() if "tuned:" in line]
    assert len(tuned) >= len(report.schedules) and step.executable.explain().count("tuned:") == len(tuned)


def test_kernels_that_update_in_place_are_given_one_array() -> None:
    """Scattered updates write a few rows only: the rest must be there, and each candidate must find the same."""
    rng = np.random.default_rng(0)
    model = nn.Embedding(50, 8)
    batch = (rng.integers(0, 50, 6), rng.integers(0, 8, 6))
    step = compile_step(
        nn.Sequential(model), nn.SoftmaxLoss(), optim.SGD(model.parameters(), lr=0.1), batch, num_threads=1
    )
    in_place = [f for f in kernels(step.trace([np.asarray(b) for b in batch])[0]).values() if f.attrs.get("aliases")]
    assert in_place
    for func in in_place:
        task = Task(func, tcomp.Target.parse("cpu"))
        arrays = Arrays(task, 0)
        assert len({id(a) for a in arrays.arrays}) < len(arrays.arrays)
        built: Built = build(func, task.target, task.space.default)
        assert Bench(task, built, 1).is_right(built)
