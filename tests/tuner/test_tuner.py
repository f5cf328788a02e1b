"""The tuner's parts: spaces, workers, measuring, search, records; and the whole on small kernels."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Here, adds, eats, ends, fails, hangs, kernels, product, softmax
from typer.testing import CliRunner

import tcomp
from tcomp import cli
from tcomp.backends.workers import WorkerError
from tcomp.driver import as_module
from tcomp.errors import ScheduleError, TcompError, UnsupportedError
from tcomp.schedule.rules.default import default_schedule
from tcomp.target import Target
from tcomp.tools.fuzz import agree, make_inputs
from tcomp.tuner.build import Built, LocalExecutor, build
from tcomp.tuner.cost_model import RidgeModel
from tcomp.tuner.database import Database, Key, Record, Trial
from tcomp.tuner.measure import Arrays, Bench, Interval, Loaded, interval_of, race
from tcomp.tuner.search import Evolution
from tcomp.tuner.space import Candidate, Space, candidate_of, differences
from tcomp.tuner.task import Task, kernel_key
from tcomp.tuner.tuner import Tuner

CPU = Target.parse("cpu")
KERNELS = {**kernels(softmax()), **kernels(product())}


# spaces


@pytest.mark.parametrize("name", KERNELS)
def test_the_default_is_the_default_schedules_plan(name: str) -> None:
    space, found = Space(KERNELS[name], CPU), default_schedule(KERNELS[name], CPU)
    assert space.default == candidate_of(found.origin, found.plan) and space.plan(space.default) == found.plan
    assert str(space.schedule(space.default).trace) == str(found.schedule.trace)
    assert space.size > 1 and space.default.rule in space.rules


@pytest.mark.parametrize("name", KERNELS)
def test_candidates_go_to_text_and_back(name: str, rng: np.random.Generator) -> None:
    space = Space(KERNELS[name], CPU)
    for _ in range(30):
        c = space.random(rng)
        assert Candidate.from_json(c.to_json()) == c
        for rule, key in ((c.rule, n) for n, _ in c.decisions):
            assert dict(c.decisions)[key] in space.values(rule, key)


def test_neighbours_differ_in_one_decision_and_children_in_few(rng: np.random.Generator) -> None:
    space = Space(KERNELS["matmul_relu"], CPU)
    near = list(space.neighbours(space.default))
    assert len(set(near)) == len(near) > 5
    for c in near:
        assert c.rule != space.default.rule or len(differences(c, space.default)) == 1
    for _ in range(20):
        assert len(differences(space.mutated(space.default, rng, 2), space.default)) <= 2
        a, b = (space.mutated(space.default, rng, 4) for _ in range(2))
        child = dict(space.crossed(a, b, rng).decisions)
        assert all(child[n] in (dict(a.decisions)[n], dict(b.decisions)[n]) for n in child)


@pytest.mark.parametrize(
    "text",
    ['{"rule": "rows"}', "[]", "text", '{"rule": 3, "decisions": {}}', '{"rule": "rows", "decisions": []}', '{"rule": "rows", "decisions": 7'],
)  # fmt: skip
def test_text_that_is_no_candidate(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Candidate.from_json(text)


def test_what_is_not_legal_is_refused() -> None:
    space = Space(KERNELS["softmax"], CPU)
    first, *rest = space.default.decisions
    for bad in (
        Candidate("no such rule", space.default.decisions),
        Candidate(space.default.rule, tuple(rest)),
        Candidate(space.default.rule, ((first[0], "nonsense"), *rest)),
        Candidate(space.default.rule, (*space.default.decisions, ("more", 1))),
    ):
        with pytest.raises(ScheduleError, match="no legal value|does not apply"):
            space.schedule(bad)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] if s > 5 else []) for s in range(40)])
def test_any_candidate_is_refused_or_right(name: str, seed: int) -> None:
    """Random decisions of all rules."""
    func, rng = KERNELS[name], np.random.default_rng(seed)
    space = Space(func, CPU)
    try:
        scheduled = space.schedule(space.random(rng))
    except ScheduleError:
        return
    inputs = make_inputs(func, seed)
    assert agree(tcomp.compile(scheduled, num_threads=2)(*inputs), tcomp.compile(func, num_threads=1)(*inputs))


def test_kernels_are_known_by_what_they_compute() -> None:
    again, other = kernels(softmax())["softmax"], kernels(softmax(64, 97))["softmax"]
    assert kernel_key(again) == kernel_key(KERNELS["softmax"]) != kernel_key(other)


# workers


@pytest.fixture(scope="module")
def workers() -> LocalExecutor:
    with LocalExecutor(2, limit_s=3.0) as found:
        yield found


def test_calls_run_elsewhere(workers: LocalExecutor) -> None:
    assert [f.result() for f in [workers.submit(adds, i, b=1) for i in range(6)]] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(WorkerError, match="ValueError: no"):
        workers.submit(fails).result()
    assert workers.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize(("lost", "error"), [(ends, OSError), (hangs, TimeoutError), (eats, WorkerError)])
def test_a_call_that_is_lost_is_lost_alone(lost: object, error: type, workers: LocalExecutor) -> None:
    futures = [workers.submit(adds, 1, 1), workers.submit(lost), workers.submit(adds, 2, 2), workers.submit(adds, 3, 3)]
    with pytest.raises(error):
        futures[1].result(20)
    assert [f.result(20) for f in (futures[0], *futures[2:])] == [2, 4, 6]


def test_building_tells_what_is_refused(workers: LocalExecutor) -> None:
    func, space = KERNELS["softmax"], Space(KERNELS["softmax"], CPU)
    built = workers.submit(build, func, CPU, space.default).result()
    assert built.code[:4] == b"\x7fELF" and built.symbol.startswith("k_") and built.program
    assert "does not apply" in build(func, CPU, Candidate("no such rule", ())).reason


# measuring


def test_intervals_hold_the_median() -> None:
    """With at least 95 % of samples, by simulation; few numbers bound nothing."""
    rng = np.random.default_rng(0)
    for n in (6, 9, 25, 45):
        inside = 0
        for _ in range(2000):
            found = interval_of(rng.lognormal(0.1, 0.5, n).tolist())
            inside += found.low <= math.exp(0.1) <= found.high
            assert found.low <= found.middle <= found.high
        assert inside >= 0.945 * 2000
    assert interval_of([1.0, 2.0, 3.0]) == Interval(0.0, 2.0, math.inf)
    assert interval_of([2.0] * 6) == Interval(2.0, 2.0, 2.0) and interval_of([]).middle == 1.0


def test_arrays_are_where_they_were_asked_for() -> None:
    task = Task(KERNELS["matmul_relu"], CPU)
    places = [[a.ctypes.data % 4096 for a in Arrays(task, 0, place).arrays] for place in range(5)]
    assert len({tuple(p) for p in places}) == 5
    assert all(p % 64 == (16 if place % 2 else 0) for place, row in enumerate(places) for p in row)
    first, second = Arrays(task, 7), Arrays(task, 7, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first.inputs, second.inputs)) and first.outputs[0].shape == (24, 40)


def test_what_is_faster_at_cache_lines_alone_is_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that vectors across two lines slow down; the same without that; both are twice as fast at a line's begin."""
    task = Task(KERNELS["matmul_relu"], CPU)
    assert task.space.default is not None
    default = build(task.func, CPU, task.space.default)
    delicate, sturdy = (replace(default, symbol=s) for s in ("delicate", "sturdy"))

    def load(self: Arrays, built: Built, threads: int | None, limit_s: float = math.inf) -> Loaded:
        loaded = Loaded(built, lambda: None)
        seconds = 1.0
        if built is not default:
            is_crossed = self.arrays[0].ctypes.data % 64 and built is delicate
            seconds = 1.3 if is_crossed else 0.5
        loaded.turn = lambda: seconds  # type: ignore[method-assign]
        return loaded

    monkeypatch.setattr(Arrays, "load", load)
    bench = Bench(task, default, 1)
    assert bench.ratio(delicate, 1.0) == bench.ratio(sturdy, 1.0) == 2.0
    assert bench.confirm(sturdy).is_steady and not bench.confirm(delicate).is_steady


