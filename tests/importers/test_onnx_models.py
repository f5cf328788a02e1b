"""ONNX models made by hand: names, open extents, inputs whose values decide extents, control flow, and what is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcomp
from tcomp.errors import InputError, ShapeError, TcompError, UnsupportedError
from tcomp.importers import load
from tcomp.importers.builder import FoldingBuilder
from tcomp.specialized import Specialized

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
R = np.random.default_rng(7)


def model(nodes: list, inputs: list, outputs: list, weights: dict | None = None, **more: Any) -> Any:
    """A ModelProto; inputs and outputs are (name, type, shape)."""
    tensors = [numpy_helper.from_array(a, k) for k, a in (weights or {}).items()]
    values = [[helper.make_tensor_value_info(*v) for v in part] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, more.pop("name", "tiny"), *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", more.pop("version", 21))], **more)


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> Any:
    """Names are separated by spaces, "-" is one that is not given."""
    names = [[n.replace("-", "") for n in part.split()] for part in (inputs, outputs)]
    return helper.make_node(op, *names, name=f"{op.lower()}_{outputs.split()[0]}", **attrs)


def mlp() -> tuple[Any, dict]:
    weights = {"w": R.standard_normal((8, 5)).astype("float32"), "b": R.standard_normal(5).astype("float32")}
    nodes = [
        node("MatMul", "x w", "h"),
        node("Add", "h b", "s"),
        node("Relu", "s", "y"),
        node("Softmax", "y", "p", axis=-1),
    ]
    return model(
        nodes, [("x", FLOAT, ("batch", 8))], [("y", FLOAT, ("batch", 5)), ("p", FLOAT, ("batch", 5))], weights
    ), weights


def expected(x: np.ndarray, weights: dict) -> np.ndarray:
    return np.maximum(x @ weights["w"] + weights["b"], 0)


def test_names_stay_and_extents_may_be_fixed() -> None:
    m, weights = mlp()
    exe = tcomp.compile(m, dims={"batch": 3})
    assert isinstance(exe, tcomp.Executable)
    assert [s.name for s in exe.inputs] == ["x"] and [s.name for s in exe.outputs] == ["y", "p"]
    x = R.standard_normal((3, 8)).astype("float32")
    y, _ = exe(x=x)
    np.testing.assert_allclose(y, expected(x, weights), rtol=1e-5, atol=1e-6)
    assert np.array_equal(exe.named(x)["y"], y)
    assert np.array_equal(tcomp.compile(m, shapes={"x": (3, 8)})(x)[0], y)
    assert np.array_equal(tcomp.compile(m, [x])(x)[0], y)


def test_open_extents_are_compiled_when_they_are_seen() -> None:
    m, weights = mlp()
    exe = tcomp.compile(m)
    assert isinstance(exe, Specialized) and "x: float32[batch, 8]" in repr(exe)
    with pytest.raises(UnsupportedError, match="extents of its inputs are open"):
        exe.export("net.so")
    for batch in (1, 4, 1):
        x = R.standard_normal((batch, 8)).astype("float32")
        np.testing.assert_allclose(exe(x)[0], expected(x, weights), rtol=1e-5, atol=1e-6)
    assert len(exe.compiled) == 2
    exe.limit = 2
    exe(np.zeros((7, 8), "float32"))
    assert len(exe.compiled) == 2 and exe.compiled[-1].inputs[0].shape == (7, 8)
    for args, named, message in [((), {}, "'x' is missing"), ((x, x), {}, "2 arguments"), ((), {"z": x}, "'z' is unknown"),
                                 ((x.astype("float64"),), {}, "dtype float64"), ((x[0],), {}, r"shape \[8\]")]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            exe(*args, **named)


def test_an_extent_up_to_a_bound_is_one_executable() -> None:
    m, weights = mlp()
    exe = tcomp.compile(m, dims={"batch": (1, 16)})
    assert isinstance(exe, tcomp.Executable)
    for batch in (1, 5, 16):
        x = R.standard_normal((batch, 8)).astype("float32")
        np.testing.assert_allclose(exe(x)[0], expected(x, weights), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="at most 16"):
        exe(np.zeros((17, 8), "float32"))


def test_arithmetic_of_symbolic_extents() -> None:
    nodes = [node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Mul", "n four", "m"), node("Unsqueeze", "m axis", "m1"),
             node("Concat", "m1 two", "t", axis=0), node("Reshape", "x t", "y")]  # fmt: skip
    weights = {"zero": np.array(0), "four": np.array(4), "axis": np.array([0]), "two": np.array([2])}
    m = model(nodes, [("x", FLOAT, ("n", 8))], [("y", FLOAT, ("m", 2))], weights)
    exe = tcomp.compile(m, dims={"n": (1, 6)})
    for n in (1, 3, 6):
        x = R.standard_normal((n, 8)).astype("float32")
        assert np.array_equal(exe(x), x.reshape(-1, 2))


def test_tensors_cut_and_counted_by_a_symbolic_extent() -> None:
    """Positions up to the length at hand: a part of a table, and numbers that are counted."""
    nodes = [node("Shape", "x", "s", start=1, end=2), node("Slice", "table zero1 s one1", "part"), node("Squeeze", "s", "n"), node("Range", "zero n one", "r"),
             node("Cast", "r", "f", to=FLOAT), node("Add", "x part", "a"), node("Add", "a f", "b"), node("Slice", "b minus end one1", "y"),
             node("Shape", "b", "bs"), node("Equal", "bs minus", "unknown"), node("Shape", "bs", "rank"), node("ConstantOfShape", "rank", "ones", value=numpy_helper.from_array(np.array([1]))),
             node("Where", "unknown ones bs", "wide"), node("Expand", "half wide", "z")]  # fmt: skip
    table = R.standard_normal((1, 9)).astype("float32")
    weights = {"table": table, "zero1": np.array([0]), "one1": np.array([1]), "zero": np.array(0), "one": np.array(1), "minus": np.array([-1]),
               "end": np.array([2**62]), "half": np.array([[0.5]], "float32")}  # fmt: skip
    m = model(nodes, [("x", FLOAT, (2, "n"))], [("y", FLOAT, (2, 1)), ("z", FLOAT, (2, "n"))], weights)
    exe = tcomp.compile(m, dims={"n": (1, 9)})
    assert isinstance(exe, tcomp.Executable)
    for n in (1, 4, 9):
        x = R.standard_normal((2, n)).astype("float32")
        y, z = exe(x)
        np.testing.assert_allclose(y, (x + table[:, :n] + np.arange(n, dtype="float32"))[:, -1:], rtol=1e-6)
        assert np.array_equal(z, np.full((2, n), 0.5))


def test_values_that_many_nodes_share_are_computed_once() -> None:
    """Sixty sums of a tensor with itself: as a tree, 2^60 of them."""
    g = FoldingBuilder()
    x = g.constant(np.ones(1 << 15, "float32"))
    for _ in range(60):
        x = g.add(x, x)
    found = g.computed(g.slice(x, begin=(0,), end=(2,)))
    assert found is not None and found.tolist() == [2.0**60] * 2
    assert g.computed(g.add(x, g.input("y", (1 << 15,)))) is None


def test_inputs_whose_values_decide_extents() -> None:
    m = model([node("Reshape", "x s", "y")], [("x", FLOAT, (4, 6)), ("s", INT64, (2,))], [("y", FLOAT, ("a", "b"))])
    exe = tcomp.compile(m)
    x = R.standard_normal((4, 6)).astype("float32")
    for shape in ((3, 8), (24, 1), (2, -1)):
        assert np.array_equal(exe(x, np.array(shape)), x.reshape(shape))
    with pytest.raises(TcompError, match="cannot be read without the values of s"):
        load(m)
    assert load(m, values={"s": np.array([8, 3])}).main.results[0].type.shape == (8, 3)


def _branch(name: str, op: str) -> Any:
    return helper.make_graph([node(op, "x", name)], name, [], [helper.make_tensor_value_info(name, FLOAT, (3,))])


def test_branches() -> None:
    m = model([node("If", "c", "y", then_branch=_branch("t", "Relu"), else_branch=_branch("e", "Neg"))],
              [("c", BOOL, ()), ("x", FLOAT, (3,))], [("y", FLOAT, (3,))])  # fmt: skip
    exe, x = tcomp.compile(m), np.array([-1.0, 2.0, -3.0], "float32")
    assert isinstance(exe, tcomp.Executable)
    assert np.array_equal(exe(np.array(True), x), [0, 2, 0]) and np.array_equal(exe(np.array(False), x), [1, -2, 3])
    known = load(m, values={"c": np.array(True)})
    assert [b.call.op for b in known.main.bindings] == ["relu"]


def _loop(trips: Any, *, stop: float | None = None) -> Any:
    """total += i in each trip; rows of totals; may stop when the total reaches a number."""
    nodes = [node("Cast", "i", "f", to=FLOAT), node("Add", "total f", "next")]
    nodes.append(node("Identity", "go", "on") if stop is None else node("Less", "next limit", "on"))
    nodes.append(node("Identity", "next", "row"))
    types = [("i", INT64, ()), ("go", BOOL, ()), ("total", FLOAT, ())]
    made = [("on", BOOL, ()), ("next", FLOAT, ())] + ([("row", FLOAT, ())] if stop is None else [])
    body = helper.make_graph(
        nodes, "body", *([helper.make_tensor_value_info(*v) for v in part] for part in (types, made))
    )
    weights = {"n": np.array(trips), "yes": np.array(True), "limit": np.array(stop or 0, "float32")}
    outputs = [("y", FLOAT, ())] + ([("rows", FLOAT, (trips,))] if stop is None else [])
    return model(
        [node("Loop", "n yes x", " ".join(o[0] for o in outputs), body=body)], [("x", FLOAT, ())], outputs, weights
    )


def test_loops() -> None:
    x = np.float32(2)
    total, rows = tcomp.compile(_loop(5))(np.array(x))
    assert total == 12 and np.array_equal(rows, 2 + np.cumsum(np.arange(5.0)))
    assert tcomp.compile(_loop(100, stop=20.0))(np.array(x)) == 23  # 2 + 1 + ... + 6
    assert "scan" in tcomp.compile(_loop(5)).ir("graph")


def test_functions_of_the_model_and_the_standard() -> None:
    f = helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 21)])
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["h"], domain="own"), node("MeanVarianceNormalization", "h", "y", axes=[0])],
                              "f", [helper.make_tensor_value_info("x", FLOAT, (9,))], [helper.make_tensor_value_info("y", FLOAT, (9,))])  # fmt: skip
    m = helper.make_model(
        graph, functions=[f], opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    )
    x = R.standard_normal(9).astype("float32")
    np.testing.assert_allclose(tcomp.compile(m)(x), (x - x.mean()) / x.std(), rtol=1e-4, atol=1e-5)


def test_all_that_cannot_be_compiled_is_told_at_once() -> None:
    nodes = [node("NonZero", "x", "a"), node("Cast", "a", "b", to=FLOAT), node("Gizmo", "b", "c"), node("Relu", "x", "y"),
             node("LeakyRelu", "x", "z", wobble=3)]  # fmt: skip
    m = model(nodes, [("x", FLOAT, (4,))], [("y", FLOAT, (4,)), ("c", FLOAT, ("k",)), ("z", FLOAT, (4,))])
    with pytest.raises(UnsupportedError) as error:
        tcomp.compile(m)
    text = str(error.value)
    assert "2 problems" in text and "nonzero_a" in text and "attribute 'wobble' of LeakyRelu is not read" in text
    sparse = model([node("Add", "x w", "y")], [("x", FLOAT, (4,))], [("y", FLOAT, (4,))])
    values = [numpy_helper.from_array(a, n) for a, n in ((np.ones(1, "float32"), "w"), (np.array([2]), "places"))]
    sparse.graph.sparse_initializer.add().CopyFrom(helper.make_sparse_tensor(*values, [4]))
    with pytest.raises(UnsupportedError, match="initializer w: sparse tensors"):
        tcomp.compile(sparse)
    texts = model([node("Identity", "s", "t")], [("s", TensorProto.STRING, (1,))], [("t", TensorProto.STRING, (1,))])
    with pytest.raises(UnsupportedError, match="STRING"):
        tcomp.compile(texts)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Relu", "h", "y"), node("Neg", "x", "h")], "'h' is used and not defined"),
        ([node("Add", "x y", "y")], "'y' is used and not defined"),
        ([node("Relu", "x", "y"), node("Neg", "x", "y")], "'y' is defined twice"),
        ([node("Relu", "x", "z")], "'y' is used and not defined"),
        ([node("Add", "x missing", "y")], "'missing' is used"),
        ([node("Transpose", "x", "y", perm=[0, 0])], "no permutation"),
        ([node("Softmax", "x", "y", axis=9)], "out of range"),
        ([node("Relu", "-", "y")], "lacks its input 0"),
        ([node("Concat", "x x", "y", axis=0.5)], "expected int"),
    ],
)
def test_models_that_do_not_fit_together(nodes: list, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tcomp.compile(model(nodes, [("x", FLOAT, (2, 3))], [("y", FLOAT, (2, 3))]))


def test_files(tmp_path: Path) -> None:
    m, weights = mlp()
    path = tmp_path / "m.onnx"
    onnx.save(m, path)
    x = R.standard_normal((2, 8)).astype("float32")
    np.testing.assert_allclose(tcomp.compile(path)(x)[0], expected(x, weights), rtol=1e-5, atol=1e-6)
    for broken in (path.read_bytes()[:-30], b"no model", b""):
        path.write_bytes(broken)
        with pytest.raises(TcompError):
            tcomp.compile(path)(x)
    os.mkfifo(tmp_path / "pipe.onnx")  # nobody will ever write to it
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    for name, message in [("none.onnx", "cannot read"), ("model.bin", "ends in .onnx"), ("/dev/zero", "ends in .onnx"),
                          ("pipe.onnx", "no regular file"), ("zero.onnx", "no regular file"), ("", "ends in .onnx")]:  # fmt: skip
        with pytest.raises(TcompError, match=message):
            tcomp.compile(tmp_path / name)


def test_weights_beside_the_file(tmp_path: Path) -> None:
    m, weights = mlp()
    path = tmp_path / "m.onnx"
    onnx.save_model(m, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = R.standard_normal((2, 8)).astype("float32")
    np.testing.assert_allclose(tcomp.compile(path)(x)[0], expected(x, weights), rtol=1e-5, atol=1e-6)
    outside = onnx.load(path, load_external_data=False)
    for place in ("../weights.bin", "/dev/zero", "gone.bin", ""):
        for t in outside.graph.initializer:
            next(e for e in t.external_data if e.key == "location").value = place
        (tmp_path / "bad.onnx").write_bytes(outside.SerializeToString())
        with pytest.raises(TcompError, match="no file in the model's folder"):
            tcomp.compile(tmp_path / "bad.onnx")


def test_values_outside_of_the_folder_are_refused_wherever_they_stand() -> None:
    """In a constant of a node, and in a model that no file is known of."""
    t = numpy_helper.from_array(np.ones(3, "float32"), "w")
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    t.external_data.add(key="location", value="pyproject.toml")
    inside = model(
        [node("Constant", "", "w", value=t), node("Add", "x w", "y")], [("x", FLOAT, (3,))], [("y", FLOAT, (3,))]
    )
    beside = model([node("Add", "x w", "y")], [("x", FLOAT, (3,))], [("y", FLOAT, (3,))])
    beside.graph.initializer.add().CopyFrom(t)
    for m in (inside, beside):
        with pytest.raises(ShapeError, match="no file in the model's folder"):
            tcomp.compile(m)


@pytest.mark.parametrize(
    ("size", "beta", "bias", "shape"),
    [(5, 0.75, 1.0, (2, 7, 5, 3)), (4, 0.5, 2.0, (1, 9, 4)), (3, 0.25, 1.0, (1, 5, 6, 6)), (3, 0.6, 1.0, (1, 6, 3, 5)), (3, 0.75, -0.01, (1, 6, 3, 5))],
)  # fmt: skip
def test_local_response_normalization(size: int, beta: float, bias: float, shape: tuple) -> None:
    """Of a base that may be negative, the power is NaN."""
    m = model(
        [node("LRN", "x", "y", size=size, alpha=0.1, beta=beta, bias=bias)],
        [("x", FLOAT, shape)],
        [("y", FLOAT, shape)],
    )
    x = R.standard_normal(shape).astype("float32")
    wide, before = x.astype("float64"), (size - 1) // 2
    near = [(wide[:, max(0, i - before) : i + size - before] ** 2).sum(1) for i in range(shape[1])]
    with np.errstate(invalid="ignore"):
        want = wide / (bias + 0.1 / size * np.stack(near, 1)) ** beta
    np.testing.assert_allclose(tcomp.compile(m)(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", [b"MatMul", b"matmul_h", b"batch", b"tiny", b"axis", b"\x0a\x01x"])
def test_texts_that_are_none_are_refused(place: bytes) -> None:
    """Of operators, nodes, extents, graphs, attributes, values: protobuf hands bytes out where they are no UTF-8."""
    m, _ = mlp()
    data = m.SerializeToString()
    assert place in data
    damaged = onnx.ModelProto()
    damaged.ParseFromString(data.replace(place, place[:-1] + b"\xff"))
    with pytest.raises(ShapeError, match=r"\.\w+ is no text"):
        tcomp.compile(damaged, dims={"batch": 2})


def test_dims_and_shapes_are_checked() -> None:
    m, _ = mlp()
    for how, message in [({"dims": {"size": 3}}, "no extent 'size'"), ({"shapes": {"z": (1,)}}, "no input 'z'"), ({"dims": {"batch": -1}}, "-1"),
                         ({"shapes": {"x": (3, 9)}}, r"shape \[3, 9\]"), ({"dims": {"batch": (5, 2)}}, r"\(5, 2\)")]:  # fmt: skip
        with pytest.raises(ShapeError, match=message):
            tcomp.compile(m, **how)
    with pytest.raises(TcompError, match="for models from elsewhere"):
        tcomp.compile(load(m, dims={"batch": 2}), dims={"batch": 2})


def test_an_operator_means_what_its_version_says() -> None:
    """Operators change with their version: softmax up to 12 takes all axes from the given one on."""
    x = R.standard_normal((2, 3, 4)).astype("float32")
    e = np.exp(x - x.max())
    for version, want in ((11, e / e.sum((1, 2), keepdims=True)), (13, e / e.sum(1, keepdims=True))):
        m = model(
            [node("Softmax", "x", "y", axis=1)], [("x", FLOAT, (2, 3, 4))], [("y", FLOAT, (2, 3, 4))], version=version
        )
        np.testing.assert_allclose(tcomp.compile(m)(x), want, rtol=1e-5)
