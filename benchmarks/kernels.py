"""Single kernels under their default schedules, against the same operators in other libraries.

python -m benchmarks.kernels [--family matmul|conv|rows|movement|attention] [--peers torch,onnxruntime,openvino,numpy] [--threads N]

Each library runs in a process of its own, turn by turn (`benchmarks.sides`); a ratio is the peer's median over tcomp's, so above 1
tcomp is faster. `--before PATH` races an older checkout of tcomp as one more side. Each result is compared with float64. By default images lie in NHWC for tcomp and for torch (its
channels-last form), and in NCHW for the ONNX runtimes, which know no other: each library gets what suits it best, as it would
between the layers of a network. `--layout NCHW` gives NCHW to everyone. Weights are constants for all.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import tcomp
from tcomp.cli.sides import BEFORE, Side, Task, race
from tcomp.tools.peak import fma_peak, memory_bandwidth

from .shapes import FAMILIES, Case, cases_of

OUT = Path(__file__).parent / "out"


def run_case(case: Case, sides: Sequence[Side], task: Task, threads: int, seconds: float) -> dict[str, Any]:
    """Time all sides of a case, compare them with float64."""
    module, inputs = case.make()
    reference = tcomp.evaluate(module, inputs, exact=True)[0]
    found = race([s for s in sides if s.library in ("tcomp", BEFORE, *case.peers)], task, seconds)
    scale = float(np.sqrt(np.square(reference).sum())) or 1.0
    median = {n: statistics.median(r["seconds"]) for n, r in found.items()}
    error = {n: float(np.sqrt(np.square(r["result"] - reference).sum())) / scale for n, r in found.items()}
    ratios = {n: m / median["tcomp"] for n, m in median.items() if n != "tcomp"}
    ours = found["tcomp"]
    return {
        "name": case.name, "family": case.family, "group": case.group, "threads": threads, "kernels": ours["kernels"],
        "median_ms": 1e3 * median["tcomp"], "gflops": ours["flops"] / median["tcomp"] / 1e9, "compile_s": ours["compile_s"],
        "ratios": ratios, "errors": error, "best_peer": min((r for n, r in ratios.items() if n != BEFORE), default=math.nan),
    }  # fmt: skip


def geometric_mean(values: list[float]) -> float:
    """NaN of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each group and for each family: geometric mean and worst ratio, to the best peer and to each."""
    out = []
    for key in ("group", "family"):
        for name in dict.fromkeys(r[key] for r in rows):
            chosen = [r for r in rows if r[key] == name]
            peers = dict.fromkeys(p for r in chosen for p in r["ratios"])
            worst = min(chosen, key=lambda r: r["best_peer"])
            means = {p: geometric_mean([r["ratios"][p] for r in chosen if p in r["ratios"]]) for p in peers}
            out.append(
                {"what": f"{key} {name}", "cases": len(chosen), "mean": geometric_mean([r["best_peer"] for r in chosen]),
                 "worst": worst["best_peer"], "worst_case": worst["name"], "means": means,
                 "compile_median_s": float(np.median([r["compile_s"] for r in chosen])),
                 "compile_worst_s": max(r["compile_s"] for r in chosen)}
            )  # fmt: skip
    return out


def print_tables(console: Console, rows: list[dict[str, Any]]) -> None:
    """A row for each case, then the means."""
    peers = list(dict.fromkeys(p for r in rows for p in r["ratios"]))
    table = Table("case", "tcomp ms", "GFLOP/s", *(f"vs {p}" for p in peers), "vs best", "error", "compile s")
    for r in rows:
        ratios = [f"{r['ratios'][p]:.2f}" if p in r["ratios"] else "" for p in peers]
        table.add_row(
            r["name"], f"{r['median_ms']:.4f}", f"{r['gflops']:.1f}", *ratios, f"{r['best_peer']:.2f}",
            f"{r['errors']['tcomp']:.0e}", f"{r['compile_s']:.2f}",
        )  # fmt: skip
    console.print(table)
    means = Table(
        "",
        "cases",
        "geometric mean",
        "worst",
        "worst case",
        *(f"mean vs {p}" for p in peers),
        "compile s (median, worst)",
    )
    for s in summary(rows):
        cells = [f"{s['means'][p]:.2f}" if p in s["means"] else "" for p in peers]
        means.add_row(
            s["what"], str(s["cases"]), f"{s['mean']:.2f}", f"{s['worst']:.2f}", s["worst_case"], *cells,
            f"{s['compile_median_s']:.2f}, {s['compile_worst_s']:.2f}",
        )  # fmt: skip
    console.print(means)


def print_worst(console: Console, rows: list[dict[str, Any]], cases: dict[str, Case], target: str, count: int) -> None:
    """What the slowest cases are made of: rule, filled-up tiles, vectors and spills of each of their kernels."""
    console.print(f"the {count} worst")
    for r in sorted(rows, key=lambda r: r["best_peer"])[:count]:
        exe = tcomp.compile(cases[r["name"]].make()[0], target=target)
        console.print(f"{r['name']}: {r['best_peer']:.2f}, {r['gflops']:.1f} GFLOP/s")
        for text in exe.explain().split("\n\n"):
            kernel, rule, *rest = text.splitlines()
            telling = [line for line in rest if "flop/byte" not in line]
            console.print(f"    {kernel.split(' for ')[0]}, {rule}: {'; '.join(telling)}")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The ratio to the best peer of every case, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, max(2.0, 0.16 * len(rows) + 1)))
    ordered = sorted(rows, key=lambda r: r["best_peer"])
    axes.barh([r["name"] for r in ordered], [r["best_peer"] for r in ordered])
    axes.axvline(1.0, color="black", lw=1)
    axes.set_xscale("log")
    axes.set_xlabel("time of the best peer / time of tcomp")
    axes.tick_params(axis="y", labelsize=5)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def explain_case(case: Case, threads: int, target: str) -> None:
    """The kernels of a case: schedule, cost, assembly; and what share of the machine's ceilings they reach."""
    module, inputs = case.make()
    exe = tcomp.compile(module, target=target or f"cpu -num-cores={threads}", num_threads=threads)
    print(exe.explain())
    peak, bandwidth = fma_peak(threads), memory_bandwidth()
    print(f"\nmeasured ceilings: {peak:.1f} GFLOP/s on {threads} threads, {bandwidth:.1f} GB/s from memory")
    for row in exe.profile(*inputs, repeat=50).rows:
        arithmetic, memory = row.gflops / peak, row.gbytes / bandwidth
        bound = "arithmetic" if arithmetic >= memory else "memory"
        shares = f"{100 * arithmetic:.1f} % of peak arithmetic, {100 * memory:.1f} % of memory bandwidth (data in cache may exceed it)"
        print(
            f"{row.name}: {1e6 * row.seconds:.1f} us, {row.gflops:.1f} GFLOP/s, {row.gbytes:.1f} GB/s: {shares}; nearest bound: {bound}"
        )