def test_a_race_sees_who_is_faster() -> None:
    """The same code beside itself, and beside twice of it."""
    task = Task(KERNELS["softmax"], CPU)
    arrays = Arrays(task, 0)
    code = build(task.func, CPU, task.space.default)
    one, two = (arrays.load(code, 1) for _ in range(2))
    once = two.run
    two.run = lambda: (once(), once())[0]
    assert interval_of(race(one, two, 15)).middle < 0.7
    assert len(race(one, two, 15, give_up=0.55)) == 3 and len(race(one, two, 15, give_up=0.9)) == 1


# search


def test_a_small_space_is_searched_whole_and_nothing_is_proposed_twice() -> None:
    space = Space(KERNELS["softmax"], CPU)
    search, seen = Evolution(space), set()
    while (wanted := search.propose(5)) and len(seen) < 2000:
        for c in wanted:
            assert c not in seen and c != space.default
            seen.add(c)
            search.tell(Trial(c, c.to_json(), 0.5))
    assert search.is_done and len(seen) == space.size - 1
    again = Evolution(space, before=list(search.tried.values()))
    assert again.is_done and not again.propose(5)


def test_a_search_ends_when_all_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a model ranks, too."""
    monkeypatch.setattr("tcomp.tuner.search.SMALL", 0)
    search = Evolution(Space(KERNELS["softmax"], CPU), model=RidgeModel())
    while wanted := search.propose(16):
        for c in wanted:
            search.tell(Trial(c, c.to_json(), 0.5 + 0.001 * len(search.tried)))
    assert len(search.tried) > 24 and search.predictions


def test_the_search_finds_what_is_best(rng: np.random.Generator) -> None:
    """Of a made-up cost, in far fewer trials than there are candidates."""
    space = Space(KERNELS["matmul_relu"], CPU)
    goal = space.random(np.random.default_rng(4))
    while goal.rule != space.default.rule:
        goal = space.random(np.random.default_rng(int(rng.integers(1 << 30))))

    def speed(c: Candidate) -> float:
        return 0.1 if c.rule != goal.rule else 2 - 0.1 * len(differences(c, goal))

    search = Evolution(space)
    for _ in range(60):
        for c in search.propose(8):
            search.tell(Trial(c, c.to_json(), speed(c)))
    assert search.best(1)[0].ratio >= 1.8 and space.size > 5000
    ratios = [t.ratio for t in search.best(6)]
    assert ratios == sorted(ratios, reverse=True)


# records


def record_of(name: str, low: float, key: Key | None = None) -> Record:
    space = Space(KERNELS[name], CPU)
    where = key or Key.of(kernel_key(KERNELS[name]), CPU, 1)
    return Record(where, name, space.default, Interval(low, low + 0.1, low + 0.2), 1e-6, {"load": 0.5})


def test_records_are_kept_and_only_better_ones_replace_them(tmp_path: Path) -> None:
    records = Database(tmp_path / "tune.db")
    first = record_of("softmax", 1.1)
    assert records.record(first.key) is None and records.accept(first)
    assert not records.accept(record_of("softmax", 1.05)) and records.accept(record_of("softmax", 1.2))
    found = Database(tmp_path / "tune.db").record(first.key)
    assert found is not None and found.ratio.low == 1.2 and found.candidate == first.candidate and found.made > 0
    records.accept(record_of("matmul_relu", 1.3))
    other = Database(tmp_path / "other.db")
    assert other.merge(records) == 2 and other.merge(records) == 0
    assert [r.name for r in other.records()] == ["matmul_relu", "softmax"]
    other.forget(first.key)
    assert len(other.records()) == 1


def test_trials_are_kept_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    records, space = Database(tmp_path / "tune.db"), Space(KERNELS["softmax"], CPU)
    key = Key.of("k", CPU, None)
    trials = [Trial(c, f"p{i}", None if i % 3 else 1.5, "no" if i % 3 else "") for i, c in enumerate(space.neighbours(space.default))]  # fmt: skip
    records.add(key, trials[:2])
    records.add(key, trials[2:])
    assert Database(tmp_path / "tune.db").trials(key) == trials
    assert records.trials(replace(key, threads=2)) == []


def test_files_that_are_no_records_are_refused_and_left_alone(tmp_path: Path) -> None:
    text, foreign, later = (tmp_path / n for n in ("text.db", "foreign.db", "later.db"))
    text.write_bytes(b"this is no database" * 100)
    with sqlite3.connect(foreign) as c:
        c.execute("CREATE TABLE people (name TEXT)")
    with sqlite3.connect(later) as c:
        c.execute("PRAGMA user_version = 99")
    for file in (text, foreign, later):
        before = file.read_bytes()
        with pytest.raises(TcompError, match=file.name):
            Database(file)
        assert file.read_bytes() == before
    with pytest.raises(TcompError, match="records"):
        Database(tmp_path / "no" / "folder.db")
    with pytest.raises(TcompError, match="no database of records"):
        tcomp.compile(softmax(), database=tmp_path / "missing.db")


def test_a_file_of_the_first_version_is_read_and_goes_on(tmp_path: Path) -> None:
    """Its records have no steps."""
    file = tmp_path / "tune.db"
    old = record_of("softmax", 1.1)
    Database(file).accept(old)
    with sqlite3.connect(file) as c:
        c.execute("ALTER TABLE records DROP COLUMN trace")
        c.execute("PRAGMA user_version = 1")
    records = Database(file)
    assert [(r.candidate, r.ratio, r.trace) for r in records.records()] == [(old.candidate, old.ratio, "")]
    assert (
        records.accept(replace(record_of("softmax", 1.2), trace="steps"))
        and Database(file).records()[0].trace == "steps"
    )


def test_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    records = Database(tmp_path / "tune.db")
    records.accept(record_of("softmax", 1.1))
    with sqlite3.connect(tmp_path / "tune.db") as c:
        c.execute("UPDATE records SET candidate = 'nonsense'")
    assert records.records() == [] and records.record(record_of("softmax", 1.1).key) is None
    exe = tcomp.compile(softmax(), num_threads=1, database=records)
    assert "tuned" not in exe.explain()


WRITER = """
import sys, time
sys.path[:0] = sys.argv[2:4]
from test_tuner import *
records, space, rng = Database(sys.argv[1]), Space(KERNELS["softmax"], CPU), np.random.default_rng(int(sys.argv[4]))
print("ready", flush=True)
for number in range(100000):
    c = space.random(rng)
    records.add(Key.of(sys.argv[4], CPU, None), [Trial(c, str(number), 1.0)])
    records.accept(record_of("softmax", 1 + number * 1e-6, Key.of(sys.argv[4], CPU, None)))
