"""Layouts of weights: what is asked, what may be answered, records that answer, and results that stay right."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Here

import tcomp
from tcomp.backends import backend_of
from tcomp.driver import lower
from tcomp.dtype import float32
from tcomp.errors import TcompError
from tcomp.schedule.rules.cpu.layout import CpuLayout
from tcomp.target import Target
from tcomp.tuner.database import Database, Key, Record
from tcomp.tuner.layouts import Layer, Question, TunedLayout, candidate_of, layers_of
from tcomp.tuner.measure import Interval
from tcomp.tuner.source import TunedSchedules
from tcomp.tuning.elsewhere import PROCESSES, ratios_elsewhere
from tcomp.tuning.layers import LayerTuner, only

CPU = Target.parse("cpu -num-cores=1")
LANES = CPU.lanes(4)


def network(rng: np.random.Generator) -> tcomp.IRModule:
    """Two equal 3 x 3 convolutions, one with a stride, one depthwise, a product, and a product of two operands that vary."""
    g = tcomp.GraphBuilder()

    def weight(*shape: int) -> Any:
        return g.constant((rng.standard_normal(shape) / math.sqrt(math.prod(shape[:-1]))).astype("float32"), "w")

    def conv(x: Any, w: Any, **how: Any) -> Any:
        return g.conv2d(x, w, layout="NHWC", kernel_layout="HWIO", **how)

    x = g.input("x", (1, 10, 10, 32))
    y = conv(conv(x, weight(3, 3, 32, 32), padding=1), weight(3, 3, 32, 32), padding=1)
    y = conv(y, weight(3, 3, 32, 48), padding=1, stride=2)
    y = conv(y, weight(3, 3, 1, 48), padding=1, groups=48)
    flat = g.matmul(g.reshape(y, shape=(25, 48)), weight(48, 40))
    return g.build(g.matmul(flat, g.transpose(flat, axes=(1, 0))))


def record(layer: Layer, tile: int, width: int) -> Record:
    key = Key.of(layer.question.key, CPU, 1)
    return Record(key, layer.name, candidate_of(tile, width), Interval(1.2, 1.3, 1.4), 1e-3, {})


def compiled(module: tcomp.IRModule, records: Database | str, **how: Any) -> tcomp.Executable:
    return tcomp.compile(module, target=CPU, num_threads=1, database=records, **how)


def test_layers_are_those_whose_weights_are_packed(rng: np.random.Generator) -> None:
    found = {(k.op, k.question.extents): k.calls for k in layers_of(network(rng))}
    assert found == {("conv2d", (1, 10, 10, 32)): 2, ("conv2d", (1, 5, 5, 48)): 1, ("matmul", (25, 40)): 1}


def test_a_question_is_asked_of_one_layer() -> None:
    """The plain convolution, where one with a stride has the same result and weight."""
    g = tcomp.GraphBuilder()
    w = g.constant(np.ones((3, 3, 32, 32), "float32"), "w")
    x, y = g.input("x", (1, 16, 16, 32)), g.input("y", (1, 8, 8, 32))
    how: dict[str, Any] = {"layout": "NHWC", "kernel_layout": "HWIO", "padding": 1}
    (layer,) = layers_of(g.build(g.add(g.conv2d(x, w, stride=2, **how), g.conv2d(y, w, **how))))
    assert layer.x.extents == (1, 8, 8, 32) and layer.calls == 1


def test_a_layer_alone_is_asked_the_same(rng: np.random.Generator) -> None:
    """Compiling the layer's own module asks the policy what it is known by: its record changes the packed weight."""
    for layer in layers_of(network(rng)):
        usual = layer.default(CpuLayout(CPU))
        other = next(c for c in layer.candidates(CPU, False) if c != usual)
        width = dict(other.decisions)["width"]
        low = lower(
            partial(layer.module, 0), backend_of(CPU), True, tuned=TunedSchedules(only(record(layer, 0, width)), 1)
        )
        packed = [c.shape for c in low.module.constants.values()]
        assert packed and all(s[-1] == width for s in packed), (layer, packed)


