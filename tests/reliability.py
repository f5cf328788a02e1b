"""What happens when things go wrong around tcomp: processes killed, caches damaged, threads by the thousand, forks, months of
compiling, bad checkpoints, hostile files.

    python -m tests.reliability                # everything, about ten minutes
    python -m tests.reliability --share 0.02   # a fiftieth of it
    python -m tests.reliability --only forks,threads

Each area runs in a process of its own and reports how many situations it made, and each one that ended otherwise than it should:
a wrong result, a crash, a hang, half a file, an error that is not tcomp's or that changed something.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from frontend import nn, optim, train
from frontend.storage import read_safetensors, write_safetensors
from tcomp import te
from tcomp.codegen.cache import ObjectCache
from tcomp.errors import ScheduleError
from tcomp.schedule import Schedule, Trace

SECONDS = 180
"""A child that takes longer hangs."""
GROWTH = 20 << 20
"""Bytes by which a process may grow while it compiles thousands of models."""

Report = Iterator[str | None]
"""One item a situation: None where all went well, else what did not."""

_KERNEL = """
import sys, numpy as np, tcomp
from tcomp import te
def kernel(n):
    a = te.placeholder((n, 5), name="A")
    return tcomp.compile(te.create_prim_func([a, te.compute((n, 5), lambda i, j: a[i, j] * 3.0 + n, name="out")], f"k{n}"))
def check(n):
    x = np.arange(n * 5, dtype="float32").reshape(n, 5)
    assert np.array_equal(kernel(n)(x), x * 3 + n), "wrong result"
"""


def child(code: str, folder: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """A process that runs some code."""
    places = {} if folder is None else {"TCOMP_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **places, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def verdict(process: subprocess.Popen[str]) -> str | None:
    """What went wrong in a process that should end well."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"hangs for {SECONDS} s"
    return None if process.returncode == 0 else f"exit status {process.returncode}: {errors.strip()[-300:]}"


def elementwise(rows: int, columns: int = 33) -> tcomp.Executable:
    """2 x + 1, its rows in parallel."""
    a = te.placeholder((rows, columns), name="A")
    sch = Schedule(
        te.create_prim_func([a, te.compute((rows, columns), lambda i, j: a[i, j] * 2.0 + 1.0, name="out")], f"e{rows}")
    )
    sch.parallel(sch.get_loops("out")[0])
    return tcomp.compile(sch)