"""


def test_writers_that_are_killed_leave_whole_records(tmp_path: Path) -> None:
    """Two at once on one file, ended at any moment."""
    file, root = tmp_path / "tune.db", Path(__file__).parents[2]
    for _ in range(3):
        words = [sys.executable, "-c", WRITER, str(file), str(Path(__file__).parent), str(root)]
        writers = [subprocess.Popen([*words, str(n)], stdout=subprocess.PIPE, text=True) for n in (1, 2)]
        for w in writers:
            assert w.stdout.readline() == "ready\n"
        time.sleep(0.3)
        for w in writers:
            w.send_signal(signal.SIGKILL)
            w.wait()
            w.stdout.close()
    records = Database(file)
    with sqlite3.connect(file) as c:
        assert c.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(records.records()) == 2 and all(records.trials(Key.of(n, CPU, None)) for n in "12")


# the whole


def tune(module: tcomp.IRModule, **how: object) -> object:
    return tcomp.tune(module, num_threads=1, executor=how.pop("executor", Here()), **{"budget_s": 30, **how})


def test_a_kernel_is_tuned_and_its_record_used(tmp_path: Path) -> None:
    """Whatever this machine finds: what is accepted is in the report, in the file, and in what is compiled."""
    module, file = softmax(200, 333), tmp_path / "tune.db"
    seen = []
    report = tune(module, database=file, budget_s=4, progress=lambda states, spent: seen.append(spent))
    (task,) = report.tasks
    assert task.name == "softmax" and task.trials > 0 and seen == sorted(seen) and "kernel" in str(report)
    records = Database(file).records()
    exe = tcomp.compile(module, num_threads=1, database=file)
    x = np.random.default_rng(0).standard_normal((200, 333)).astype("float32")
    assert np.allclose(exe(x), tcomp.compile(module, num_threads=1)(x), rtol=2e-6, atol=1e-7)
    if report.model is not None and not report.undone:
        assert len(records) == 1 and records[0].ratio.low > 1.01 and f"tuned: {records[0].ratio}" in exe.explain()
    else:
        assert records == [] and "tuned" not in exe.explain()


def test_a_run_goes_on_where_another_ended(tmp_path: Path) -> None:
    file = tmp_path / "tune.db"
    tune(softmax(), database=file, trials=8)
    key = Key.of(kernel_key(KERNELS["softmax"]), CPU, 1)
    first = Database(file).trials(key)
    executor = Here()
    tune(softmax(), database=file, trials=8, executor=executor)
    assert Database(file).trials(key) == first and 0 < len(first) <= 16
    assert executor.calls <= 5  # the default, and it again with what is confirmed


def forced(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """All candidates look so much faster."""
    monkeypatch.setattr("tcomp.tuner.measure.race", lambda default, other, rounds, give_up=0.0: [ratio] * rounds)


def test_a_wrong_candidate_is_never_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it looks: the code of another kernel in place of each candidate but the default."""
    g = tcomp.GraphBuilder()
    x = g.input("x", (24, 32))
    wrong = kernels(g.build(g.multiply_scalar(g.relu(g.matmul(x, g.input("w", (32, 40)))), scalar=1.001)))
    ((_, func),) = wrong.items()
    default = Space(KERNELS["matmul_relu"], CPU).default
    spoiled = build(func, CPU, Space(func, CPU).default)

    def change(b: Built) -> Built:
        return b if b.candidate == default or not b.code else replace(b, code=spoiled.code, symbol=spoiled.symbol)

    forced(monkeypatch, 2.0)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(1.5, 1.6, 1.7))
    monkeypatch.setattr("tcomp.tuning.model.ratios_elsewhere", lambda *_: [1.5])
    file = tmp_path / "tune.db"
    report = tune(product(), database=file, trials=8, executor=Here(change))
    assert report.tasks[0].best == 2.0 and report.tasks[0].accepted is None and Database(file).records() == []
    report = tune(product(), database=file, trials=16)
    assert report.tasks[0].accepted is not None and len(Database(file).records()) == 1


