"""A user's own schedule, tuned."""

import numpy as np
import pytest
from helpers import Here, Speeds, kernels, product

import tcomp
from tcomp import te
from tcomp.errors import ScheduleError, TcompError
from tcomp.schedule import Schedule, Trace
from tcomp.target import Target
from tcomp.tuner.build import Built
from tcomp.tuner.search import Evolution
from tcomp.tuner.task import Task
from tcomp.tuner.traces import TraceSpace

CPU = Target.parse("cpu")
FUNC = kernels(product())["matmul_relu"]


def tiled(sch: Schedule) -> None:
    """Tiles of two loops, and how far the innermost one is unrolled."""
    i, j, k = sch.get_loops("matmul")
    i0, i1 = sch.split(i, sch.sample_perfect_tile(i, 2, 8))
    j0, j1 = sch.split(j, sch.sample_perfect_tile(j, 2, 8))
    sch.reorder(i0, j0, k, i1, j1)
    sch.vectorize(j1)
    if sch.sample_categorical([0, 1], [0.5, 0.5]):
        sch.unroll(i1)


def fixed(sch: Schedule) -> None:
    i, _, _ = sch.get_loops("matmul")
    sch.split(i, sch.sample_perfect_tile(i, 2, 8, decision=[12, 2]))


def decisions(text: str) -> list[object]:
    trace = Trace.from_json(text)
    return [trace.steps[p].args[-1] for p in trace.samples]


def test_candidates_are_traces_of_the_function(rng: np.random.Generator) -> None:
    space = TraceSpace(FUNC, tiled)
    assert str(space.schedule(space.default).trace) == str(Trace.from_json(dict(space.default.decisions)["trace"]))
    seen = {space.default}
    for _ in range(30):
        for c in (
            space.random(rng),
            space.mutated(space.default, rng),
            space.crossed(space.default, space.random(rng), rng),
        ):
            space.schedule(c)
            seen.add(c)
    assert len(seen) > 15 and space.name == TraceSpace(FUNC, tiled).name
    assert space.told(space.default).count("=") == 3
    usual = decisions(dict(space.default.decisions)["trace"])
    near = [decisions(dict(c.decisions)["trace"]) for c in space.neighbours(space.default)]
    assert near and all(sum(a != b for a, b in zip(usual, other)) == 1 for other in near if len(other) == len(usual))


def test_decisions_that_the_function_fixes_are_the_default_only(rng: np.random.Generator) -> None:
    space = TraceSpace(FUNC, fixed)
    assert decisions(dict(space.default.decisions)["trace"]) == [(12, 2)]
    assert any(decisions(dict(space.random(rng).decisions)["trace"]) != [(12, 2)] for _ in range(10))


def test_a_schedule_without_decisions_has_one_candidate(rng: np.random.Generator) -> None:
    space = TraceSpace(FUNC, lambda sch: sch.unroll(sch.get_loops("matmul")[0]))
    assert space.size == 1 and list(space.neighbours(space.default)) == []
    assert space.random(rng) == space.mutated(space.default, rng) == space.default
    report = tcomp.tune(product(), schedule=lambda sch: None, budget_s=3, executor=Here())
    assert report.tasks == () and set(report.schedules) == {"matmul_relu"}


def test_the_best_of_a_made_up_cost_is_found() -> None:
    """Small tiles of both axes are the fastest."""
    space = TraceSpace(FUNC, tiled)

    def speed(built: Built) -> float:
        found = decisions(dict(built.candidate.decisions)["trace"])
        return 2 - 0.1 * sum(inner for _, inner in found[:2])

    task = Task(FUNC, CPU, own=space)
    search = Evolution(task.space)
    bench = Speeds(speed)
    for _ in range(12):
        for c in search.propose(8):
            search.tell(bench.trial(Built(c, b"x", program=c.to_json())))
    assert decisions(dict(search.best(1)[0].candidate.decisions)["trace"])[:2] == [(24, 1), (40, 1)]


def test_tuning_a_function() -> None:
    """A te kernel, and its own schedule: the report's schedule compiles, is right, and is one of the function's."""
    a, b = te.placeholder((96, 64), name="A"), te.placeholder((64, 80), name="B")
    k = te.reduce_axis(64, name="k")
    c = te.compute((96, 80), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    func = te.create_prim_func([a, b, c], name="product")

    def mine(sch: Schedule) -> None:
        i, j, k = sch.get_loops("C")
        j0, j1 = sch.split(j, sch.sample_perfect_tile(j, 2, 16, decision=[80, 1]))
        sch.reorder(i, j0, k, j1)
        sch.vectorize(j1)

    report = tcomp.tune(func, schedule=mine, budget_s=4, num_threads=1, executor=Here())
    (task,) = report.tasks
    assert task.name == "product" and task.trials > 3 and task.accepted is not None and task.accepted.low > 1.5
    assert "80" not in task.changes.split("=")[-1]
    best = report.schedules["product"]
    assert str(best.trace) != str(mine) and "sample_perfect_tile" in str(best.trace)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((96, 64), np.float32), rng.standard_normal((64, 80), np.float32)
    assert np.allclose(tcomp.compile(best)(x, w), x.astype(np.float64) @ w, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_tuned_so_is_told() -> None:
    with pytest.raises(ScheduleError):
        tcomp.tune(product(), schedule=lambda sch: sch.get_loops("nothing"), budget_s=1, executor=Here())
    g = tcomp.GraphBuilder()
    two = g.build(g.softmax(g.matmul(g.input("x", (8, 8)), g.input("w", (8, 8)))))
    with pytest.raises(TcompError, match="one schedule tunes one kernel"):
        tcomp.tune(two, schedule=tiled, budget_s=1, executor=Here())