def test_candidates_hold_the_default_and_winograd_only_where_it_may_be(rng: np.random.Generator) -> None:
    plain, strided, product = layers_of(network(rng))
    for layer in (plain, strided, product):
        assert layer.default(CpuLayout(CPU)) in layer.candidates(CPU, True)
    tiles = [{dict(c.decisions)["tile"] for c in k.candidates(CPU, True)} for k in (plain, strided, product)]
    assert tiles == [{0, 2, 4}, {0}, {0}]
    assert {dict(c.decisions)["tile"] for c in plain.candidates(CPU, False)} == {0}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_layout_is_right(which: int, rng: np.random.Generator) -> None:
    """Each candidate of a layer, in the whole model, against float64."""
    module = network(rng)
    layer = layers_of(module)[which]
    x = rng.standard_normal((1, 10, 10, 32)).astype("float32")
    exact = tcomp.compile(module, target="reference")(x)
    seen = set()
    for c in layer.candidates(CPU, True):
        exe = compiled(module, only(record(layer, *dict(c.decisions).values())))
        seen.add(exe.ir("graph"))
        assert np.linalg.norm(exe(x) - exact) <= 2e-5 * np.linalg.norm(exact), c
    assert len(seen) == len(layer.candidates(CPU, True))


def test_records_that_make_no_sense_are_passed_over(rng: np.random.Generator) -> None:
    module = network(rng)
    layer = layers_of(module)[0]
    usual = compiled(module, "").ir("graph")
    strange: list[tuple[Any, Any]] = [(0, -LANES), (3, LANES), (0, LANES + 1), ("2", LANES), (0, None), (0, 10**9)]
    for tile, width in strange:
        assert compiled(module, only(record(layer, tile, width))).ir("graph") == usual
    other_rule = replace(record(layer, 0, LANES), candidate=replace(candidate_of(0, LANES), rule="rows"))
    assert compiled(module, only(other_rule)).ir("graph") == usual
    assert compiled(module, only(record(layer, 2, LANES)), winograd=False).ir("graph") == compiled(module, "", winograd=False).ir("graph")  # fmt: skip


def test_operands_that_vary_are_not_what_a_record_is_of(rng: np.random.Generator) -> None:
    q = Question((128, 256), (64, 256), float32)
    key = Key.of(q.key, CPU, 1)
    records = only(Record(key, "", candidate_of(0, LANES), Interval(1, 1, 1), 0.0, {}))
    tuned, usual = TunedLayout(CPU, database=records, threads=1), CpuLayout(CPU)
    asked = (q.extents, q.weight, q.dtype)
    assert tuned.panel(*asked) == LANES and tuned.panel_inside(*asked) == usual.panel_inside(*asked) != LANES


def pretend(monkeypatch: pytest.MonkeyPatch, depth: int, width: int, ratio: float) -> None:
    """Panels of one width look so much faster than the default, all others slower."""

    def seen(exes: Any) -> bool:
        return f"{depth}, {width}]" in exes[0].ir("graph")

    monkeypatch.setattr("tcomp.tuning.layers.pairs_of", lambda a, b, *_: [ratio if seen(b) else 0.9] * 5)
    monkeypatch.setattr("tcomp.tuning.layers.compare", lambda *_, **__: Interval(ratio - 0.05, ratio, ratio + 0.05))


def test_a_layout_that_is_faster_is_recorded_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    g = tcomp.GraphBuilder()
    w = g.constant(rng.standard_normal((64, 8 * LANES)).astype("float32"), "w")
    module = g.build(g.matmul(g.input("x", (40, 64)), w))
    (layer,) = layers_of(module)
    usual = dict(layer.default(CpuLayout(CPU)).decisions)["width"]
    width = LANES if usual != LANES else 2 * LANES
    pretend(monkeypatch, 64, width, 1.3)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(1.1, 1.2, 1.3))
    monkeypatch.setattr("tcomp.tuning.model.ratios_elsewhere", lambda *_: [1.1, 1.2])
    file = tmp_path / "tune.db"
    how: dict[str, Any] = {"target": CPU, "num_threads": 1, "executor": Here(), "trials": 1, "budget_s": 20}
    report = tcomp.tune(module, database=file, **how)
    (told,) = report.layers
    assert told.accepted == Interval(1.25, 1.3, 1.35) and told.changes == f"width {usual} -> {width}"
    assert f"width {usual} -> {width}" in str(report) and report.model == Interval(1.1, 1.2, 1.3)
    assert f"64, {width}]" in compiled(module, file).ir("graph")  # type: ignore[arg-type]
    trials = Database(file).trials(Key.of(layer.question.key, CPU, 1))
    assert {t.candidate for t in trials} == set(layer.candidates(CPU, True)) - {candidate_of(0, usual)}

    def tried(*_: Any) -> None:
        raise AssertionError("what was tried is not tried again")

    monkeypatch.setattr(LayerTuner, "_tried", tried)
    assert tcomp.tune(module, database=file, **how).layers[0].trials == told.trials
    assert tcomp.tune(module, layouts=False, **how).layers == ()