def test_records_of_a_model_that_does_not_gain_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch, 2.0)
    monkeypatch.setattr("tcomp.tuning.model.compare", lambda *_, **__: Interval(0.9, 0.95, 1.01))
    report = tune(softmax(), database=tmp_path / "tune.db", trials=8)
    assert report.undone and "nothing of it is kept" in str(report) and Database(tmp_path / "tune.db").records() == []


def test_candidates_whose_process_is_lost_are_noted(tmp_path: Path) -> None:
    task = Task(KERNELS["softmax"], CPU)

    def change(b: Built) -> Built:
        if b.candidate != task.space.default:
            raise OSError("the other side is gone")
        return b

    records = Database(tmp_path / "tune.db")
    tuner = Tuner([task], records, Here(change), 1)
    assert tuner.run(5, trials=8) == []
    (state,) = tuner.states
    assert state.refused == len(state.search.tried) > 0 and all("gone" in t.reason for t in records.trials(state.key))


def test_a_model_without_decisions_is_left_as_it_is() -> None:
    g = tcomp.GraphBuilder()
    report = tune(g.build(g.relu(g.input("x", (0, 5)))))
    assert report.tasks == () and report.model is None and not report.undone


def test_what_cannot_be_tuned_is_told() -> None:
    g = tcomp.GraphBuilder()
    x = g.input("x", (g.dim("n", max=8), 4))
    with pytest.raises(UnsupportedError, match="open"):
        tcomp.tune(g.build(g.relu(x)))
    with pytest.raises(UnsupportedError, match="this machine"):
        tcomp.tune(softmax(), target="llvm -mtriple=aarch64-linux-gnu")
    with pytest.raises(TcompError, match="no kernel 'conv'"):
        tcomp.tune(softmax(), kernels=["conv"])
    with pytest.raises(TcompError, match="budget_s"):
        tcomp.tune(softmax(), budget_s=0)
    assert as_module(softmax(), None)[1] == {}


