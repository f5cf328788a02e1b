"""What exported files tell of how they were made: replayed, compared, listed; damaged ones refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_models import MODELS
from typer.testing import CliRunner

import tcomp
from tcomp import cli
from tcomp.errors import TcompError
from tcomp.runtime.manifest import find_section, read_manifest, sealed, sealed_text
from tcomp.target import Target

onnx = pytest.importorskip("onnx")
CC = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")
ROOT = Path(__file__).parents[2]


def write_model(path: Path, change: float = 0.0) -> Path:
    """Two products, each with a constant; a number of the second one may be changed."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(s).astype("float32") for s in ((6, 40), (40, 3)))
    second[7, 1] += change
    held = [onnx.numpy_helper.from_array(a, n) for n, a in (("first", first), ("second", second))]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]), helper.make_node("Softmax", ["y"], ["p"]),
    ]  # fmt: skip
    ends = [[helper.make_tensor_value_info(n, kind, ("rows", e))] for n, e in (("x", 6), ("p", 3))]
    model = helper.make_model(helper.make_graph(nodes, "two", *ends, held), opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, path)
    return path


def tell(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, [str(w) for w in words])
    assert done.exit_code == code, f"{done.output}\n{done.exception}"
    return done.output


@pytest.mark.parametrize("format", ["shared", "object", "c"])
def test_two_processes_in_two_folders_write_the_same_bytes(format: str, tmp_path: Path) -> None:
    file = write_model(tmp_path / "two.onnx")
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        words = ["compile", str(file), "-o", ".", "--format", format, "--dims", "rows=2", "--weights", "beside"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TCOMP_CACHE_DIR": str(tmp_path / f"cache-{name}")}
        subprocess.run([sys.executable, "-m", "tcomp.cli", *words], cwd=tmp_path / name, check=True, env=env, capture_output=True)  # fmt: skip
        found.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    assert found[0] == found[1] and "two.safetensors" in found[0]
    made = next(f for f in (tmp_path / "one").iterdir() if f.suffix in (".so", ".o", ".json"))
    assert "is equal" in tell("replay", made, file)


def test_replay_says_what_differs(tmp_path: Path) -> None:
    file, other = write_model(tmp_path / "two.onnx"), write_model(tmp_path / "changed.onnx", 0.25)
    tell("compile", file, "-o", tmp_path / "out", "--dims", "rows=2")
    library = tmp_path / "out" / "two.so"
    assert json.loads(tell("replay", library, file, "--json")) == {
        "file": str(library),
        "equal": True,
        "differences": [],
    }
    told = tell("replay", library, other, code=1)
    assert re.search(r"the model: its SHA-256 is \w+, was \w+", told) and "the bytes of two.so" in told
    assert re.search(r"constants 1 \(float32\[\d+(, \d+)*\]\)", told), told
    assert "kernel" not in told  # of the same shapes the same code
    with pytest.raises(TcompError, match="cannot read"):
        CliRunner().invoke(cli.app, ["replay", str(library), str(tmp_path / "no.onnx")], catch_exceptions=False)
    tcomp.compile(*MODELS["cnn"][:1], [MODELS["cnn"][1]]).export(tmp_path / "net.so")
    with pytest.raises(TcompError, match="from a Sequential in memory"):
        CliRunner().invoke(cli.app, ["replay", str(tmp_path / "net.so"), str(file)], catch_exceptions=False)


@pytest.mark.parametrize("format", ["shared", "object", "c", "wasm"])
def test_sizes_add_up(format: str, tmp_path: Path) -> None:
    if format == "wasm":
        pytest.importorskip("ziglang")
    file = write_model(tmp_path / "two.onnx")
    made = json.loads(tell("compile", file, "-o", tmp_path, "--format", format, "--dims", "rows=2", "--json"))
    names = [Path(f["file"]) for f in made]
    chosen = next(f for f in names if f.suffix in (".so", ".o", ".json", ".wasm"))
    parts = json.loads(tell("size", chosen, "--json"))
    total = sum(sum(parts[p].values()) for p in ("weights", "code", "example", "manifest", "other"))
    assert total == parts["total"] and parts["other"]["entry, interface, threads, tables"] >= 0
    assert parts["total"] >= chosen.stat().st_size and len(parts["code"]) >= 2
    assert "weights" in tell("size", chosen) and "others" in tell("size", chosen, "--top", 1)


def test_a_model_whose_values_decide_extents_is_refused(tmp_path: Path) -> None:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(n, k, s) for n, k, s in
            (("x", onnx.TensorProto.FLOAT, (6,)), ("s", onnx.TensorProto.INT64, (2,)), ("y", onnx.TensorProto.FLOAT, ("a", "b")))]  # fmt: skip
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "reshape", ends[:2], ends[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "r.onnx")
    assert "decide extents" in refused("compile", tmp_path / "r.onnx", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inspect_shows_an_artifact(tmp_path: Path) -> None:
    file = write_model(tmp_path / "two.onnx")
    tell("compile", file, "-o", tmp_path, "--dims", "rows=2")
    told = tell("inspect", tmp_path / "two.so", "--kernels")
    assert "two.onnx" in told and "x: float32[2, 6]" in told and "sch." in told and "x86-64-v2" in told
    manifest = json.loads(tell("inspect", tmp_path / "two.so", "--json"))
    assert manifest == read_manifest(tmp_path / "two.so")
    assert Target.parse(manifest["variants"][0]["options"]) == Target.parse("cpu")


@pytest.mark.parametrize(
    "text",
    ["cpu", "llvm -mcpu=x86-64-v2", "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76", "llvm -mtriple=riscv64-linux-gnu",
     "llvm -mtriple=wasm32-unknown-unknown", "llvm -mcpu=skylake-avx512 -mattr=-avx512f -num-cores=4 -l2=2M"],
)  # fmt: skip
def test_the_text_of_a_target_gives_it_again(text: str) -> None:
    target = Target.parse(text)
    assert Target.parse(target.text) == target


def test_damaged_manifests_are_refused(tmp_path: Path) -> None:
    """With a seal that is right, so that what stands behind it is read: text that is none, or tells of something else."""
    exe = tcomp.compile(MODELS["cnn"][0], [MODELS["cnn"][1]])
    exe.export(tmp_path / "net.so", portable=False)
    whole = (tmp_path / "net.so").read_bytes()
    start, nbytes = find_section(memoryview(whole))
    rng = np.random.default_rng(0)
    for at in rng.integers(start + 64, start + nbytes, 60):
        bad = bytearray(whole)
        bad[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.so").write_bytes(sealed(bytes(bad)))
        with pytest.raises(TcompError, match=r"bad\.so"):
            tcomp.load(tmp_path / "bad.so")


COUNTS = pytest.mark.parametrize("count", [pytest.param(200), pytest.param(2000, marks=pytest.mark.slow)])


def refused(*words: object) -> str:
    """What a command says that refuses its file."""
    with pytest.raises(TcompError) as told:
        CliRunner().invoke(cli.app, [str(w) for w in words], catch_exceptions=False)
    return str(told.value)


@COUNTS
def test_damaged_manifests_beside_c_source(count: int, tmp_path: Path) -> None:
    """Truncated, flipped, extended, foreign ones."""
    file = write_model(tmp_path / "two.onnx")
    tell("compile", file, "-o", tmp_path, "--format", "c", "--dims", "rows=2")
    manifest = tmp_path / "two_manifest.json"
    whole, rng = manifest.read_bytes(), np.random.default_rng(2)
    assert "what was exported" in tell("verify", manifest)
    for number in range(count):
        manifest.write_bytes(damaged(whole, number, rng))
        told = refused(("inspect", "size", "verify")[number % 3], manifest)
        assert "two_manifest.json" in told and "damaged" in told
    manifest.write_bytes(whole)
    (tmp_path / "two.c").write_text((tmp_path / "two.c").read_text() + " ")
    assert "two.c is not the file that was exported" in refused("verify", manifest)


def damaged(whole: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Cut, flipped, longer, foreign, in turns."""
    at = int(rng.integers(0, len(whole)))
    flipped = whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
    longer = whole[:at] + rng.bytes(int(rng.integers(1, 99))) + whole[at:]
    return (whole[:at], flipped, longer, rng.bytes(at))[number % 4]


@COUNTS
def test_manifests_that_tell_something_else_under_a_right_seal(count: int, tmp_path: Path) -> None:
    """Parts that are missing, of another type or value: each is refused, or no more than text that is shown."""
    file = write_model(tmp_path / "two.onnx")
    tell("compile", file, "-o", tmp_path, "--format", "c", "--dims", "rows=2")
    manifest = tmp_path / "two_manifest.json"
    whole, rng, shown = manifest.read_bytes(), np.random.default_rng(3), 0
    for number in range(count):
        told = json.loads(whole)
        told.pop("seal")
        spoil(told, rng)
        manifest.write_bytes(sealed_text(told))
        words = [("inspect", manifest), ("size", manifest), ("verify", manifest)][number % 3]
        try:
            CliRunner().invoke(cli.app, [str(w) for w in words], catch_exceptions=False)
            shown += 1
        except TcompError:
            pass
    assert shown < count / 2


def spoil(told: object, rng: np.random.Generator) -> None:
    """Change something at a random depth."""
    others = [None, 3, -1, "", "../x", [], {}, True, 1.5, ["a"], {"a": 1}, "x" * 5000, 1 << 70]
    while True:
        keys = list(told) if isinstance(told, dict) else list(range(len(told)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        inner = told[key]
        if isinstance(inner, str) and inner.startswith("{"):  # the program
            program = json.loads(inner)
            spoil(program, rng)
            told[key] = json.dumps(program)
            return
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.3:
            break
        told = inner
    if rng.random() < 0.3:
        told.pop(key)
    else:
        told[key] = others[int(rng.integers(len(others)))]


def test_an_option_that_replay_does_not_know_is_no_argument(tmp_path: Path) -> None:
    file = write_model(tmp_path / "two.onnx")
    tell("compile", file, "-o", tmp_path, "--format", "c", "--dims", "rows=2")
    manifest = tmp_path / "two_manifest.json"
    told = json.loads(manifest.read_bytes())
    told.pop("seal")
    told["options"]["database"] = str(tmp_path / "made.db")
    manifest.write_bytes(sealed_text(told))
    assert "other parts: database" in refused("replay", manifest, file) and not (tmp_path / "made.db").exists()


def test_code_does_not_take_the_name_of_a_file_beside_it(tmp_path: Path) -> None:
    exe = tcomp.compile(MODELS["cnn"][0], [MODELS["cnn"][1]])
    for name, format in (("net.h", "shared"), ("net_data.c", "c"), ("net_manifest.json", "c")):
        with pytest.raises(TcompError, match="is written beside it"):
            exe.export(tmp_path / name, format=format, name="net")
    assert not list(tmp_path.iterdir())


@COUNTS
def test_damaged_files_of_weights(count: int, tmp_path: Path) -> None:
    """Truncated, flipped, extended, foreign ones: each is an error before anything runs, in a process that goes on."""
    model, x = MODELS["cnn"]
    exe = tcomp.compile(model, [x])
    exe.export(tmp_path / "net.so", weights="beside", portable=False)
    file = tmp_path / "net.safetensors"
    whole, rng = file.read_bytes(), np.random.default_rng(1)
    for number in range(count):
        bad = damaged(whole, number, rng)
        (tmp_path / "part").write_bytes(bad)
        os.replace(tmp_path / "part", file)
        with pytest.raises(TcompError, match="file of weights"):
            tcomp.load(tmp_path / "net.so")
    file.write_bytes(whole)
    assert np.array_equal(tcomp.load(tmp_path / "net.so")(x), exe(x))
