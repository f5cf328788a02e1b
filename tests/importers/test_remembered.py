"""Files that were compiled before: the executable is found on disk, unless anything that it was made of has changed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp import compiler, remembered
from tcomp.codegen.cache import DiskCache
from tcomp.memory import ALIGN
from tcomp.specialized import Specialized

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

R = np.random.default_rng(3)
X = R.standard_normal((4, 6)).astype("float32")


def save(path: Path, w: np.ndarray, beside: bool = False) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="first"), helper.make_node("Tanh", ["h"], ["y"])]
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ("rows", e))] for n, e in (("x", 6), ("y", 9))]
    graph = helper.make_graph(nodes, "small", *values, [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if beside else {}
    onnx.save_model(model, path, **how)


def weights() -> np.ndarray:
    return R.standard_normal((6, 9)).astype("float32")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """Whether each compile found the executable; in a cache of its own."""
    answers: list[bool] = []
    load = remembered.Entry.load

    def note(entry: remembered.Entry, backend: object) -> object:
        answers.append((got := load(entry, backend)) is not None)
        return got

    monkeypatch.setattr(remembered.Entry, "load", note)
    monkeypatch.setattr(remembered, "cache_folder", lambda: tmp_path / "cache")
    return answers


def right(exe: tcomp.Executable, w: np.ndarray) -> None:
    np.testing.assert_allclose(exe(x=X), np.tanh(X @ w), rtol=1e-5, atol=1e-6)


def test_found_again(tmp_path: Path, found: list[bool]) -> None:
    file, w = tmp_path / "m.onnx", weights()
    save(file, w)
    first = tcomp.compile(file, dims={"rows": 4})
    told: list = []
    again = tcomp.compile(file, dims={"rows": 4}, progress=lambda *a: told.append(a), num_threads=1)
    assert found == [False, True] and told == [(1, 1, "found compiled")]
    right(again, w)
    assert again.program.to_json() == first.program.to_json() and again.num_threads == 1
    assert all(c.ctypes.data % ALIGN == 0 and not c.flags.writeable for c in again.program.constants)
    kernel = again.program.kernels[0].name
    assert again.ir("fused") == first.ir("fused") and again.schedule(kernel) == first.schedule(kernel)
    assert "first" in again.explain()


def test_what_makes_another_executable(tmp_path: Path, found: list[bool]) -> None:
    file, w = tmp_path / "m.onnx", weights()
    save(file, w)
    ways = [{"dims": {"rows": 4}}, {"shapes": {"x": (4, 6)}}, {"dims": {"rows": (1, 4)}}, {"inputs": [X]}, {"dims": {"rows": 4}, "denormals": "flush"},
            {"dims": {"rows": 4}, "winograd": False}, {"dims": {"rows": 4}, "target": "llvm -mcpu=haswell"}]  # fmt: skip
    for how in ways:
        tcomp.compile(file, **how)
    assert found == [False] * len(ways)
    for how in ways:
        exe = tcomp.compile(file, **how)
        if "target" not in how:
            right(exe, w)
    assert found == [False] * len(ways) + [True] * len(ways)
    assert isinstance(tcomp.compile(file), Specialized)  # nothing is kept of those
    assert isinstance(tcomp.compile(file), Specialized) and found[-1] is False
    schedules = {"matmul_tanh": lambda sch: None}
    with pytest.raises(tcomp.TcompError):  # asked for by name, so it is compiled anew
        tcomp.compile(file, dims={"rows": 4}, schedules={"no such kernel": schedules["matmul_tanh"]})


@pytest.mark.parametrize("beside", [False, True])
def test_changed_weights_are_seen(tmp_path: Path, found: list[bool], beside: bool) -> None:
    """Also those in a file beside the model, which itself stays the same."""
    file, w, v = tmp_path / "m.onnx", weights(), weights()
    save(file, w, beside)
    right(tcomp.compile(file, dims={"rows": 4}), w)
    before = file.read_bytes()
    (tmp_path / "weights.bin").unlink(missing_ok=True)
    save(file, v, beside)
    assert (file.read_bytes() == before) == beside
    right(tcomp.compile(file, dims={"rows": 4}), v)
    right(tcomp.compile(file, dims={"rows": 4}), v)
    assert found == [False, False, True]
    if beside:
        (tmp_path / "weights.bin").unlink()
        with pytest.raises(tcomp.TcompError, match="no file in the model's folder"):
            tcomp.compile(file, dims={"rows": 4})


def test_damaged_entries_are_misses(tmp_path: Path, found: list[bool]) -> None:
    file, w = tmp_path / "m.onnx", weights()
    save(file, w)
    right(tcomp.compile(file, dims={"rows": 4}), w)
    (entry,) = (tmp_path / "cache").rglob("*.program")
    whole = entry.read_bytes()
    for damaged in (b"", whole[:-7], whole[:90] + b"?" + whole[91:], whole[:-1] + b"?", whole + b"?"):
        entry.write_bytes(damaged)
        right(tcomp.compile(file, dims={"rows": 4}), w)
        assert found[-1] is False and entry.read_bytes() == whole


def test_room_is_made_for_the_newest(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ".program", limit=4000)
    keys = [f"{i:02d}" * 20 for i in range(4)]
    for i, key in enumerate(keys[:3]):
        cache.write(key, [bytes(1000)])
        os.utime(cache.path(key), (i, i))
    assert cache.read(keys[0]) is not None  # which makes it the one used last
    cache.write(keys[3], [bytes(1500), bytes(1000)])
    assert [cache.read(k) is not None for k in keys] == [True, False, False, True]
    cache.write("ff" * 20, [bytes(5000)])
    assert cache.read("ff" * 20) is None and cache.read(keys[3]) is not None


def test_it_may_be_switched_off(tmp_path: Path, found: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    file, w = tmp_path / "m.onnx", weights()
    save(file, w)
    off = remembered.config().__class__(cache_mib=0)
    monkeypatch.setattr(remembered, "config", lambda: off)
    for _ in range(2):
        right(tcomp.compile(file, dims={"rows": 4}), w)
    assert not found and not list((tmp_path / "cache").rglob("*.program"))


def test_a_found_model_needs_neither_its_reader_nor_the_compiler(tmp_path: Path) -> None:
    file, w = tmp_path / "m.onnx", weights()
    save(file, w)
    code = (
        "import sys, numpy as np, tcomp\n"
        "exe = tcomp.compile(sys.argv[1], dims={'rows': 4})\n"
        "exe(np.ones((4, 6), 'float32'))\n"
        "print(*(m for m in ('onnx', 'networkx', 'islpy', 'tcomp.passes', 'tcomp.schedule', 'tcomp.ops', 'tcomp.importers') if m in sys.modules))\n"
    )
    env = {**os.environ, "TCOMP_CACHE_DIR": str(tmp_path / "cache")}
    for expected in ("onnx", ""):
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[:1] == expected.split()


def test_compile_has_no_second_way(tmp_path: Path, found: list[bool]) -> None:
    """Models that are no files are never looked for."""
    file = tmp_path / "m.onnx"
    save(file, weights())
    compiler.compile(onnx.load(file), dims={"rows": 4})
    assert not found
