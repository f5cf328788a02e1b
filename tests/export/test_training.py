"""Training steps as files: the same losses as in Python, what they keep in files, and a C program that trains."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import c_programs
import numpy as np
import pytest

import frontend as ndl
import tcomp
from frontend import nn, optim, train
from frontend.data import DigitsDataset
from frontend.models import digits_cnn, mlp
from frontend.storage import read_safetensors
from tcomp.errors import InputError, UnsupportedError
from tcomp.runtime.artifact import selftest

CC = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")
PROGRAM = Path(__file__).parents[2] / "tutorials" / "deploy" / "train.c"


class Exported:
    """An exported step, called through its C interface."""

    def __init__(self, file: Path) -> None:
        self.code, self.context = ctypes.CDLL(str(file)), ctypes.c_void_p()
        self.code.step_state.restype, self.code.step_kept.restype = ctypes.c_void_p, ctypes.c_char_p
        assert self.code.step_init(ctypes.byref(self.context), None, 1) == 0

    def __call__(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        lr, loss = np.array(rate), np.zeros((), np.float32)
        given = (ctypes.c_void_p * 3)(*(a.ctypes.data for a in (x, y, lr)))
        assert self.code.step_run(self.context, given, (ctypes.c_void_p * 1)(loss.ctypes.data), None) == 0
        return float(loss)

    def file(self, function: str, path: Path) -> int:
        return int(getattr(self.code, f"step_{function}")(self.context, str(path).encode()))

    def names(self) -> list[str]:
        found, size = [], ctypes.c_size_t()
        while (name := self.code.step_kept(len(found), ctypes.byref(size))) is not None:
            found.append(name.decode())
        return found


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [(rng.standard_normal((8, 6)).astype("float32"), rng.integers(0, 3, 8)) for _ in range(count)]


def step_of(optimizer: Any) -> train.TrainStep:
    ndl.init.seed(5)
    model = nn.Sequential(mlp(6, 9, 3), nn.Dropout(0.2))
    return train.compile_step(model, nn.SoftmaxLoss(), optimizer(model.parameters()), batches(1)[0], seed=4, num_threads=1)  # fmt: skip


@pytest.mark.parametrize("format", ["shared", "c"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: optim.AdamW(p, 0.02, weight_decay=0.1),
        lambda p: optim.SGD(p, 0.05, momentum=0.9, unbiased=True),
        lambda p: optim.RMSProp(p, 0.01),
    ],
    ids=["adamw", "sgd", "rmsprop"],
)
def test_an_exported_step_loses_what_the_step_loses(format: str, optimizer: Any, tmp_path: Path) -> None:
    """From the state at export on; the rates of the learning rate are the caller's."""
    step, data = step_of(optimizer), batches(12)
    for batch in data[:3]:
        step(*batch)
    if format == "shared":
        step.export(tmp_path / "step.so")
        assert selftest(tmp_path / "step.so") <= 1e-6
    else:
        step.export(tmp_path / "net.c", format="c", name="step")
        for made, wanted in (("net.c", "net.c"), ("step_data.c", "net_data.c")):
            (tmp_path / made).rename(tmp_path / wanted)
        c_programs.build(tmp_path, c_programs.WAYS["vectors"]).rename(tmp_path / "step.so")
    exported = Exported(tmp_path / "step.so")
    for batch in data[3:]:
        step.optimizer.lr *= 0.9
        want, got = step(*batch), exported(*batch, step.optimizer.lr)
        assert got == want if format == "shared" else np.isclose(got, want, rtol=1e-5)
    assert exported.file("save", tmp_path / "state.safetensors") == 0
    kept = read_safetensors(tmp_path / "state.safetensors", needs_checksum=True)
    assert set(kept) == set(exported.names())
    own = {name: t.numpy() for name, t in step._state.tensors()}
    assert set(kept) == {*own, "seed, steps, skipped"} and list(kept["seed, steps, skipped"]) == [4, 12, 0]
    for name, a in own.items():
        assert np.array_equal(kept[name], a) if format == "shared" else np.allclose(kept[name], a, atol=1e-5)
    other = step_of(optimizer)  # and Python goes on from such a file
    other.load(tmp_path / "state.safetensors")
    other.optimizer.lr = step.optimizer.lr
    assert other(*data[0]) == pytest.approx(step(*data[0]), rel=0 if format == "shared" else 1e-4)


