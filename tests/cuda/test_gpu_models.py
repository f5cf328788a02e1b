"""Models and training steps for a GPU, on the emulator; their CUDA C through NVIDIA's compiler, where that is installed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import init, nn, optim, train
from frontend.models import conv_bn, digits_cnn

EMULATOR = "cuda -device=emulator"


def mlp() -> tuple[nn.Module, np.ndarray]:
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 5)), np.empty((6, 12))


def cnn() -> tuple[nn.Module, np.ndarray]:
    layers = [nn.Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv(8, 8, 3, stride=2), nn.GlobalAvgPool2d()]
    return nn.Sequential(*layers, nn.Linear(8, 5)), np.empty((4, 3, 8, 8))


class Encoder(nn.Module):
    """A transformer's layer, and a mean over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerLayer(16, 2, 8, 32, dropout=0.0)
        self.head = nn.Linear(16, 5)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        return self.head(ndl.summation(self.layer(x), axes=(1,)) / x.shape[1])


def transformer() -> tuple[nn.Module, np.ndarray]:
    return Encoder(), np.empty((3, 7, 16))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 9)
        self.head = nn.Linear(9, 5)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        steps, _ = self.lstm(x)
        return self.head(steps[-1])


def lstm() -> tuple[nn.Module, np.ndarray]:
    return Recurrent(), np.empty((5, 4, 6))


def digits() -> tuple[nn.Module, np.ndarray]:
    return digits_cnn(), np.empty((4, 1, 8, 8))


class Block(nn.Module):
    """Two convolutions, and the way past them (K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        second = nn.Conv(outside, outside, 3, bias=False)
        self.body = nn.Sequential(conv_bn(inside, outside, 3, stride), second, nn.BatchNorm2d(outside))
        is_same = inside == outside and stride == 1
        past = nn.Sequential(nn.Conv(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.past = nn.Identity() if is_same else past

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        return ndl.relu(self.body(x) + self.past(x))


def resnet18() -> tuple[nn.Module, np.ndarray]:
    """ResNet-18, an eighth as wide, for images of 32 x 32."""
    widths = (8, 16, 32, 64)
    layers: list[nn.Module] = [conv_bn(3, 8, 7, 2), nn.MaxPool2d(2)]
    for before, width in zip((8, *widths), widths):
        layers += [Block(before, width, 1 if width == 8 else 2), Block(width, width, 1)]
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(64, 10)), np.empty((2, 3, 32, 32))


Make = Callable[[], tuple[nn.Module, np.ndarray]]
TRAINED: tuple[Make, ...] = (mlp, cnn, transformer, lstm, digits)
MODELS: tuple[Make, ...] = (*TRAINED, resnet18)


def batch(make: Any, rng: np.random.Generator) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    init.seed(0)
    model, like = make()
    x = rng.standard_normal(like.shape).astype("float32")
    count = like.shape[1] if make is lstm else like.shape[0]
    return model, x, rng.integers(0, 5, count)


@pytest.mark.parametrize(
    "make", [pytest.param(f, marks=[pytest.mark.slow] if f is resnet18 else [], id=f.__name__) for f in MODELS]
)
def test_models(make: Any, rng: np.random.Generator) -> None:
    model, x, _ = batch(make, rng)
    model.eval()
    exe = tcomp.compile(model, [x], target=EMULATOR)
    want = tcomp.compile(model, [x], target="reference")(x)
    for order in ("forward", "shuffled"):
        exe.library.driver.order = order
        assert np.linalg.norm(exe(x) - want) <= 1e-5 * np.linalg.norm(want)


@pytest.mark.parametrize(
    "make", [pytest.param(f, marks=[pytest.mark.slow] if f in (cnn, digits) else [], id=f.__name__) for f in TRAINED]
)
def test_training_steps(make: Any) -> None:
    losses = {}
    for target in ("cpu", EMULATOR):
        model, x, y = batch(make, np.random.default_rng(5))
        model.train()
        step = train.compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 1e-2), (x, y), target, seed=1)
        losses[target] = [float(step(x, y)) for _ in range(3)]
    assert losses["cpu"][2] < losses["cpu"][0]
    np.testing.assert_allclose(losses[EMULATOR], losses["cpu"], rtol=1e-5)


def test_attention_to_one_feature(rng: np.random.Generator) -> None:
    """Sums of one product have no loop to tile."""
    g = tcomp.GraphBuilder()
    module = g.build(g.attention(*(g.input(n, (2, 9, 1)) for n in "qkv")))
    arrays = [rng.standard_normal((2, 9, 1)).astype("float32") for _ in "qkv"]
    want = tcomp.compile(module, target="reference")(*arrays)
    np.testing.assert_allclose(tcomp.compile(module, target=EMULATOR)(*arrays), want, rtol=1e-5, atol=1e-6)


def test_attention_to_more_keys_than_48_kib_hold_scores_of(rng: np.random.Generator) -> None:
    g = tcomp.GraphBuilder()
    shapes = {"q": (1, 2, 8), "k": (1, 6500, 8), "v": (1, 6500, 8)}
    module = g.build(g.attention(*(g.input(n, s) for n, s in shapes.items())))
    exe = tcomp.compile(module, target=EMULATOR)
    assert "rule: attention" in exe.explain() and "POOLED" in exe.ir("cuda")
    arrays = [rng.standard_normal(s).astype("float32") for s in shapes.values()]
    np.testing.assert_allclose(exe(*arrays), tcomp.compile(module)(*arrays), rtol=1e-4, atol=1e-6)


NVCC = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize(
    "arch", [pytest.param("sm_75", marks=pytest.mark.slow), "sm_80", pytest.param("sm_90", marks=pytest.mark.slow)]
)
def test_the_vendors_compiler_takes_the_kernels(arch: str, tmp_path: Path, rng: np.random.Generator) -> None:
    programs = {}
    for make in MODELS:
        model, x, _ = batch(make, rng)
        programs[make.__name__] = tcomp.compile(model.eval(), [x], target=f"cuda -arch={arch}")
    g = tcomp.GraphBuilder()
    programs["rows"] = tcomp.compile(g.build(g.softmax(g.input("x", (30, 15_000)))), target=f"cuda -arch={arch}")
    for d in ("float16", "bfloat16"):
        g = tcomp.GraphBuilder()
        x = g.matmul(g.input("x", (250, 768), d), g.transpose(g.input("w", (500, 768), d), axes=(1, 0)))
        programs[d] = tcomp.compile(g.build(g.relu(x)), target=f"cuda -arch={arch}")
    text = programs["float16"].ir("ptx")
    assert "wmma" in text or "mma.sync" in text
    for name, exe in programs.items():
        source = tmp_path / f"{name}.cu"
        source.write_text(exe.library.source)
        words = [
            str(NVCC),
            f"-arch={arch}",
            "-cubin",
            "-Xptxas",
            "-v",
            "-diag-suppress",
            "177",
            "-o",
            f"{source}.cubin",
        ]
        done = subprocess.run([*words, str(source)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        kernels = set(re.findall(r"Compiling entry function '(\w+)'", done.stderr))
        assert len(kernels) == exe.library.source.count("\nKERNEL(")
        spilled = [s for s in re.findall(r"(\d+) bytes spill stores", done.stderr) if s != "0"]
        assert not spilled and "error" not in done.stderr
