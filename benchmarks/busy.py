"""A model beside other programs: how much of its speed it keeps where neighbours of the lowest priority want the cores, too.

python -m benchmarks.busy [--model mobilenet_v2] [--peers onnxruntime,torch] [--threads 2] [--rounds 12]

Each library runs in a process of its own, turn by turn: alone, then beside one process of nice 19 that counts, then beside two. The
table has the median time of a call, its share of the quiet speed, and the processor time that a library burns in the 50 ms after its
last call (threads that go on spinning).
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tcomp.cli.sides import Side
from tcomp.target import Target

from .graphs import GRAPHS

AFTERWARDS = 0.05


def _count(stop: Any, nice: int) -> None:
    os.nice(nice)
    while not stop.is_set():
        for _ in range(100_000):
            pass


@contextmanager
def neighbours(count: int, nice: int = 19) -> Iterator[None]:
    """Some processes that count; of the lowest priority by default."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    made = [context.Process(target=_count, args=(stop, nice), daemon=True) for _ in range(count)]
    for p in made:
        p.start()
    time.sleep(1.0 if count else 0.0)  # until all of them are at it
    try:
        yield
    finally:
        stop.set()
        for p in made:
            p.join()


def main(
    model: str = typer.Option("mobilenet_v2", help=f"one of {', '.join(GRAPHS)}"),
    peers: str = typer.Option("onnxruntime,torch", help="libraries to compare with"),
    batch: int = 1,
    threads: int = typer.Option(2, help="threads of each side"),
    rounds: int = typer.Option(12, help="turns of each side beside each number of neighbours"),
    seconds: float = typer.Option(0.3, help="time of a turn"),
) -> None:
    """Time a model quiet and beside busy neighbours, and print what it keeps."""
    task = ("benchmarks.peers", "serve", (("benchmarks.graphs", "make"), (model, batch), threads))
    sides = {name: Side(name) for name in ["tcomp", *(p for p in peers.split(",") if p)]}
    for side in sides.values():
        side.ask("load", task)
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(rounds):
        for count in (0, 1, 2):
            with neighbours(count):
                names = list(sides)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    times.setdefault((name, count), []).append(sides[name].ask("spell", seconds, AFTERWARDS))
    for side in sides.values():
        side.close()
    table = Table("library", "neighbours", "median ms", "of its quiet speed", "ms of processor afterwards")
    for name in sides:
        quiet = statistics.median(t for t, _ in times[name, 0])
        for count in (0, 1, 2):
            found, burnt = zip(*times[name, count])
            now = statistics.median(found)
            table.add_row(
                name, str(count), f"{1e3 * now:.3f}", f"{quiet / now:.0%}", f"{1e3 * statistics.median(burnt):.2f}"
            )
    print(f"{model}, batch {batch}, {threads} threads, {rounds} turns; {Target.parse('cpu')}")
    Console(width=110, markup=False).print(table)


if __name__ == "__main__":
    typer.run(main)