def _cases(family: str, layout: str, name: str, random: int, seed: int) -> list[Case]:
    unknown = {f for f in family.split(",") if f} - FAMILIES.keys()
    if unknown:
        raise typer.BadParameter(f"unknown family {sorted(unknown)[0]!r}: {', '.join(FAMILIES)}")
    found = [c for c in cases_of(family, layout, random, seed) if re.search(name, c.name)]
    if not found:
        raise typer.BadParameter(f"no case matches {name!r}")
    return found


def main(
    family: str = typer.Option("", help="families, separated by commas; all by default"),
    peers: str = typer.Option("torch,onnxruntime,openvino,numpy", help="libraries to compare with"),
    threads: int = typer.Option(0, help="threads of every side; all cores by default"),
    name: str = typer.Option("", help="only cases whose name matches this regular expression"),
    layout: str = typer.Option("NHWC", help="of images: NHWC or NCHW"),
    target: str = typer.Option("", help='such as "llvm -mcpu=haswell -num-cores=1"'),
    random: int = typer.Option(0, "--sweep", help="this many random products and as many convolutions instead"),
    seed: int = typer.Option(0, help="of the random shapes"),
    seconds: float = typer.Option(0.4, help="time for each side of a case, about"),
    explain: str = typer.Option("", help="do not compare, but tell why this case is as fast as it is"),
    before: str = typer.Option("", help="the folder of an older checkout of tcomp, one more side"),
    label: str = typer.Option("", help="part of the names of the files written to benchmarks/out"),
) -> None:
    """Time kernels; print a table of ratios; write it as JSON, and a picture, to benchmarks/out."""
    if layout not in ("NHWC", "NCHW"):
        raise typer.BadParameter(f"layout is NHWC or NCHW, not {layout!r}")
    if explain:
        (case,) = _cases("", layout, f"^{re.escape(explain)}$", 0, seed)
        return explain_case(case, threads or tcomp.Target.parse("cpu").num_cores, target)
    cases = _cases(family, layout, name, random, seed)
    with tempfile.TemporaryDirectory() as cache:  # so that every kernel is compiled cold
        os.environ["TCOMP_CACHE_DIR"] = cache
        chosen = tcomp.Target.parse(target or "cpu")
        count = threads or chosen.num_cores
        target = target or f"cpu -num-cores={count}"
        rows = []
        sides = [Side("tcomp"), *(Side(p) for p in peers.split(",") if p), *([Side(BEFORE, before)] if before else [])]
        with Progress(transient=True) as progress:
            bar = progress.add_task("kernels", total=len(cases))
            for case in cases:
                progress.update(bar, description=case.name)
                made = ("benchmarks.shapes", "make"), (family, layout, random, seed, case.name)
                task = ("benchmarks.peers", "serve", (*made, count, target))
                rows.append(run_case(case, sides, task, count, seconds))
                progress.advance(bar)
        for side in sides:
            side.close()
    terminal = Console(markup=False)
    console = terminal if terminal.is_terminal else Console(width=180, markup=False)
    console.print(f"{chosen}, {count} threads")
    print_tables(console, rows)
    if random:
        print_worst(console, rows, {c.name: c for c in cases}, target, 10)
    OUT.mkdir(exist_ok=True)
    stem = f"kernels_{label or family.replace(',', '_') or 'all'}_{count}"
    (OUT / f"{stem}.json").write_text(
        json.dumps({"target": str(chosen), "rows": rows, "summary": summary(rows)}, indent=1)
    )
    plot(rows, OUT / f"{stem}.png")
    console.print(f"written: benchmarks/out/{stem}.json and .png")


if __name__ == "__main__":
    typer.run(main)
