"""Differential fuzzing in the suite, its shrinker, and past failures."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tcomp.tools import fuzz
from tcomp.tools.__main__ import app
from tcomp.tools.fuzz import Case, outcomes, run_case, script, shrink
from tcomp.tools.proposals import Choice

PAST_FAILURES = [
    Case(
        entry["seed"],
        tuple(Choice(method, tuple(numbers)) for method, numbers in entry["choices"]),
        entry["kernel"],
        tuple(entry.get("sizes", ())),
    )
    for entry in json.loads((Path(__file__).parent / "past_failures.json").read_text())
]
"""Cases that once failed: reductions decomposed or reordered under fused loops, lanes over a reduce axis."""


@pytest.mark.parametrize("case", PAST_FAILURES, ids=lambda c: str(c.seed))
def test_past_failures_stay_fixed(case: Case) -> None:
    outcome = run_case(case)
    assert not outcome.layer, f"{outcome.detail}\n{script(outcome)}"


@pytest.mark.parametrize("first", range(20_000, 20_120, 20))
@pytest.mark.drawn(1 / 2)
def test_fresh_cases(first: int) -> None:
    failed = [o for o in outcomes(first, 20, 1) if o.layer]
    assert not failed, "\n".join(f"python -m tcomp.tools shrink {o.case.seed}: {o.layer}: {o.detail}" for o in failed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_two_thousand_cases(first: int) -> None:
    failed = [o for o in outcomes(first, 100, 1) if o.layer]
    assert not failed, "\n".join(f"python -m tcomp.tools shrink {o.case.seed}: {o.layer}: {o.detail}" for o in failed)


def test_the_fuzzer_notices_a_wrong_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A primitive that loses iterations is caught, named a schedule fault, and shrunk to the step at fault."""
    from tcomp.schedule import schedule as module
    from tcomp.schedule.primitives import loops
    from tcomp.schedule.primitives.base import Primitive

    def bad_split(func, loop, factors):
        new, results = loops.apply_split(func, loop, factors)
        s = new.loops[results[-1]]
        from tcomp.ir import const
        from tcomp.ir.node import with_fields
        from tcomp.schedule.primitives.base import replace

        return replace(new, s, with_fields(s, extent=const(max(s.extent.value - 1, 1)))), results

    monkeypatch.setitem(module.ALL, "split", Primitive("split", loops.check_split, bad_split))
    case = Case(
        3, (Choice("cache_write", (0, 0, 0, 0, 0)), Choice("split", (0, 0, 2, 0, 0)), Choice("unroll", (0, 9, 0, 0, 0)))
    )
    outcome = run_case(case, native=False)
    assert outcome.layer == "schedule"
    assert [c.method for c in shrink(case, "schedule", native=False).choices] == ["split"]


def test_command_line_replays_a_seed() -> None:
    result = CliRunner().invoke(app, ["fuzz", "--cases", "5", "--seed", "40", "--jobs", "1"])
    assert result.exit_code == 0 and "5 cases" in result.output
    assert "passes" in CliRunner().invoke(app, ["shrink", "41"]).output


def test_the_command_runs_in_several_processes() -> None:
    command = [sys.executable, "-m", "tcomp.tools", "fuzz", "--cases", "20", "--seed", "40", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "20 cases" in done.stdout, done.stderr


def test_a_case_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CASE_SECONDS", 1)
    monkeypatch.setattr(fuzz, "run", lambda *_: time.sleep(30))
    (outcome,) = outcomes(50, 1, 1)
    assert outcome.layer == "schedule" and "more than 1 s" in outcome.detail


def test_refused_steps_are_tried_on_request() -> None:
    tried = list(outcomes(60, 12, 1, anyway=True))
    assert sum(o.tried for o in tried) == sum(len(o.refused) for o in tried) > 0
    assert all(o.harmless is not None and len(o.harmless) <= o.tried for o in tried)


def test_brute_force_sees_a_race_that_the_check_overlooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its check taken out, parallel accepts a reduction; the interpreter's answer stays right, but not the accesses."""
    from tcomp.schedule import primitives
    from tcomp.schedule.primitives import annotate
    from tcomp.schedule.primitives.base import Primitive

    careless = Primitive("parallel", lambda func, loop: None, annotate.PARALLEL.apply)
    monkeypatch.setitem(primitives.ALL, "parallel", careless)
    seen = {run_case(Case(seed, (Choice("parallel", (0, 2, 0, 0, 0)),)), native=False).layer for seed in range(40)}
    assert "race" in seen and seen <= {"", "race"}
