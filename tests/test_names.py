"""Names that users choose: any text, in graphs, kernels, files and printed programs."""

from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp import config, te
from tcomp.errors import UnsupportedError
from tcomp.ir.names import plain_name, printable_name, unique_name
from tcomp.ops import GraphBuilder

NAMES = [
    "model",
    "/model/layer.0/Conv:0",
    "a\x00b",
    "n\nl",
    "x" * 5000,
    "../up",
    "",
    'q"uote',
    "back\\slash",
    "ünï",
    "lambda",
    "None",
]


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TCOMP_DUMP", str(tmp_path / "dump"))
    config.config.cache_clear()
    yield tmp_path / "dump"
    monkeypatch.undo()
    config.config.cache_clear()


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_graphs_inputs_and_constants_of_any_name(name: str, dump: Path) -> None:
    g = GraphBuilder(name)
    x = g.input(name, (3,))
    exe = tcomp.compile(g.build(g.exp(g.multiply(x, g.constant(np.zeros(3, "float32"), name)))))
    assert exe.inputs[0].name == name and np.array_equal(exe(np.ones(3, "float32")), [1, 1, 1])
    assert np.array_equal(exe(**{name: np.ones(3, "float32")}), [1, 1, 1])
    assert {p.parent for p in dump.rglob("*") if p.is_file()} == {dump}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_kernels_and_tensors_of_any_name(name: str, dump: Path) -> None:
    a, b = (te.placeholder((3,), name=name) for _ in range(2))
    c = te.compute((3,), lambda i: a[i] + b[i], name=name)
    exe = tcomp.compile(te.create_prim_func([a, b, c], name))
    assert np.array_equal(exe(np.ones(3, "float32"), np.ones(3, "float32")), [2, 2, 2])
    assert len(exe.ir("loops").splitlines()) == 4
    assert {p.parent for p in dump.rglob("*") if p.is_file()} == {dump}


def test_names_are_plain_printable_and_unique() -> None:
    assert plain_name("/model/Conv:0") == "_model_Conv_0" and plain_name("..") == plain_name("") == "unnamed"
    assert len(plain_name("x" * 5000)) == 60 and len(printable_name("x" * 5000)) < 200
    assert printable_name("a\nb") == "a\\nb" and printable_name("ünï") == "ünï"
    taken: set[str] = set()
    assert [unique_name("n", taken) for _ in range(3)] == ["n", "n_1", "n_2"]


@pytest.mark.parametrize("op", ["exp", "softmax", "matmul"])
def test_models_with_symbolic_extents_without_a_bound_are_refused_at_the_door(op: str) -> None:
    g = GraphBuilder()
    x = g.input("x", (te.var("n"), 4))
    module = g.build(g.matmul(x, g.constant(np.ones((4, 5), "float32"))) if op == "matmul" else g.op(op, x))
    with pytest.raises(UnsupportedError, match="symbolic extents that have no bound: x is"):
        tcomp.compile(module)
