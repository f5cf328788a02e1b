"""Models: tracing, compiling, state, training; initialisers."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import nn
from frontend.data import DigitsDataset
from frontend.models import digits_cnn, mlp
from tcomp.passes.check import relative_error

R = np.random.default_rng(11)


def tensor(*shape: int) -> ndl.Tensor:
    return ndl.Tensor(R.standard_normal(shape).astype("float32"))


def settled(model: nn.Module, *shape: int) -> nn.Module:
    """A model in evaluation mode whose running statistics are not the initial ones."""
    model.train()
    for _ in range(3):
        model(ndl.Tensor((R.standard_normal(shape) * 2 + 1).astype("float32")))
    return model.eval()


MODELS = [
    (lambda: mlp(7, 19, 5), (3, 7)),
    (lambda: nn.Sequential(nn.Linear(9, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)), (5, 9)),
    (lambda: nn.Residual(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm1d(8), nn.Tanh())), (4, 8)),
    (lambda: nn.Sequential(nn.Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv(8, 5, 3, stride=2)), (2, 3, 9, 11)),
    (lambda: nn.Sequential(nn.Conv(2, 6, 1), nn.Sigmoid(), nn.AvgPool2d(2), nn.GlobalAvgPool2d(), nn.Identity()), (3, 2, 6, 8)),
    (lambda: digits_cnn(8), (3, 1, 8, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shape"), MODELS, ids=range(len(MODELS)))
def test_compiled_models_agree_with_eager_and_float64(make: object, shape: tuple) -> None:
    model = settled(make(), *shape)
    x = R.standard_normal(shape).astype("float32")
    eager = model(ndl.Tensor(x)).numpy()
    exe = tcomp.compile(model, [x])
    exact = tcomp.evaluate(ndl.trace(model, [x]), [x], exact=True)[0]
    assert relative_error(exe(x), eager) < 1e-5 and relative_error(exe(x), exact) < 1e-5
    assert exe.num_kernels < exe.program.fused_from


def test_other_operations_trace() -> None:
    def f(a: ndl.Tensor, b: ndl.Tensor) -> tuple:
        parts = ndl.split(a, 1)
        c = ndl.stack([parts[0], parts[2] * 2], 0)
        d = ndl.undilate(ndl.dilate(ndl.flip(b, (0,)), (1,), 1), (1,), 1)
        e = ndl.slice_axes(ndl.pad(b, ((1, 1), (0, 0))), (0, 1), (4, 3))
        return (
            c,
            d,
            e,
            ndl.logsumexp(a, (1,)),
            ndl.logsoftmax(a),
            ndl.ewise_pow(ndl.exp(a), a) - (-a) ** 2,
            ndl.summation(a / 3),
        )

    a, b = R.standard_normal((4, 5)).astype("float32"), R.standard_normal((2, 3)).astype("float32")
    got = tcomp.compile(ndl.trace(f, [a, b]))(a, b)
    for x, y in zip(got, f(ndl.Tensor(a), ndl.Tensor(b))):
        assert relative_error(x, y.numpy()) < 1e-5


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = digits_cnn(8).train()
    before = model.state_dict()
    tcomp.compile(model, [np.zeros((2, 1, 8, 8), "float32")])
    assert all(m.training for m in model.modules())
    assert all(np.array_equal(before[k], v) for k, v in model.state_dict().items())


def test_tracing_needs_no_memory_for_values() -> None:
    """A sum, a mean and a cast of 2.2 thousand million elements of int8."""
    x = np.broadcast_to(np.int8(1), (2_200_000_000,))
    tracemalloc.start()
    try:
        module = ndl.trace(lambda a: (ndl.summation(a), ndl.mean(a), ndl.cast(a, "float64"), a * 0.5), [x])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert [str(v.type.dtype) for v in module.functions["main"].results] == ["int64", "float64", "float64", "float64"]


def test_a_model_may_look_at_values_while_it_is_traced() -> None:
    """A branch by a value is the one that the example takes; a recurrence of any length is computed without recursion."""

    def f(a: ndl.Tensor) -> ndl.Tensor:
        b = a
        for _ in range(3000):
            b = b * 1.0 + 0.001
        return b if float(ndl.summation(b).numpy()) > 0 else a * 2.0

    for sign in (1.0, -10.0):
        x = np.full(3, sign, "float32")
        (got,) = tcomp.evaluate(ndl.trace(f, [x]), [x])
        assert np.allclose(got, f(ndl.Tensor(x)).numpy(), rtol=1e-4)


def test_an_operation_that_cannot_be_compiled_is_named() -> None:
    class Mystery(ndl.TensorOp):
        def compute(self, a: np.ndarray) -> np.ndarray:
            return a

    with pytest.raises(tcomp.UnsupportedError, match=r"Mystery.*lower\(graph"):
        tcomp.compile(ndl.trace(lambda x: Mystery()(x), [np.zeros(3, "float32")]))
    with pytest.raises(tcomp.TcompError, match="returned a int"):
        ndl.trace(lambda x: 3, [np.zeros(3, "float32")])
    with pytest.raises(tcomp.TcompError, match="example inputs"):
        tcomp.compile(mlp(3, 4, 2))


def test_state_dict_round_trip_and_refusals() -> None:
    a, b = settled(digits_cnn(4), 4, 1, 8, 8), digits_cnn(4).eval()
    x = tensor(2, 1, 8, 8)
    assert not np.allclose(a(x).numpy(), b(x).numpy())
    b.load_state_dict(a.state_dict())
    assert np.array_equal(a(x).numpy(), b(x).numpy())
    state = a.state_dict()
    name = next(iter(state))
    with pytest.raises(KeyError, match="missing"):
        b.load_state_dict({k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError, match="shape"):
        b.load_state_dict({**state, name: np.zeros(3)})


def test_models_are_saved_and_loaded_whole(tmp_path: Path) -> None:
    a, b = settled(digits_cnn(4), 4, 1, 8, 8), digits_cnn(4).eval()
    path = tmp_path / "model.safetensors"
    a.save(path)
    b.load(path)
    assert all(np.array_equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    before, raw = b.state_dict(), path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        b.load(path)
    assert all(np.array_equal(v, b.state_dict()[k]) for k, v in before.items())
    with pytest.raises(OSError):
        a.save(tmp_path / "missing" / "model.safetensors")
    assert "Conv(1, 4, kernel_size=3, stride=1)" in repr(a) and "Dropout(p=0.1)" in repr(a)


def test_parameters_are_found_once_in_lists_and_dicts() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.more = [self.one, {"deep": nn.Linear(2, 3)}]

    assert len(Shared().parameters()) == 4


def test_batch_norm_in_training_normalises_and_tracks() -> None:
    layer = nn.BatchNorm1d(6)
    x = ndl.Tensor((R.standard_normal((200, 6)) * 3 + 2).astype("float32"))
    y = layer(x).numpy()
    assert np.allclose(y.mean(0), 0, atol=1e-5) and np.allclose(y.std(0), 1, atol=1e-3)
    assert np.allclose(layer.running_mean.numpy(), 0.1 * x.numpy().mean(0), atol=1e-5)
    assert np.allclose(layer.running_var.numpy(), 0.9 + 0.1 * x.numpy().var(0), atol=1e-4)


def test_dropout_scales_and_is_off_in_evaluation() -> None:
    np.random.seed(0)
    layer = nn.Dropout(0.25)
    y = layer(ndl.init.ones(4000)).numpy()
    assert 0.22 < (y == 0).mean() < 0.28 and np.allclose(y[y != 0], 1 / 0.75)
    assert (layer.eval()(ndl.init.ones(9)).numpy() == 1).all()
    with pytest.raises(ValueError):
        nn.Dropout(1.0)


def test_softmax_loss_and_its_gradient() -> None:
    logits, labels = tensor(6, 4), ndl.Tensor(np.array([0, 3, 1, 1, 2, 0]))
    loss = nn.SoftmaxLoss()(logits, labels)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    assert np.isclose(loss.item(), -np.log(p[np.arange(6), labels.numpy()]).mean(), rtol=1e-5)
    loss.backward()
    p[np.arange(6), labels.numpy()] -= 1
    assert np.allclose(logits.grad.numpy(), p / 6, atol=1e-6)


def test_initialisers_have_the_variance_they_name() -> None:
    np.random.seed(0)
    for make, variance in (
        (ndl.init.xavier_uniform, 2 / 900), (ndl.init.xavier_normal, 2 / 900), (ndl.init.kaiming_uniform, 2 / 400), (ndl.init.kaiming_normal, 2 / 400),
    ):  # fmt: skip
        w = make(400, 500).numpy()
        assert w.shape == (400, 500) and abs(w.var() / variance - 1) < 0.03 and abs(w.mean()) < 1e-3
    for nonlinearity, gain in (("tanh", 25 / 9), ("leaky_relu", 2 / (1 + 1e-4)), ("linear", 1)):
        w = ndl.init.kaiming_normal(400, 500, nonlinearity=nonlinearity, mode="fan_out").numpy()
        assert abs(w.var() / (gain / 500) - 1) < 0.03
    with pytest.raises(ValueError, match="relu"):
        ndl.init.kaiming_normal(3, 3, nonlinearity="mystery")
    with pytest.raises(ValueError, match="fan_in"):
        ndl.init.kaiming_uniform(3, 3, mode="sideways")
    assert np.array_equal(ndl.init.one_hot(3, ndl.Tensor([2, 0])).numpy(), [[0, 0, 1], [1, 0, 0]])


def test_a_short_training_learns_and_compiles() -> None:
    pytest.importorskip("sklearn")
    from frontend.demo import accuracy, train_digits

    np.random.seed(0)
    model = digits_cnn(8)
    train_digits(model, epochs=8, quiet=True)
    test = DigitsDataset(train=False)
    exe = tcomp.compile(model, [test.X])
    assert accuracy(exe, test.X, test.y) > 0.9
    exact = tcomp.evaluate(ndl.trace(model, [test.X]), [test.X], exact=True)[0]
    assert relative_error(exe(test.X), exact) <= 1e-5


def test_cells_and_operators_go_by_the_courses_names() -> None:
    rnn, lstm = nn.RNN(3, 4, 2), nn.LSTM(3, 4, 2)
    assert rnn.rnn_cells == rnn.cells and lstm.lstm_cells == lstm.cells and len(rnn.parameters()) == 8
    for name in (
        "EWiseAdd",
        "AddScalar",
        "MatMul",
        "Summation",
        "LogSumExp",
        "Stack",
        "Split",
        "Flip",
        "Dilate",
        "Conv",
    ):
        assert issubclass(getattr(ndl.ops, name), (ndl.TensorOp, ndl.autograd.TensorTupleOp))
    assert np.array_equal(ndl.ops.PowerScalar(2)(ndl.Tensor([1.0, 3.0])).numpy(), [1, 9])


def test_positions_are_drawn_before_the_layers() -> None:
    ndl.init.seed(3)
    table = nn.LearnedPositions(5, 8).embedding.weight.numpy()
    ndl.init.seed(3)
    model = nn.Transformer(8, 16, 2, num_head=2, dim_head=4, sequence_len=5)
    assert np.array_equal(model.positions.embedding.weight.numpy(), table)
