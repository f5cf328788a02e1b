"""Damaged model files: each ends in a result or in a user's error."""

import os
from pathlib import Path

import numpy as np
import pytest

from tcomp.tools import model_fuzz

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small network with shape arithmetic, and one whose branch is taken at run time."""
    folder, r = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    weights = {
        "w": r.standard_normal((4, 3, 3, 3)).astype("float32"),
        "v": r.standard_normal((4, 5)).astype("float32"),
        "minus": np.array([-1, 4]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "minus"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    shapes = [("x", (1, 3, 6, 6)), ("y", (1, 5))]
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in shapes]
    graph = helper.make_graph(nodes, "net", *values, [numpy_helper.from_array(a, n) for n, a in weights.items()])
    parts = [
        helper.make_graph(
            [helper.make_node(op, ["x"], ["z"])],
            op,
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, (2, 3))],
        )
        for op in ("Exp", "Neg")
    ]
    branch = helper.make_node("If", ["b"], ["y"], then_branch=parts[0], else_branch=parts[1])
    inputs = [
        helper.make_tensor_value_info("b", TensorProto.BOOL, ()),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3)),
    ]
    both = helper.make_graph(
        [branch], "branch", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))]
    )
    found = []
    for g in (graph, both):
        path = folder / f"{g.name}.onnx"
        onnx.save(helper.make_model(g, opset_imports=[helper.make_opsetid("", 21)]), path)
        found.append(path)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.drawn(1 / 3)
def test_damaged_files_end_well(files: list[Path], seed: int, tmp_path: Path) -> None:
    before = dict(os.environ)
    ended = dict(model_fuzz.outcomes(files, 15, seed, keep=tmp_path))
    assert len(ended) == 15 and {o.kind for o in ended.values()} == {"result", "refused"}, ended
    assert not list(tmp_path.iterdir()) and dict(os.environ) == before


def test_what_ends_badly_is_told_and_kept(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is no user's error, an end of the process, a file that appears, too much time."""

    def fail(*args: object) -> None:
        raise KeyError("what")

    def write(*args: object) -> None:
        Path("left.txt").write_text("here")

    ways = {
        "defect": fail,
        "crash": lambda *a: model_fuzz.os.kill(model_fuzz.os.getpid(), 9),
        "wrote": write,
        "hang": lambda *a: model_fuzz.time.sleep(60),
    }
    for kind, act in ways.items():
        monkeypatch.setattr(model_fuzz, "LIMIT_SECONDS", 1 if kind == "hang" else 20)
        monkeypatch.setattr(model_fuzz, "source_of", act)
        ((name, outcome),) = model_fuzz.outcomes(files, 1, 7, keep=tmp_path / kind)
        assert outcome.kind == kind and name.startswith("7-0 of ")
        assert [p.name for p in (tmp_path / kind).iterdir()] == ["7-0.onnx"]