def all_faster(monkeypatch: pytest.MonkeyPatch) -> tcomp.IRModule:
    """A product, all layouts of which look faster than the default."""
    g = tcomp.GraphBuilder()
    w = g.constant(np.ones((64, 8 * LANES), "float32"), "w")
    module = g.build(g.matmul(g.input("x", (40, 64)), w))
    monkeypatch.setattr("tcomp.tuning.layers.pairs_of", lambda *_: [1.3] * 5)
    monkeypatch.setattr("tcomp.tuning.layers.compare", lambda *_, **__: Interval(1.25, 1.3, 1.35))
    return module


def test_layouts_of_a_model_that_does_not_gain_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = all_faster(monkeypatch)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(0.97, 1.01, 1.05))
    report = tcomp.tune(module, target=CPU, num_threads=1, executor=Here(), trials=1, database=tmp_path / "t.db")
    assert report.undone and report.layers[0].accepted is None and Database(tmp_path / "t.db").records() == []


def test_what_is_faster_in_this_process_alone_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = all_faster(monkeypatch)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(1.1, 1.2, 1.3))
    monkeypatch.setattr("tcomp.tuning.model.ratios_elsewhere", lambda *_: [1.2, 0.97])
    report = tcomp.tune(module, target=CPU, num_threads=1, executor=Here(), trials=1, database=tmp_path / "t.db")
    assert report.undone and Database(tmp_path / "t.db").records() == []
    assert "does not show in other processes: 1.200, 0.970" in str(report)


def test_other_processes_compare_what_they_are_given(rng: np.random.Generator) -> None:
    g = tcomp.GraphBuilder()
    x = g.input("x", (64, 128))
    once = tcomp.compile(g.build(g.tanh(x)), target=CPU)
    often = tcomp.compile(g.build(g.tanh(g.softmax(g.tanh(g.softmax(g.tanh(x)))))), target=CPU)
    ratios = ratios_elsewhere([often], [once], CPU, 1)
    assert len(ratios) == PROCESSES and all(1.2 < r < 50 for r in ratios)


def test_throughput_is_measured_by_copies_at_once() -> None:
    g = tcomp.GraphBuilder()
    module = g.build(g.softmax(g.input("x", (64, 96))))
    report = tcomp.tune(module, objective="throughput", executor=Here(), trials=8, budget_s=20)
    assert report.tasks[0].trials > 0
    with pytest.raises(TcompError, match="one thread"):
        tcomp.tune(module, objective="throughput", num_threads=2)
    with pytest.raises(TcompError, match="latency"):
        tcomp.tune(module, objective="speed")  # type: ignore[arg-type]


def test_what_saves_next_to_nothing_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the model's time looks by chance."""
    module = all_faster(monkeypatch)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(1.1, 1.2, 1.3))
    monkeypatch.setattr("tcomp.tuning.model.ratios_elsewhere", lambda *_: [1.1, 1.2])
    monkeypatch.setattr("tcomp.tuning.model.LEAST_GAIN", 0.5)  # this saves 23 %
    report = tcomp.tune(module, target=CPU, num_threads=1, executor=Here(), trials=1, database=tmp_path / "t.db")
    assert report.layers[0].accepted is None and Database(tmp_path / "t.db").records() == []
    assert "too little" in str(report) and report.model is None
