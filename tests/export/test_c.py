"""Models as C source: with vectors and without, beside the Executable; every operator and dtype."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import c_programs
import numpy as np
import pytest
import safetensors.numpy
from exported_models import MODELS
from test_control import MODELS as CONTROLLED
from test_dtypes import OFTEN, first_cases, values
from test_operators import RUNS, make

import tcomp
from tcomp import dtype as types
from tcomp.dtype import DType
from tcomp.errors import ShapeError
from tcomp.export import TEXT_BYTES
from tcomp.export.wasm import TARGET
from tcomp.ops import GraphBuilder
from tcomp.ops.registry import as_tuple
from tcomp.passes.check import random_array

pytestmark = pytest.mark.skipif(c_programs.CC is None, reason="no C compiler")


def check(module: tcomp.ir.IRModule, arrays: list[np.ndarray], folder: Path, way: str) -> None:
    """C and LLVM give the same results; of floats, up to rounding."""
    arrays = [np.asarray(a, order="C") for a in arrays]
    exe = tcomp.compile(module)
    found = exe(*arrays)
    wanted = found if isinstance(found, tuple) else (found,)
    for got, want in zip(c_programs.call(exe, arrays, folder, way), wanted, strict=True):
        got = got.view(want.dtype)
        if want.dtype.kind in "biu":
            assert np.array_equal(got, want)
            continue
        exact, size = want.astype(np.float64), np.linalg.norm(want.astype(np.float64))
        limit = {8: 1e-14, 4: 2e-6, 2: 1e-2}[want.dtype.itemsize]
        assert np.array_equal(np.isnan(got), np.isnan(want))
        assert np.linalg.norm(np.nan_to_num(got.astype(np.float64) - exact)) <= limit * (size or 1)


@pytest.mark.parametrize("way", c_programs.WAYS)
@pytest.mark.parametrize("key", MODELS)
def test_models(key: str, way: str, tmp_path: Path) -> None:
    model, x = MODELS[key]
    exe = tcomp.compile(model, [x])
    (got,) = c_programs.call(exe, [x], tmp_path, way)
    want = exe(x)
    assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)


@pytest.mark.parametrize(
    ("number", "run"), list(enumerate(RUNS)), ids=[f"{r[0]}-{i}{'-constant' * r[3]}" for i, r in enumerate(RUNS)]
)
@pytest.mark.drawn(1 / 24)
def test_operators(number: int, run: tuple, tmp_path: Path, rng: np.random.Generator) -> None:
    op, shapes, attrs, constants = run
    arrays = [make(s, op, rng) for s in shapes]
    g = GraphBuilder()
    given = [i for i in range(len(arrays)) if i == 0 or not constants]
    operands = [
        g.input(f"x{i}", x.shape, x.dtype) if i in given else g.constant(np.asarray(x)) for i, x in enumerate(arrays)
    ]
    module = g.build(*as_tuple(g.op(op, *operands, **attrs)))
    check(module, [arrays[i] for i in given], tmp_path, list(c_programs.WAYS)[number % 3])


@pytest.mark.parametrize("kind", [*OFTEN, types.float32], ids=str)
@pytest.mark.parametrize("op", sorted(first_cases()))
@pytest.mark.drawn(1 / 48)
def test_dtypes(op: str, kind: DType, tmp_path: Path, rng: np.random.Generator) -> None:
    shapes, attrs = first_cases()[op]
    if kind.is_int:
        attrs = {k: 3 if k == "scalar" else 2 if k == "value" else v for k, v in attrs.items()}
    arrays = []
    for shape in shapes:
        fixed = shape[-1] if shape and isinstance(shape[-1], str) else None
        extents = tuple(s for s in shape if not isinstance(s, str))
        arrays.append(values(extents, kind if fixed is None else types.dtype(fixed), op, rng))
    g = GraphBuilder()
    try:
        out = g.op(op, *(g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)), **attrs)
    except ShapeError:
        return
    check(g.build(*as_tuple(out)), arrays, tmp_path, list(c_programs.WAYS)[len(op) % 3])


@pytest.mark.parametrize("name", CONTROLLED)
def test_loops_and_branches(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Steps of a program that run again and again, or not."""
    module = CONTROLLED[name]()
    check(module, [random_array(p.type, rng) for p in module.main.params], tmp_path, "vectors")


def test_weights_in_a_file(tmp_path: Path) -> None:
    """Large ones are not written as text; a wrong file is refused."""
    g = GraphBuilder()
    w = np.random.default_rng(0).standard_normal((64, TEXT_BYTES // 256 + 1)).astype("float32")
    exe = tcomp.compile(g.build(g.matmul(g.input("x", (3, 64)), g.constant(w))))
    files = exe.export(tmp_path / "net.c", format="c")
    assert [f.name for f in files] == ["net.c", "net.h", "net_data.c", "net.safetensors", "net_manifest.json"]
    assert any(a.size >= w.size for a in safetensors.numpy.load_file(files[3]).values())
    library = c_programs.ctypes.CDLL(str(c_programs.build(tmp_path, ["-O1"])))
    context = c_programs.ctypes.c_void_p()

    def init(path: Path) -> int:
        return library.net_init(c_programs.ctypes.byref(context), str(path).encode(), 0)

    assert init(files[3]) == 0 and library.net_selftest(context, None) == 0
    data = files[3].read_bytes()
    for bad in (b"", data[:-1], data + b"0", data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]):
        (tmp_path / "bad").write_bytes(bad)
        assert init(tmp_path / "bad") == 6
    assert init(tmp_path / "missing") == 6 and library.net_init(c_programs.ctypes.byref(context), None, 0) == 1


def test_kernels_can_be_read(tmp_path: Path) -> None:
    exe = tcomp.compile(MODELS["cnn"][0], [MODELS["cnn"][1]])
    text = exe.ir("c")
    assert "KERNEL void kernel_" in text and "scheduled by" in text and "for (int64_t " in text


HOSTILE = ["*/ #error \\", "@outputs@", '"; throw 1; "', "a\nb", "*??/\n/ #error", "%s {0}", "</script>\u2028"]


def test_names_from_a_model_are_no_code(tmp_path: Path) -> None:
    """They stand in comments, strings and JSON."""
    g = GraphBuilder()
    inputs = [g.input(name, (3,)) for name in HOSTILE]
    total = inputs[0]
    for x in inputs[1:]:
        total = g.add(total, x)
    module = g.build(total)
    arrays = [np.full(3, i, np.float32) for i in range(len(HOSTILE))]
    exe = tcomp.compile(module)
    for options in (["-O1"], ["-O1", "-std=c99", "-DTCOMP_PLAIN_C"]):
        exe.export(tmp_path / "net.c", format="c")
        c_programs.build(tmp_path, options)
        (got,) = c_programs.call(exe, arrays, tmp_path)
        assert np.array_equal(got, exe(*arrays))
    exe.export(tmp_path / "shared.so")
    assert [s.name for s in tcomp.load(tmp_path / "shared.so").inputs] == HOSTILE
    node = shutil.which("node")
    if node is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip("no Node.js or no ziglang")
    tcomp.compile(module, target=TARGET).export(tmp_path / "net.wasm", format="wasm")
    script = """
    const m = await import("./net.mjs"), error = (await m.load()).selftest();
    process.stdout.write(JSON.stringify({ names: m.inputs.map((i) => i.name), error }));
    """
    told = subprocess.run([node, "--input-type=module", "-e", script], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["names"] == HOSTILE and json.loads(told.stdout)["error"] <= 1e-6
