"""WebAssembly modules, run by Node.js."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from exported_models import MODELS
from typer.testing import CliRunner

import tcomp
from tcomp import cli
from tcomp.errors import UnsupportedError
from tcomp.export.wasm import TARGET

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or importlib.util.find_spec("ziglang") is None, reason="no Node.js or no ziglang"
)
RUN = r"""
import fs from "node:fs";
import { load, inputs, outputs } from "./net.mjs";

const kinds = { float32: Float32Array, int64: BigInt64Array };
const bytes = fs.readFileSync("x.bin");
const x = new kinds[inputs[0].dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const net = await load(process.argv[2] === "bytes" ? fs.readFileSync("net.wasm") : undefined);
const told = { inputs, outputs, error: net.selftest(), refused: [] };
const first = net.run({ [inputs[0].name]: x })[outputs[0].name];
told.again = net.run({ [inputs[0].name]: x })[outputs[0].name].every((v, i) => v === first[i]);
for (const wrong of [{}, { [inputs[0].name]: x.slice(1) }, { [inputs[0].name]: [...x] }, { [inputs[0].name]: x, more: x },
                     { [inputs[0].name]: x.map(() => (inputs[0].dtype === "int64" ? 40n : NaN)) }])
  try {
    net.run(wrong);
    told.refused.push("");
  } catch (error) {
    told.refused.push(error.message);
  }
fs.writeFileSync("y.bin", new Uint8Array(first.buffer));
console.log(JSON.stringify(told));
"""


@pytest.mark.parametrize("source", ["", "bytes"])
@pytest.mark.parametrize("key", MODELS)
def test_node_gets_the_same_results(key: str, source: str, tmp_path: Path) -> None:
    model, x = MODELS[key]
    exe = tcomp.compile(model, [x], target=TARGET)
    written = exe.export(tmp_path / "net.wasm", format="wasm")
    assert [p.name for p in written] == ["net.wasm", "net.mjs"]
    (tmp_path / "run.mjs").write_text(RUN)
    x.tofile(tmp_path / "x.bin")
    done = subprocess.run([NODE, "run.mjs", source], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    want = tcomp.compile(model, [x])(x)
    got = np.fromfile(tmp_path / "y.bin", want.dtype).reshape(want.shape)
    assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want) and told["error"] <= 1e-6 and told["again"]
    assert [i["name"] for i in told["inputs"]] == [s.name for s in exe.inputs]
    assert told["outputs"][0]["shape"] == list(want.shape)
    missing, short, plain, unknown, values = told["refused"]
    assert all(f"[{', '.join(map(str, x.shape))}]" in m for m in (missing, short, plain)) and "more" in unknown
    assert values == ("an index in an input is out of range" if key == "words" else "")


def test_code_for_another_machine_is_refused(tmp_path: Path) -> None:
    model, x = MODELS["cnn"]
    with pytest.raises(UnsupportedError, match="wasm32"):
        tcomp.compile(model, [x]).export(tmp_path / "net.wasm", format="wasm")
    for format in ("shared", "object"):
        with pytest.raises(UnsupportedError, match="wasm"):
            tcomp.compile(model, [x], target=TARGET).export(tmp_path / "net.so", format=format)
    assert not list(tmp_path.iterdir())


def test_the_command_compiles_for_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [[helper.make_tensor_value_info(n, kind, ("rows", 4))] for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "soft", *values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "soft.onnx")
    words = ["compile", str(tmp_path / "soft.onnx"), "--dims", "rows=3", "-o", str(tmp_path), "--format", "wasm"]
    told = CliRunner().invoke(cli.app, words)
    assert told.exit_code == 0 and (tmp_path / "soft.wasm").is_file() and (tmp_path / "soft.mjs").is_file(), told.output
