"""The verbs that take a model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tcomp import cli
from tcomp.errors import TcompError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype("float32"), n)
        for n, s in (("w", (8, 16)), ("v", (16, 3)))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="first"), helper.make_node("Relu", ["h"], ["r"], name="bend"),
             helper.make_node("MatMul", ["r", "v"], ["s"], name="second"), helper.make_node("Softmax", ["s"], ["y"], name="last")]  # fmt: skip
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ("rows", e))] for n, e in (("x", 8), ("y", 3))]
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    graph = helper.make_graph(nodes, "small", *values, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def tcomp(*args: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, list(map(str, args)), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_inspect(model: Path, tmp_path: Path) -> None:
    facts = json.loads(tcomp("inspect", model, "--dims", "rows=4", "--json"))
    assert facts["operators"] == {"MatMul": 2, "Relu": 1, "Softmax": 1}
    assert facts["parameters"] == 8 * 16 + 16 * 3 and facts["flops"] >= 2 * 4 * (8 * 16 + 16 * 3)
    assert {n for k in facts["kernels"] for n in k["nodes"]} == {"first", "bend", "second", "last"}
    shown = tcomp("inspect", model, "--kernels")
    assert "operators" in shown and "x: float32[rows, 8]" in shown  # brackets are no markup
    page = tmp_path / "page.html"
    tcomp("inspect", model, "--html", page)
    assert "class=kernel" in page.read_text() and "second" in page.read_text()


def test_random_places_come_from_the_whole_table(tmp_path: Path) -> None:
    """Ids of words are drawn from their whole table, others stay small."""
    table = numpy_helper.from_array(np.arange(5000, dtype="float32"), "table")
    ids, counts, y = (helper.make_tensor_value_info(n, t, (64,)) for n, t in (("ids", TensorProto.INT64), ("counts", TensorProto.INT64), ("y", TensorProto.FLOAT)))  # fmt: skip
    z = helper.make_tensor_value_info("z", TensorProto.INT64, (64,))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["y"]),
        helper.make_node("Add", ["counts", "counts"], ["z"]),
    ]
    graph = helper.make_graph(nodes, "words", [ids, counts], [y, z], [table])
    path = tmp_path / "words.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    found = {r["name"]: r for r in json.loads(tcomp("run", path, "--json"))}
    assert found["y"]["max"] > 4000 and found["y"]["min"] < 1000 and found["z"]["max"] == 2


def test_run_writes_results(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, 8)).astype("float32")
    given, out, both = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "all.npz"
    np.save(given, x)
    assert "float32[5, 3]" in tcomp("run", model, "--input", given, "--out", out, "-o", both)
    y = np.load(out)
    assert y.shape == (5, 3) and np.allclose(y.sum(1), 1, atol=1e-6) and np.array_equal(np.load(both)["y"], y)
    assert json.loads(tcomp("run", model, "--input", f"x={given}", "--json"))[0]["shape"] == [5, 3]
    assert not list(tmp_path.glob("*.part"))


def test_the_command_tells_of_mistakes_without_lines_of_code(model: Path, tmp_path: Path) -> None:
    script = tmp_path / "tcomp"  # as installers write it
    script.write_text("import sys\nfrom tcomp.cli import main\nsys.exit(main())\n")
    done = subprocess.run([sys.executable, script, "run", model, "--dims", "row=2"], capture_output=True, text=True)
    assert done.returncode == 1 and "no extent 'row'" in done.stderr
    assert "requested at" not in done.stderr and "Traceback" not in done.stderr


def test_check_and_profile(model: Path) -> None:
    found = json.loads(tcomp("check", model, "--dims", "rows=7", "--json"))
    assert found["results"][0]["error"] < 1e-6 and found["first"] is None
    assert [t["node"] for t in found["tensors"]] == ["first", "bend", "second", "last"]
    assert all(t["kernel"] for t in found["tensors"])
    rows = json.loads(tcomp("profile", model, "--json", "--repeat", 2))
    assert rows and all(r["seconds"] > 0 for r in rows)
    shown = tcomp("profile", model, "--top", 1).splitlines()
    micros = {line.split()[0]: float(line.split()[1]) for line in shown[1:]}
    *_, others, total = micros.values()
    assert len(micros) == 3 and list(micros)[-2:] == ["others", "total"] and 0 < others < total
    assert abs(sum(micros.values()) - 2 * total) < 0.1


def test_check_watches_the_threads_of_a_gpu(model: Path) -> None:
    found = json.loads(tcomp("check", model, "--dims", "rows=7", "--target", "cuda", "--race", "--json"))
    assert found["same"] and found["orders"] == ["forward", "backward", "shuffled"]
    assert found["launches"] and all(r["threads"] > 1 and r["kernel"] for r in found["launches"])
    done = CliRunner().invoke(cli.app, ["check", str(model), "--race"])
    assert done.exit_code == 2 and "cuda" in done.output


def test_bench_races_processes(model: Path) -> None:
    pytest.importorskip("onnxruntime")
    rows = json.loads(tcomp("bench", model, "--threads", "1", "--seconds", "0.1", "--json"))["rows"]
    assert [r["library"] for r in rows] == ["tcomp", "onnxruntime"] and all(r["error"] < 1e-5 for r in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--dims", "rows"), "cannot read 'rows'"),
        (("--dims", "rows=many"), "'many' is no number"),
        (("--dims", "columns=3"), "no extent 'columns'"),
        (("--input", "none.npy"), "cannot read none.npy"),
        (("--input", "z=x.npy"), "cannot read x.npy"),
    ],
)
def test_mistakes_are_told(model: Path, args: tuple, message: str) -> None:
    with pytest.raises(TcompError, match=message):
        tcomp("run", model, *args)
