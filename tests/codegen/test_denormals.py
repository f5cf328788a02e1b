"""Denormal numbers are kept, or count as zero in every thread while the model runs."""

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.errors import TcompError
from tcomp.schedule import Schedule

X = np.full((512, 64), 1e-40, "float32")


def exe(denormals: str, threads: int) -> tcomp.Executable:
    a = te.placeholder(X.shape, name="A")
    sch = Schedule(te.create_prim_func([a, te.compute(X.shape, lambda i, j: a[i, j] * 1.5, name="C")], "scaled"))
    sch.parallel(sch.get_loops("C")[0])
    return tcomp.compile(sch, denormals=denormals, num_threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_denormals_are_kept_or_flushed_in_every_thread(threads: int) -> None:
    keep, flush = exe("keep", threads), exe("flush", threads)
    for _ in range(20):  # by turns, so that workers change their mode
        assert np.array_equal(keep(X), X * np.float32(1.5)) and keep(X).all()
        assert not flush(X).any()
        assert (X[:1] * np.float32(0.5)).all()  # the caller's own mode is what it was


def test_whole_models_and_training_steps() -> None:
    g = tcomp.GraphBuilder()
    module = g.build(g.multiply_scalar(g.input("x", (64,)), scalar=1.5))
    assert tcomp.compile(module)(X[0]).all() and not tcomp.compile(module, denormals="flush")(X[0]).any()
    with pytest.raises(TcompError, match="denormals='fast'"):
        tcomp.compile(module, denormals="fast")


def test_training_steps_flush_by_default() -> None:
    from frontend import nn, optim, train

    batch = (np.ones((4, 3), "float32"), np.array([0, 0, 0, 0]))
    for options, moves in (({}, False), ({"denormals": "keep"}, True)):
        model = nn.Linear(3, 2, bias=False)
        model.weight.data = model.weight * 0.0
        step = train.compile_step(model, nn.SoftmaxLoss(), optim.SGD(model.parameters(), 1e-39), batch, **options)
        step(*batch)
        assert bool(model.weight.numpy().any()) == moves
