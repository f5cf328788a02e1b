"""tcomp tune: faster schedules for a model's kernels, and what is in a file of records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..errors import TcompError
from ..schedule import Trace
from ..tuner.database import Database, Record
from ..tuner.tuner import State
from ..tuning import tune
from . import models

DatabaseFile = Annotated[
    Path | None, typer.Option("--db", help="file of records and trials; it is made where it is missing")
]


def tune_model(
    model: Annotated[Path | None, typer.Argument(help="an ONNX file; none to look at records")] = None,
    budget: Annotated[float, typer.Option(help="seconds, about")] = 60.0,
    trials: Annotated[
        int, typer.Option(help="candidates of a kernel, at most; 0 for as many as there is time for")
    ] = 0,
    db: DatabaseFile = None,
    kernels: Annotated[
        str, typer.Option(help="names of those to tune, with commas; all that take time by default")
    ] = "",
    layouts: Annotated[bool, typer.Option(help="try other layouts of weights, too")] = True,
    objective: Annotated[
        Literal["latency", "throughput"],
        typer.Option(help='"latency" of a run, or "throughput" of one on each core at once'),
    ] = "latency",
    threads: Annotated[int, typer.Option(help="of parallel loops; all cores by default")] = 0,
    dims: models.Dims = "",
    shapes: models.Shapes = "",
    seed: models.Seed = 0,
    show: Annotated[bool, typer.Option("--show", help="list the records of --db")] = False,
    merge: Annotated[
        list[Path] | None, typer.Option("--merge", help="take another file's records over into --db")
    ] = None,
    export: Annotated[bool, typer.Option("--export", help="print the records of --db as JSON")] = False,
    replay: Annotated[str, typer.Option(help="print the recorded schedule of a kernel as Python")] = "",
    page: Annotated[Path | None, typer.Option("--html", help="write a page with pictures of the searches")] = None,
    as_json: models.AsJson = False,
) -> None:
    """Try other schedules of the kernels that matter, keep those that are surely faster; `TCOMP_TUNE_DB` or `compile(database=)` use them."""
    if show or merge or export or replay:
        _records(db, show, merge or [], export, replay)
        return
    if model is None:
        raise TcompError(
            "nothing to tune", hint="tcomp tune model.onnx --db tune.db, or tcomp tune --show --db tune.db"
        )
    loaded = models.load_model(model, dims, shapes, [])
    console = Console(stderr=True)
    with Live(console=console, transient=True) if console.is_terminal else nullcontext() as live:

        def tell(states: Sequence[State], spent: float) -> None:
            if live is not None:
                live.update(_progress(states, spent, budget))

        report = tune(
            loaded.module, budget_s=budget, trials=trials or None, database=db, kernels=[k for k in kernels.split(",") if k] or None,
            layouts=layouts, objective=objective, num_threads=threads or None, seed=seed, progress=tell,
        )  # fmt: skip
    if page is not None:
        report.save(page)
    if as_json:
        rows = [
            {
                "kernel": t.name, "share": t.share, "tried": t.trials, "refused": t.refused, "best": t.best,
                "accepted": None if t.accepted is None else [t.accepted.low, t.accepted.middle, t.accepted.high], "changes": t.changes,
            }
            for t in (*report.layers, *report.tasks)
        ]  # fmt: skip
        ratio = None if report.model is None else [report.model.low, report.model.middle, report.model.high]
        print(
            json.dumps({"kernels": rows, "model": ratio, "undone": report.undone, "seconds": report.seconds}, indent=1)
        )
        return
    print(report)


def _progress(states: Sequence[State], spent: float, budget: float) -> Table:
    """The tasks as they are now, those that may still bring something first."""
    left = max(0.0, budget * (1 - spent))
    tried, spent_s = sum(len(s.search.tried) for s in states), sum(s.seconds for s in states)
    rate = tried / spent_s if spent_s else 0.0
    table = Table("kernel", "% of time", "tried", "best", title=f"{left:.0f} s left, {rate:.1f} candidates a second")
    for s in sorted(states, key=lambda s: -s.share)[:20]:
        table.add_row(s.task.func.name, f"{100 * s.share:.1f}", str(len(s.search.tried)), f"{s.best:.2f}")
    return table


def _records(db: Path | None, show: bool, merge: Sequence[Path], export: bool, replay: str) -> None:
    if db is None:
        raise TcompError("no file of records", hint="--db tune.db")
    missing = [p for p in ([] if merge else [db]) + list(merge) if not p.is_file()]
    if missing:
        raise TcompError(f"there is no file {missing[0]}")
    with closing(Database(db)) as records:
        for other in merge:
            with closing(Database(other)) as source:
                print(f"{other}: {records.merge(source)} records taken over")
        if replay:
            found = [r for r in records.records() if r.name == replay or r.key.kernel == replay]
            if not found:
                names = ", ".join(sorted({r.name for r in records.records()})) or "none"
                raise TcompError(f"no record of kernel {replay!r}", why=f"those with records: {names}")
            for r in found:
                print(
                    f"# {r.name}, {r.key.target}, {r.key.threads or 'all'} threads: {r.ratio} times as fast as by default"
                )
                print(
                    Trace.from_json(r.trace)
                    if r.trace
                    else f"# recorded without steps (a layout, or by an older version): {r.candidate.to_json()}"
                )
        elif export:
            print(json.dumps([_as_json(r) for r in records.records()], indent=1))
        elif show:
            table = Table()
            for column in ("kernel", "target", "threads", "times as fast", "us"):
                table.add_column(column, no_wrap=True)
            table.add_column("plan", overflow="fold")
            for r in records.records():
                plan = ", ".join(f"{k}={v}" for k, v in r.candidate.decisions)
                cpu = next((w for w in r.key.target.split() if w.startswith("-mcpu=")), r.key.target)
                table.add_row(r.name, cpu.removeprefix("-mcpu="), str(r.key.threads or "all"), str(r.ratio), f"{1e6 * r.seconds:.2f}", f"{r.candidate.rule}: {plan}")  # fmt: skip
            Console(markup=False).print(table)


def _as_json(r: Record) -> dict[str, object]:
    return {
        "kernel": r.key.kernel, "target": r.key.target, "threads": r.key.threads, "name": r.name, "plan": json.loads(r.candidate.to_json()),
        "ratio": [r.ratio.low, r.ratio.middle, r.ratio.high], "seconds": r.seconds, "conditions": dict(r.conditions), "made": r.made,
        "trace": json.loads(r.trace) if r.trace else None,
    }  # fmt: skip
