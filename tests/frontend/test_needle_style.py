"""Models written for needle run under `import frontend as ndl`: they learn, and their graphs compile."""

from pathlib import Path

import numpy as np
import pytest
from needle_style import language_model, mlp_resnet, resnet9

import frontend as ndl
import tcomp
from frontend.data import Corpus, NDArrayDataset, batchify


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_the_names_that_needle_has() -> None:
    for name in (
        "Tensor", "Op", "TensorOp", "TensorTuple", "cpu", "cpu_numpy", "all_devices", "default_device", "add", "add_scalar", "multiply",
        "mul_scalar", "divide", "divide_scalar", "power_scalar", "ewise_pow", "matmul", "summation", "broadcast_to", "reshape", "negate",
        "transpose", "log", "exp", "relu", "tanh", "sigmoid", "logsumexp", "logsoftmax", "stack", "split", "flip", "dilate", "undilate", "conv",
        "make_tuple", "tuple_get_item",
    ):  # fmt: skip
        assert hasattr(ndl, name), name
    for name in ("rand", "randn", "constant", "ones", "zeros", "randb", "one_hot", "zeros_like", "ones_like", "xavier_uniform",
                 "xavier_normal", "kaiming_uniform", "kaiming_normal"):  # fmt: skip
        assert hasattr(ndl.init, name), name
    x = ndl.init.rand(2, 3, device=ndl.cpu(), dtype="float32", requires_grad=True)
    assert ndl.autograd.TENSOR_COUNTER > 0 and x.device == ndl.cpu() and x.requires_grad


def test_residual_mlp() -> None:
    pytest.importorskip("sklearn")
    np.random.seed(0)
    train, test = (ndl.data.DigitsDataset(train=t) for t in (True, False))
    model, history, (error, loss) = mlp_resnet.train(train, test, 64)
    assert history[-1][1] < history[0][1] / 2 and error < 0.12 and np.isfinite(loss)
    got, eager = tcomp.compile(model, [test.X])(test.X), model(ndl.Tensor(test.X)).numpy()
    assert relative_error(got, eager) < 1e-5


@pytest.mark.parametrize("optimizer", [ndl.optim.SGD, ndl.optim.Adam])
def test_resnet9(optimizer: type) -> None:
    np.random.seed(0)
    model = resnet9.ResNet9(device=ndl.cpu())
    x, y = np.random.randn(16, 3, 32, 32).astype("float32"), np.arange(16) % 10
    opt = optimizer(model.parameters(), lr=0.01, weight_decay=0.001)
    losses = []
    loader = ndl.data.DataLoader(NDArrayDataset(x, y), 16)
    for _ in range(8):
        losses.append(mlp_resnet.epoch(loader, model, opt)[1])
    assert losses[-1] < losses[0] * 0.7
    model.eval()
    assert relative_error(tcomp.compile(model, [x])(x), model(ndl.Tensor(x)).numpy()) < 1e-5


@pytest.mark.parametrize("kind", ["rnn", "lstm", "transformer"])
def test_language_model(kind: str, tmp_path: Path) -> None:
    np.random.seed(0)
    line = "the quick brown fox jumps over the lazy dog while the old cat sleeps\n"
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(line * 40)
    corpus = Corpus(str(tmp_path), max_lines=30)
    assert len(corpus.train) == 30 * 15 and len(corpus.dictionary) == 13
    data = batchify(corpus.train, 8, device=ndl.cpu(), dtype="float32")
    model = language_model.LanguageModel(16, len(corpus.dictionary), 32, 2 if kind == "lstm" else 1, kind)
    opt = ndl.optim.Adam(model.parameters(), lr=0.02)
    losses = [language_model.epoch(data, model, opt=opt, clip=1.0) for _ in range(10)]
    assert losses[-1] < 0.8 and language_model.epoch(data, model) < 0.8 < 2 < losses[0]
    x = data[:12]
    got = tcomp.compile(model, [x])(x)
    for a, b in zip(_flat(got), _flat(model(ndl.Tensor(x))), strict=True):
        assert a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5)


def _flat(values: object) -> list[np.ndarray]:
    if isinstance(values, (tuple, list)):
        return [a for v in values for a in _flat(v)]
    return [values.numpy() if isinstance(values, ndl.Tensor) else np.asarray(values)]
