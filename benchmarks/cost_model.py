"""How well the tuner's model of costs orders a kernel's candidates, and what a search by it finds, against chance.

python -m benchmarks.cost_model [--cases '^mm_512x512x512$|^conv1x1_1x7x160x960_s1$'] [--candidates 200]

For each kernel, candidates near the default and anywhere are measured as the tuner does. Then, over several orders: the model learns from 24 of
them, and its rank correlation with the rest is taken; and a search of 16 measurements (8 by chance, then twice the 4 that the model likes best) is
compared with 16 by chance: by how much the best of each is slower than the best of all.
"""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tcomp
from tcomp.backends import backend_of
from tcomp.driver import lower
from tcomp.tuner.build import build
from tcomp.tuner.cost_model import RidgeModel
from tcomp.tuner.measure import Bench
from tcomp.tuner.space import Candidate
from tcomp.tuner.task import Task

from .shapes import cases_of

CASES = (
    "mm_512x512x512", "mm_128x768x768", "mmd_128x384x384", "mm_999x64x500", "mm_16x1024x1024", "conv3x3_1x28x256x256_s2",
    "conv1x1_1x14x1024x256_s1", "conv1x1_1x7x160x960_s1", "conv3x3_1x56x144x144_s1_g144", "mean_1024x1024_0",
)  # fmt: skip
LEARNT, TRIED, FIRST, BATCH, ORDERS = 24, 16, 8, 4, 20


def measured(name: str, count: int) -> tuple[list[Candidate], np.ndarray]:
    """Distinct candidates of a case (of its kernel with the most blocks, if there are several), and their ratios to the default."""
    target = tcomp.Target.parse("cpu -num-cores=1")
    module = next(c for c in cases_of("", "NHWC", 0, 0) if c.name == name).make()[0]
    kernels = lower(lambda: module, backend_of(target), True).module.kernels.values()
    task = Task(max(kernels, key=lambda f: len(f.blocks)), target)
    space, rng = task.space, np.random.default_rng(0)
    assert space.default is not None
    bench = Bench(task, build(task.func, target, space.default, key=task.key), 1)
    found: dict[Candidate, float] = {}
    programs: set[str] = set()
    for _ in range(20 * count):
        c = space.random(rng) if rng.random() < 0.3 else space.mutated(space.default, rng, int(rng.integers(1, 5)))
        if len(found) == count or not np.isfinite(space.cost(c)) or c in found:
            continue
        built = build(task.func, target, c, frozenset(programs), task.key)
        if built.code:
            programs.add(built.program)
            found[c] = bench.ratio(built, 1.0)
    return list(found), np.array(list(found.values()))


def correlation(candidates: list[Candidate], ratios: np.ndarray, order: np.ndarray) -> float:
    """Of ranks, after LEARNT measurements."""
    model, rest = RidgeModel(), order[LEARNT:]
    model.fit([candidates[i] for i in order[:LEARNT]], ratios[order[:LEARNT]].tolist())
    pairs = np.stack([model.predict([candidates[i] for i in rest]), ratios[rest]])
    ranks: np.ndarray = np.asarray(np.corrcoef(pairs.argsort(axis=1).argsort(axis=1)))
    return float(ranks[0, 1])


def loss(candidates: list[Candidate], ratios: np.ndarray, order: np.ndarray) -> float:
    """How much slower than the best of all is the best of a search by the model."""
    tried = order[:FIRST].tolist()
    while len(tried) < TRIED:
        model, rest = RidgeModel(), [i for i in order if i not in tried]
        model.fit([candidates[i] for i in tried], ratios[tried].tolist())
        liked = np.argsort(-model.predict([candidates[i] for i in rest]), kind="stable")[:BATCH]
        tried += [rest[i] for i in liked]
    return float(ratios.max() / ratios[tried].max() - 1)


def main(
    cases: Annotated[str, typer.Option(help="a regular expression for names of benchmarks.shapes")] = "",
    candidates: int = 200,
) -> None:
    """Measure, then compare the model with chance; a table."""
    names = [c.name for c in cases_of("", "NHWC", 0, 0) if re.search(cases, c.name)] if cases else list(CASES)
    table = Table("kernel", "candidates", "best", "rank correlation", "loss by the model", "loss by chance")
    rows = []
    for name in names:
        found, ratios = measured(name, candidates)
        orders = [np.random.default_rng(s).permutation(len(found)) for s in range(ORDERS)]
        by_chance = float(np.mean([ratios.max() / ratios[o[:TRIED]].max() - 1 for o in orders]))
        row = (float(np.mean([correlation(found, ratios, o) for o in orders])), float(np.mean([loss(found, ratios, o) for o in orders])), by_chance)  # fmt: skip
        rows.append(row)
        table.add_row(name, str(len(found)), f"{ratios.max():.3f}", f"{row[0]:.2f}", f"{row[1]:.1%}", f"{row[2]:.1%}")
    mean = np.mean(rows, axis=0)
    table.add_row("mean", "", "", f"{mean[0]:.2f}", f"{mean[1]:.1%}", f"{mean[2]:.1%}")
    print(tcomp.Target.parse("cpu"))
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
