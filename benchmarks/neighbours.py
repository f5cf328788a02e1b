"""Whether tcomp's threads disturb another library in the same process: torch's speed right after parallel regions of ours.

python -m benchmarks.neighbours [--size 512] [--threads 2] [--rounds 60]

Turn by turn, a torch matmul is timed right after other torch matmuls, right after tcomp's, which ran in parallel, and right after
a pause in which one thread counted for as long; and the other way round. After a pause a library must wake its own threads, and
finds less of its data in the caches. The ratios are the median after itself, and the median after the pause, over the median after
the other library: the first is what changing between libraries costs, the second 1 or more where they do not disturb each other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp

from .compare import wait_until_idle

PAUSE = "a pause"


def pair(size: int, threads: int) -> dict[str, Callable[[], object]]:
    """The same product by both libraries."""
    import torch

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    g = tcomp.GraphBuilder()
    exe = tcomp.compile(g.build(g.matmul(g.input("a", a.shape), g.input("b", b.shape))), num_threads=threads)
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    return {"tcomp": lambda: exe(a, b), "torch": lambda: torch.mm(left, right)}


def seconds_after(f: Callable[[], object], before: Callable[[], object] | None) -> float:
    """One call of f in an otherwise idle process, right after some calls of another function."""
    f()
    wait_until_idle(0.3)
    if before is not None:
        for _ in range(5):
            before()
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def pause(f: Callable[[], object]) -> Callable[[], None]:
    """A function that counts for as long as another one takes."""
    f()
    start = time.perf_counter()
    f()
    seconds = time.perf_counter() - start

    def count() -> None:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            pass

    return count


def main(
    size: int = typer.Option(512, help="extents of the matrices"),
    threads: int = typer.Option(2, help="threads of each library"),
    rounds: int = typer.Option(60, help="turns of each kind"),
) -> None:
    """Print each library's time alone and right after the other."""
    sides = pair(size, threads)
    pauses = {name: pause(f) for name, f in sides.items()}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, f in sides.items():
            others = {n: g for n, g in sides.items() if n != name}
            for other, before in {"itself": f, **others, PAUSE: pauses[name]}.items():
                times.setdefault((name, other), []).append(seconds_after(f, before))
    table = Table("library", "after", "median ms", "after itself / this", f"after {PAUSE} / this")
    for (name, other), found in times.items():
        now = statistics.median(found)
        ratios = [statistics.median(times[name, control]) / now for control in ("itself", PAUSE)]
        table.add_row(name, other, f"{1e3 * now:.3f}", *(f"{r:.2f}" for r in ratios))
    Console(markup=False).print(table)


if __name__ == "__main__":
    typer.run(main)
