"""Runs that are killed: the next one goes on, and ends as one would have that was not killed."""

import random
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from helpers import Speeds, kernels, product, softmax

from tcomp.target import Target
from tcomp.tuner.build import Built
from tcomp.tuner.database import Database, Key, Record, Trial
from tcomp.tuner.task import Task
from tcomp.tuner.tuner import Tuner

CPU = Target.parse("cpu")
TRIALS = 60
PROGRAM = """
import sys
sys.path[:0] = sys.argv[2:4]
from test_resume import run
run(sys.argv[1])
print("whole")
"""


class NoCode(Executor):
    """Builds nothing, and takes its time."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        time.sleep(0.003)
        future: Future[Any] = Future()
        candidate = args[2]
        future.set_result(Built(candidate, b"code", "k", digest(candidate.to_json())))
        return future


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()


def speed(built: Built) -> float:
    """What does not change from run to run."""
    return 0.8 + int(built.program, 16) / 2**32 * 0.6


def run(file: str) -> None:
    tasks = [Task(f, CPU, 1.0) for f in {**kernels(softmax()), **kernels(product())}.values()]
    records = Database(file)
    tuner = Tuner(tasks, records, NoCode(), 1, measurer=lambda *_: Speeds(speed))
    for r in tuner.run(600, trials=TRIALS):
        records.accept(r)


def contents(file: Path) -> tuple[list[Record], list[list[Trial]]]:
    """All but what depends on the time."""
    records = Database(file)
    found = [replace(r, made=0.0, seconds=0.0, conditions={}) for r in records.records()]
    keys = [Key.of(Task(f, CPU).key, CPU, 1) for f in {**kernels(softmax()), **kernels(product())}.values()]
    return found, [records.trials(k) for k in keys]


@pytest.mark.parametrize("moments", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_as_one_that_is_not(moments: int, tmp_path: Path) -> None:
    root, rng = Path(__file__).parents[2], random.Random(moments)
    words = [sys.executable, "-c", PROGRAM]
    rest = [str(Path(__file__).parent), str(root)]
    start = time.perf_counter()
    assert subprocess.run([*words, tmp_path / "whole.db", *rest], capture_output=True, text=True).stdout == "whole\n"
    took = time.perf_counter() - start
    want = contents(tmp_path / "whole.db")
    assert len(want[0]) == 2 and all(len(t) > TRIALS // 3 for t in want[1])
    killed = 0
    file = tmp_path / "killed.db"
    for number in range(moments):
        process = subprocess.Popen([*words, file, *rest], stdout=subprocess.PIPE, text=True)
        try:
            process.wait(took * rng.uniform(0.4, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        is_whole = process.communicate()[0] == "whole\n"
        if file.exists():
            with sqlite3.connect(file) as c:
                assert c.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if is_whole:
            assert contents(file) == want
            file = tmp_path / f"killed{number}.db"
    assert killed >= moments // 3
    assert subprocess.run([*words, file, *rest], capture_output=True, text=True).stdout == "whole\n"
    assert contents(file) == want