def test_state_is_restored_whole_or_not_at_all(tmp_path: Path) -> None:
    step, data = step_of(lambda p: optim.Adam(p, 0.02)), batches(4)
    step.export(tmp_path / "step.so")
    first, second = Exported(tmp_path / "step.so"), Exported(tmp_path / "step.so")
    for batch in data:
        first(*batch, 0.02)
    file = tmp_path / "state.safetensors"
    assert first.file("save", file) == 0 and not list(tmp_path.glob("*.part"))
    rng, whole = np.random.default_rng(0), file.read_bytes()
    damaged = [b"", whole[:-1], whole + b"0", whole[:100]]
    for at in (0, 8, 20, len(whole) - 1, *rng.integers(0, len(whole), 200)):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
    for data_of in damaged:
        (tmp_path / "bad").write_bytes(data_of)
        assert second.file("restore", tmp_path / "bad") == 7
    assert second.file("restore", tmp_path / "missing") == 7 and second.file("save", tmp_path / "no" / "folder") == 7
    fresh = Exported(tmp_path / "step.so")
    assert second(*data[0], 0.02) == fresh(*data[0], 0.02)  # nothing was changed
    assert second.file("restore", file) == 0
    assert [second(*b, 0.01) for b in data] == [first(*b, 0.01) for b in data]


def test_a_c_program_trains(tmp_path: Path) -> None:
    """Killed at any moment, it goes on to the same losses."""
    ndl.init.seed(0)
    model = digits_cnn()
    optimizer = optim.AdamW(model.parameters(), 6e-3, weight_decay=0.1)
    sets = {"train": DigitsDataset(train=True), "test": DigitsDataset(train=False)}
    for name, found in sets.items():
        images, labels = zip(*(found[i] for i in range(len(found))))
        np.stack(images).astype(np.float32).tofile(tmp_path / f"{name}_x.bin")
        np.asarray(labels, np.int64).tofile(tmp_path / f"{name}_y.bin")
    batch = [np.zeros((64, 1, 8, 8), np.float32), np.zeros(64, np.int64)]
    step = train.compile_step(model, nn.SoftmaxLoss(), optimizer, batch)
    step.export(tmp_path / "libstep.so", name="step")
    step.export_model(tmp_path / "libnet.so", [batch[0][:1]], name="net")
    words = [CC, "-O2", "-Wall", "-Wextra", "-Werror", "-o", "train", PROGRAM, "-I.", "-L.", "-lstep", "-lnet"]
    subprocess.run([*words, "-Wl,-rpath,$ORIGIN", "-lm"], cwd=tmp_path, check=True)
    whole = subprocess.run(["./train", ".", "20"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    right = float(whole.split()[-2])
    assert right >= 97, whole[-200:]
    (tmp_path / "state.safetensors").unlink()
    running = subprocess.Popen(["./train", ".", "20"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for _ in range(90):
        running.stdout.readline()
    running.kill()
    running.wait()
    running.stdout.close()
    rest = subprocess.run(["./train", ".", "20"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert 0 < len(rest) < len(whole) and whole.endswith(rest)


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    step = step_of(lambda p: optim.SGD(p, 0.1))
    step(*batches(1)[0])
    with pytest.raises(UnsupportedError, match="keeps what it changes"):
        step.executable.export(tmp_path / "step.so")
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.relu(g.input("x", (3,)))))
    for state, match in (({"y": np.zeros(3, "f4")}, "no input 'y'"), ({"x": np.zeros(4, "f4")}, "the input is x")):
        with pytest.raises(InputError, match=match):
            exe.export(tmp_path / "net.so", state=state)
    ndl.init.seed(0)
    model = mlp(6, 9, 3)
    scaled = train.compile_step(
        model, nn.SoftmaxLoss(), optim.SGD(model.parameters(), 0.1), batches(1)[0], loss_scale=8.0
    )
    with pytest.raises(ValueError, match="loss scale"):
        scaled.export(tmp_path / "step.so")
    assert not list(tmp_path.iterdir())
