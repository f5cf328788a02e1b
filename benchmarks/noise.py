"""Whether the tuner takes noise for gain: a kernel tuned many times beside a busy process, and each accepted plan measured again without it.

python -m benchmarks.noise [--case mm_128x128x128] [--times 50] [--budget 5]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

import tcomp
from tcomp.tuner.measure import Interval

from .busy import neighbours
from .tune import AGAIN, case, target_of


def main(
    name: str = typer.Option("mm_128x128x128", "--case"), times: int = 50, budget: float = 5.0, busy: int = 1
) -> None:
    """Tune, accept or not, measure quietly; print each accepted plan and the worst of them."""
    model, _ = case(name)
    quiet: list[Interval] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(times):
            file = Path(folder) / f"{seed}.db"
            with neighbours(busy, nice=0):
                report = tcomp.tune(
                    model, target=target_of(1), num_threads=1, budget_s=budget, database=file, seed=seed
                )
            if report.schedules:
                words = [sys.executable, "-c", AGAIN, name, "1", str(file)]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                quiet.append(Interval(*json.loads(done.stdout.splitlines()[-1])))
                print(
                    f"{seed}: accepted {report.tasks[0].accepted}, quietly {quiet[-1]}, {report.tasks[0].changes}",
                    flush=True,
                )
    worst = min((q.middle for q in quiet), default=1.0)
    print(
        f"{tcomp.Target.parse('cpu')}, {name}: {times} tunings beside {busy} busy processes, {len(quiet)} accepted a plan, worst {worst:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
