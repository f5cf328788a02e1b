"""What tuning brings: kernels tuned for a while each, then measured again beside the default by another process, on arrays of its own.

python -m benchmarks.tune [--budget 20] [--cases '^softmax'] [--below benchmarks/out/kernels_all_1.json] [--group depthwise] [--drawn 20]
                          [--models resnet50,mobilenet_v2] [--db tune.db] [--threads 1]   # --budget 10,60: each, apart

With `--db`, `TCOMP_TUNE_DB=tune.db python -m benchmarks.kernels --threads 1` then races the tuned kernels with the peers.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.runtime.example import example_inputs
from tcomp.tuner.measure import Interval
from tcomp.tuner.report import TaskReport
from tcomp.tuning.whole import compare

from . import zoo
from .shapes import cases_of

OUT = Path(__file__).parent / "out"
MADE = 6
"""Times that executables are made to be measured again."""


AGAIN = """
import sys, json
from benchmarks import tune
print(json.dumps(tune.again(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
"""


def case(name: str) -> tuple[Any, Any]:
    """A case of benchmarks.shapes, or a model of the zoo, and example inputs where extents are open."""
    for kernel in cases_of("", "NHWC", 0, 0):
        if kernel.name == name:
            return kernel.make()[0], None
    file, inputs = zoo.exported(name, 1)
    return str(file), inputs


def chosen(names: str, below: str, group: str, drawn: int, seed: int) -> list[str]:
    """The names of the cases to tune, each once: those that match a regular expression; those that `benchmarks.kernels` found slower than the
    fastest peer; those of a group; some drawn from all."""
    cases = cases_of("", "NHWC", 0, 0)
    found = [c.name for c in cases if names and re.search(names, c.name)]
    if below:
        rows = json.loads(Path(below).read_text())["rows"]
        found += [r["name"] for r in sorted(rows, key=lambda r: r["best_peer"]) if r["best_peer"] < 1]
    found += [c.name for c in cases if group and c.group == group]
    picked = np.random.default_rng(seed).permutation(len(cases))[:drawn]
    return list(dict.fromkeys([*found, *(cases[i].name for i in picked)]))


def target_of(threads: int) -> str:
    """Plans are for as many cores as there are threads: else the default would be one for cores that it does not get."""
    return f"cpu -num-cores={threads}"


def again(name: str, threads: int, database: str) -> list[float]:
    """The ratio of the case's time without and with records: its interval, by this process. Executables are made several times, each as often
    first as last, so that their weights lie at other places, which some kernels feel."""
    how: dict[str, Any] = {"target": target_of(threads), "num_threads": threads}
    model, inputs = case(name)
    arrays = example_inputs(tcomp.compile(model, inputs, **how, database="").program, 1)
    found = compare(
        lambda tuned: [tcomp.compile(model, inputs, **how, database=database if tuned else "")], arrays, MADE
    )
    return [found.low, found.middle, found.high]


def agreement(tasks: Sequence[TaskReport]) -> float:
    """The rank correlation of what the model of costs expected with what was measured, of the task with most of both; NaN of few."""
    pairs: np.ndarray = np.array(max((t.predictions for t in tasks), key=len, default=()))
    if len(pairs) < 8:
        return math.nan
    ranks = pairs.argsort(axis=0).argsort(axis=0)
    found: np.ndarray = np.asarray(np.corrcoef(ranks.T))
    return float(found[0, 1])


def tuned(name: str, budget: float, threads: int, file: Path, seed: int) -> dict[str, Any]:
    """Tune a case, and measure it again in another process."""
    model, inputs = case(name)
    how: dict[str, Any] = {"target": target_of(threads), "num_threads": threads, "database": file, "seed": seed}
    report = tcomp.tune(model, inputs, budget_s=budget, **how)
    seen = [1.0] * 3  # of what runs the same code
    if report.schedules or any(t.accepted for t in report.layers):
        words = [sys.executable, "-c", AGAIN, name, str(threads), str(file)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seen = json.loads(done.stdout.splitlines()[-1])
    tried = sum(t.trials + t.refused for t in report.tasks)
    return {
        "name": name, "tried": tried, "rate": tried / (sum(t.seconds for t in report.tasks) or math.inf),
        "accepted": sum(t.accepted is not None for t in (*report.layers, *report.tasks)), "tasks": len(report.layers) + len(report.tasks),
        "best": max((t.best for t in report.tasks), default=1.0), "model": agreement(report.tasks),
        "again": seen, "seconds": report.seconds, "report": str(report),
    }  # fmt: skip


def main(
    budget: Annotated[
        str, typer.Option(help="seconds for each; several, with commas, are searches of their own")
    ] = "20",
    cases: Annotated[str, typer.Option(help="a regular expression for names of benchmarks.shapes")] = "",
    below: Annotated[str, typer.Option(help="JSON of benchmarks.kernels: its cases below the fastest peer, too")] = "",
    group: Annotated[str, typer.Option(help="a group of cases, too, such as depthwise")] = "",
    drawn: Annotated[int, typer.Option(help="this many more cases, drawn by the seed")] = 0,
    models: Annotated[str, typer.Option(help="models of benchmarks.zoo, with commas")] = "",
    db: Annotated[str, typer.Option(help="keep the records in this file: TCOMP_TUNE_DB for benchmarks.kernels")] = "",
    threads: int = 1,
    seed: int = 0,
    label: str = "",
) -> None:
    """Tune kernels and models, and print what an independent measurement says of them."""
    budgets = [float(b) for b in budget.split(",")]
    if db and len(budgets) > 1:
        raise SystemExit("--db keeps the records of one budget")
    names = chosen(cases, below, group, drawn, seed) + [m for m in models.split(",") if m]
    columns = ("case", "budget", "tried", "a second", "model", "best seen", "accepted", "measured again")
    table = Table(*columns, title=target_of(threads))
    console, rows = Console(width=140), []
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in product(names, budgets):
            file = Path(db) if db else Path(folder) / f"{seconds:g}.db"
            r = {"budget_s": seconds, **tuned(name, seconds, threads, file, seed)}
            rows.append(r)
            cells = (f"{seconds:g}", f"{r['tried']}", f"{r['rate']:.1f}", f"{r['model']:.2f}", f"{r['best']:.2f}", f"{r['accepted']} of {r['tasks']}")  # fmt: skip
            table.add_row(name, *cells, str(Interval(*r["again"])))
            print(name, *cells, Interval(*r["again"]), flush=True)
            told = {"cpu": str(tcomp.Target.parse("cpu")), "threads": threads, "rows": rows}
            (OUT / f"tune{'_' + label if label else ''}.json").write_text(json.dumps(told, indent=1))
    console.print(table)
    found = {s: np.array([r["again"][1] for r in rows if r["budget_s"] == s]) for s in budgets}
    for seconds, ratios in found.items():
        print(
            f"{seconds:g} s: geometric mean {math.exp(np.log(ratios).mean()):.3f}, worst {ratios.min():.3f}, of {len(ratios)}"
        )
        if seconds != max(budgets):
            near = float(np.mean(ratios >= 0.97 * found[max(budgets)]))
            print(f"  within 3 % of {max(budgets):g} s: {100 * near:.0f} %")


if __name__ == "__main__":
    typer.run(main)