def kills(count: int, rng: random.Random, folder: Path) -> Report:
    """Processes killed while they fill the object cache and overwrite a checkpoint."""
    target = folder / "checkpoint.safetensors"
    work = (
        _KERNEL + "from frontend.storage import write_safetensors\nn = START\n"
        f"while True:\n    check(n % 40 + 1)\n    write_safetensors({{'x': np.full(200000, n)}}, {str(target)!r})\n    n += 1\n"
    )
    for turn in range(count):
        process = child(work.replace("START", str(turn * 7)), folder)
        time.sleep(rng.uniform(0.5, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            try:
                found = read_safetensors(target, needs_checksum=True)["x"]
                yield None if len(set(found.tolist())) == 1 else "a checkpoint of two writers"
            except ValueError as error:
                yield f"half a checkpoint: {error}"
        if turn % 10 == 9 or turn == count - 1:
            yield verdict(child(_KERNEL + "for n in range(1, 41): check(n)", folder))
    write_safetensors({"x": np.ones(1)}, target)
    left = list(folder.rglob("*.part"))
    yield None if not left else f"{len(left)} leftovers of killed writers stay"


def caches(count: int, rng: random.Random, folder: Path) -> Report:
    """Entries of the object cache that are damaged, exchanged, or no files."""
    yield verdict(child(_KERNEL + "check(3); check(4)", folder))
    entries = sorted(folder.rglob("*.o"))
    whole = {p: p.read_bytes() for p in entries}
    cache = ObjectCache(folder / "objects")
    code = {p: cache.get(p.stem) for p in entries}
    for turn in range(count):
        p = rng.choice(entries)
        data = _damaged(whole[p], whole[rng.choice(entries)], rng)
        p.unlink(missing_ok=True)
        p.write_bytes(data)
        found = cache.get(p.stem)
        yield None if found is None or found == code[p] else "damaged code was believed"
        if turn % 200 == 0:
            yield verdict(child(_KERNEL + "check(3); check(4)", folder))
        p.write_bytes(whole[p])
    for put in (os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), lambda p: os.symlink(p, p)):
        for p in entries:
            p.unlink()
            put(p)
        yield verdict(child(_KERNEL + "check(3); check(4)", folder))
        for p in entries:
            os.rmdir(p) if p.is_dir() and not p.is_symlink() else p.unlink(missing_ok=True)
            p.write_bytes(whole[p])


def _damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut off, added, taken from another file, or all gone."""
    how = rng.randrange(6)
    at = rng.randrange(len(data))
    if how == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if how == 1:
        return data[:at]
    if how == 2:
        return data + rng.randbytes(rng.randrange(1, 100))
    if how == 3:
        return data[:at] + rng.randbytes(min(16, len(data) - at)) + data[at + 16 :]
    return other if how == 4 else b""


def threads(count: int, rng: random.Random, folder: Path) -> Report:
    """Pools of 1 to 1,024 threads, and callers that want different ones at the same time."""
    x = np.arange(64 * 33, dtype=np.float32).reshape(64, 33)
    exe = elementwise(64)
    for size in (1, 2, 3, 7, 64, 255, 256, 257, 300, 1000, 1024):
        exe.num_threads = size
        for _ in range(5):
            yield None if np.array_equal(exe(x), 2 * x + 1) else f"{size} threads: wrong result"
    yield verdict(child(_KERNEL + "check(3000)", folder, TCOMP_NUM_THREADS="1024"))
    yield verdict(
        child("import os\nos.sched_getaffinity = lambda pid: set(range(384))\n" + _KERNEL + "check(3000)", folder)
    )
    exes = [elementwise(64) for _ in range(4)]
    failures: list[str] = []

    def call(n: int) -> None:
        mine, data = exes[n % 4], np.full((64, 33), n, np.float32)
        for turn in range(count):
            if turn % 50 == 0 and n < 4:
                mine.num_threads = 1 + (turn // 50 + n) % 4
            if not np.array_equal(mine(data), 2 * data + 1):
                failures.append(f"caller {n}, call {turn}: wrong result")

    callers = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(SECONDS)
    if any(t.is_alive() for t in callers):
        failures.append("callers hang")
    yield from failures
    yield from [None] * (8 * count - len(failures))


def forks(count: int, rng: random.Random, folder: Path) -> Report:
    """Children forked while their parent computes, in threads of its own."""
    exe = elementwise(64)
    exe.num_threads = 4
    x = np.arange(64 * 33, dtype=np.float32).reshape(64, 33)
    at_work = threading.Event()
    at_work.set()

    def busy() -> None:
        while at_work.is_set():
            exe(x)

    caller = threading.Thread(target=busy)
    caller.start()
    context = multiprocessing.get_context("fork")
    for _ in range(count):
        process = context.Process(target=_forked, args=(x,))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            yield f"a child hangs for {SECONDS} s"
        else:
            yield None if process.exitcode == 0 else f"a child ends with {process.exitcode}"
    at_work.clear()
    caller.join(SECONDS)
    yield None if np.array_equal(exe(x), 2 * x + 1) else "the parent computes wrongly after forks"


def _forked(x: np.ndarray) -> None:
    exe = elementwise(64)
    exe.num_threads = 3
    os._exit(0 if np.array_equal(exe(x), 2 * x + 1) else 3)


def leaks(count: int, rng: random.Random, folder: Path) -> Report:
    """Distinct models compiled and run one after another: how much the process grows."""
    code = (
        "import gc, resource\n" + _KERNEL + "from tcomp import te\n"
        "def size(): gc.collect(); return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        f"for n in range(1, 101): check(n)\nbefore = size()\nfor n in range(101, 101 + {count}): check(n)\n"
        f"grown = size() - before\nassert grown < {GROWTH}, f'grew by {{grown / 2**20:.1f}} MiB over {count} models'\n"
        "print(f'{grown / 2**20:.1f}')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TCOMP_CACHE": "0"}, capture_output=True, text=True
    )
    print(f"  leaks: {count} models, the process grew by {process.stdout.strip() or '?'} MiB")
    yield None if process.returncode == 0 else process.stderr.strip()[-300:]
    yield from [None] * (count - 1)


def checkpoints(count: int, rng: random.Random, folder: Path) -> Report:
    """Checkpoints that are damaged: loading refuses and changes nothing. Several processes that write one: one of them stays, whole."""
    batch = (np.ones((4, 3), "float32"), np.array([0, 1, 0, 1]))
    model = nn.Linear(3, 2)
    step = train.compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 0.1), batch)
    step(*batch)
    good, other, bad = folder / "good", folder / "other", folder / "bad"
    step.save(good)
    step(*batch)
    step.save(other)
    state, words = model.state_dict(), np.random.get_state()
    for _ in range(count):
        data = _damaged(good.read_bytes(), other.read_bytes(), rng)
        if data in (good.read_bytes(), other.read_bytes()):
            yield None
            continue
        bad.write_bytes(data)
        try:
            step.load(bad)
            yield "a damaged checkpoint was believed"
            step.load(other)
        except ValueError:
            same = all(np.array_equal(state[k], v) for k, v in model.state_dict().items())
            yield None if same and step.steps == 2 and np.array_equal(words[1], np.random.get_state()[1]) else "changed"
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
    shared = folder / "shared"
    code = "import numpy as np\nfrom frontend.storage import write_safetensors\nfor n in range(100): write_safetensors({{'x': np.full(20000, {n})}}, {path!r})"
    writers = [child(code.format(n=n, path=str(shared))) for n in range(4)]
    for w in writers:
        yield verdict(w)
    found = read_safetensors(shared, needs_checksum=True)["x"]
    yield None if len(set(found.tolist())) == 1 else "a checkpoint of two writers"


def hostile(count: int, rng: random.Random, folder: Path) -> Report:
    """Traces with something changed: they replay, or are refused as no schedule."""

    def product() -> Schedule:
        a, b, k = te.placeholder((16, 16), name="A"), te.placeholder((16, 16), name="B"), te.reduce_axis(16, "k")
        c = te.compute((16, 16), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
        return Schedule(te.create_prim_func([a, b, te.compute((16, 16), lambda i, j: c[i, j] + 1.0, name="D")], "p"))

    sch = product()
    i, j, k = sch.get_loops("C")
    outer, inner = sch.split(j, [None, 4])
    sch.reorder(outer, k, i, inner)
    sch.vectorize(inner)
    sch.decompose_reduction("C", k)
    sch.transform_layout("C", "C", lambda i, j: (j, i))
    sch.annotate(outer, "note", 3)
    sch.sample_perfect_tile(i, 2)
    text = sch.trace.as_json()
    for _ in range(count):
        changed = _mutated(json.loads(text), rng) if rng.random() < 0.8 else None
        source = (
            _damaged(text.encode(), b"{}", rng).decode("utf-8", "replace") if changed is None else json.dumps(changed)
        )
        try:
            Trace.from_json(source).replay(product())
            yield None
        except ScheduleError:
            yield None
        except Exception as error:
            yield f"{type(error).__name__}: {error}: {source[:200]}"


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 7, 2**62, 2**64, 1.5, float("nan"), "", "i", "C", "split", "__class__", "lambda i: i", [], [1], [[]], {}, {"handle": "i"},
)  # fmt: skip


def _mutated(data: Any, rng: random.Random) -> Any:
    """Some places of a tree of lists and dictionaries changed, doubled, or dropped."""
    for _ in range(rng.randint(1, 3)):
        at = data
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.85:
                at = at[key]
                continue
            how = rng.randrange(4)
            if how == 0:
                del at[key]
            elif how == 1 and isinstance(at, list):
                at.insert(key, at[key])
            else:
                at[key] = rng.choice(_VALUES)
            break
    return data


AREAS: dict[str, tuple[Callable[[int, random.Random, Path], Report], int]] = {
    "kills": (kills, 100),
    "caches": (caches, 4000),
    "threads": (threads, 30_000),
    "forks": (forks, 100),
    "leaks": (leaks, 3000),
    "checkpoints": (checkpoints, 3000),
    "hostile": (hostile, 20_000),
}
"""What each area does, and how often."""


def run_area(name: str, share: float, seed: int) -> tuple[int, list[str]]:
    """How many situations an area made, and what went wrong."""
    area, count = AREAS[name]
    total, failures = 0, []
    with tempfile.TemporaryDirectory(prefix="tcomp-reliability-") as folder:
        for outcome in area(max(1, int(count * share)), random.Random(f"{name} {seed}"), Path(folder)):
            total += 1
            if outcome is not None:
                failures.append(outcome)
    return total, failures


def _in_child(name: str, share: float, seed: int, answer: Any) -> None:
    answer.send(run_area(name, share, seed))


def isolated(name: str, share: float, seed: int) -> tuple[int, list[str]]:
    """Run an area in a process of its own: what kills that process is a failure, too."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_in_child, args=(name, share, seed, there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        return 1, [f"the process ended with {process.exitcode}"]
    finally:
        process.join()


def main(
    only: str = typer.Option("", help=f"areas by commas, of {', '.join(AREAS)}; by default all"),
    share: float = typer.Option(1.0, help="how much of the whole", min=0.0),
    seed: int = 0,
) -> None:
    """Make things go wrong around tcomp, and count what it does wrongly."""
    names = [n for n in only.split(",") if n] or list(AREAS)
    unknown = [n for n in names if n not in AREAS]
    if unknown:
        raise typer.BadParameter(f"no area {unknown[0]!r}: they are {', '.join(AREAS)}")
    table = Table("area", "situations", "failures", "seconds")
    total, failed = 0, 0
    for name in names:
        begun = time.perf_counter()
        situations, failures = isolated(name, share, seed)
        for text in failures[:5]:
            print(f"  {name}: {text}")
        table.add_row(name, f"{situations:,}", str(len(failures)), f"{time.perf_counter() - begun:.0f}")
        total, failed = total + situations, failed + len(failures)
    Console(width=100).print(table)
    print(f"{total} situations, {failed} failures")
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