def test_the_command(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [[helper.make_tensor_value_info(n, kind, ("rows", 60))] for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "soft", *values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "soft.onnx")

    def tell(*words: object) -> str:
        done = CliRunner().invoke(cli.app, ["tune", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    db, page = tmp_path / "tune.db", tmp_path / "tuned.html"
    told = json.loads(
        tell(
            tmp_path / "soft.onnx",
            "--dims",
            "rows=9",
            "--budget",
            2,
            "--threads",
            1,
            "--db",
            db,
            "--json",
            "--html",
            page,
        )
    )
    assert page.read_text().startswith("<!doctype html>") and "softmax" in page.read_text()
    assert told["kernels"][0]["kernel"] == "softmax" and told["seconds"] > 0
    records = Database(db)
    records.accept(record_of("matmul_relu", 1.25))
    assert "matmul_relu" in tell("--show", "--db", db) and "1.350 [1.250, 1.450]" in tell("--show", "--db", db)
    assert any(r["name"] == "matmul_relu" and r["plan"]["rule"] for r in json.loads(tell("--export", "--db", db)))
    assert "older version" in tell("--replay", "matmul_relu", "--db", db)
    steps = Space(KERNELS["softmax"], CPU).schedule(record_of("softmax", 1.5).candidate).trace
    records.accept(replace(record_of("softmax", 1.5), trace=steps.as_json()))
    assert "\n".join(tell("--replay", "softmax", "--db", db).splitlines()[1:]).endswith(str(steps))
    assert "records taken over" in tell("--merge", db, "--db", tmp_path / "other.db")
    for words, match in (
        ([], "nothing to tune"),
        (["--show"], "--db"),
        (["--show", "--db", tmp_path / "no.db"], "no file"),
        (["--replay", "conv", "--db", db], "no record of kernel 'conv'"),
    ):
        with pytest.raises(TcompError, match=match):
            CliRunner().invoke(cli.app, ["tune", *map(str, words)], catch_exceptions=False)
