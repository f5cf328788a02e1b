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

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.target import Target

from . import peers as libraries
from .graphs import GRAPHS

AFTERWARDS = 0.05


def _count(stop: Any) -> None:
    os.nice(19)
    while not stop.is_set():
        for _ in range(100_000):
            pass


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Some processes that count, of the lowest priority."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    made = [context.Process(target=_count, args=(stop,), daemon=True) for _ in range(count)]
    for p in made:
        p.start()
    time.sleep(1.0 if count else 0.0)  # until all of them are at it
    try:
        yield
    finally:
        stop.set()
        for p in made:
            p.join()


def _serve(library: str, model: str, batch: int, threads: int, pipe: Any) -> None:
    """A process of one library: for each request, the seconds of some calls, and of the processor afterwards."""
    module = GRAPHS[model](batch)
    x = np.random.default_rng(1).random(module.main.params[0].type.shape, np.float32)
    if library == "tcomp":
        exe = tcomp.compile(module, num_threads=threads)
        run = lambda: exe(x)
    else:
        run = libraries.make(library, module, [x], threads)
    run()
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        for _ in range(3):
            run()
        found, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        used = time.process_time()
        time.sleep(AFTERWARDS)
        pipe.send((statistics.median(found), time.process_time() - used))


def main(
    model: str = typer.Option("mobilenet_v2", help=f"one of {', '.join(GRAPHS)}"),
    peers: str = typer.Option("onnxruntime,torch", help="libraries to compare with"),
    batch: int = 1,
    threads: int = typer.Option(2, help="threads of each side"),
    rounds: int = typer.Option(12, help="turns of each side beside each number of neighbours"),
    seconds: float = typer.Option(0.3, help="time of a turn"),
) -> None:
    """Time a model quiet and beside busy neighbours, and print what it keeps."""
    context = multiprocessing.get_context("spawn")
    sides = {}
    for name in ["tcomp", *(p for p in peers.split(",") if p)]:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(name, model, batch, threads, there), daemon=True)
        process.start()
        there.close()
        here.recv()
        sides[name] = here
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(rounds):
        for count in (0, 1, 2):
            with neighbours(count):
                names = list(sides)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    sides[name].send(seconds)
                    times.setdefault((name, count), []).append(sides[name].recv())
    for pipe in sides.values():
        pipe.send(None)
    table = Table("library", "neighbours", "median ms", "of its quiet speed", "ms of processor afterwards")
    for name in sides:
        quiet = statistics.median(t for t, _ in times[name, 0])
        for count in (0, 1, 2):
            found, burnt = zip(*times[name, count])
            now = statistics.median(found)
            table.add_row(
                name, str(count), f"{1e3 * now:.3f}", f"{quiet / now:.0%}", f"{1e3 * statistics.median(burnt):.2f}"
            )
    print(
        f"{model}, batch {batch}, {threads} threads, {rounds} turns; {Target.parse('cpu').cpu}, {os.cpu_count()} cores"
    )
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
