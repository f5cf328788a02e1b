"""Plans as data: decided by arithmetic, legal for any machine and shape; any legal plan is refused or right."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from test_rules import GRAPHS, STREAMS, kernels

import tcomp
from tcomp.dtype import float32, int8
from tcomp.errors import ScheduleError
from tcomp.ir.primfunc import PrimFunc
from tcomp.schedule import Schedule
from tcomp.schedule.library import inline_elementwise
from tcomp.schedule.rules.cpu import attention, elementwise, rows, scatter, streams, tiled_reduction, windows, winograd
from tcomp.schedule.rules.cpu.common import Work
from tcomp.schedule.rules.cpu.layout import CpuLayout, open_problem
from tcomp.schedule.rules.default import default_schedule
from tcomp.schedule.rules.plan import described, space
from tcomp.target import CostModel, CpuTarget, Target
from tcomp.target.costs import described as costs_described
from tcomp.target.families import names
from tcomp.tools.fuzz import agree, make_inputs

RULES: dict[str, ModuleType] = {
    r.NAME: r for r in (attention, elementwise, rows, scatter, streams, tiled_reduction, windows, winograd)
}
TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
CPUS = [(arch, name) for arch in TRIPLES for name in names(arch)]


def target_of(arch: str, cpu: str, cores: int = 4) -> CpuTarget:
    return Target.parse(f"llvm -mtriple={TRIPLES[arch]} -mcpu={cpu} -num-cores={cores}")


def size(rng: np.random.Generator, most: int) -> int:
    """Small and large numbers alike."""
    return int(np.exp(rng.uniform(0, np.log(most))))


def random_problem(rule: ModuleType, rng: np.random.Generator) -> Any:
    """Facts of a kernel that nobody had in mind."""

    def n(most: int) -> int:
        return size(rng, most)

    work, itemsize = Work(n(10**9), n(10**6), n(10**8)), int(rng.choice([1, 2, 4, 8]))
    match rule.NAME:
        case "attention":
            keys = n(2000)
            return attention.Problem(
                n(50), n(1000), keys, n(300), n(300), int(rng.choice([0, keys])) // 64 * 64, 4, work
            )
        case "elementwise":
            return elementwise.Problem(itemsize, work)
        case "scatter":
            return scatter.Problem(itemsize, n(5000), work, Work(n(10**9), 0, n(10**8)))
        case "rows":
            runs = tuple(rows.Run(n(10**5), bool(rng.integers(2))) for _ in range(rng.integers(1, 4)))
            return rows.Problem(itemsize, work, runs, n(10**7) if len(runs) == 1 and rng.integers(2) else 0)
        case "streams":
            return streams.Problem(n(40), n(10**5), itemsize, work)
        case "tiled reduction":
            extents = tuple(n(500) for _ in range(rng.integers(1, 5)))
            if rng.integers(2):
                columns = n(3000)
                return open_problem((n(300), columns), (n(3000), columns), float32)
            return tiled_reduction.Problem(
                extents, n(5000), itemsize, n(10**8), work, n(500), int(rng.integers(3)), tuple(n(10**5) for _ in range(rng.integers(3))),
                int(rng.choice([0, 7, 16, 32, 64])), bool(rng.integers(2)), bool(rng.integers(2)), (("B", n(5000), n(10**5)),) if rng.integers(2) else (),
                (float32, int8) if rng.integers(2) else None, bool(rng.integers(2)),
            )  # fmt: skip
        case "windows":
            return windows.Problem((n(8), n(200), 4 + n(200), 4 + n(500)), itemsize, n(10**8), work)
    m = int(rng.choice([2, 4]))
    return winograd.Problem(m, n(200), n(100), 16 * n(60), 16 * n(60), 64, 4, work)


@pytest.mark.parametrize(("arch", "cpu"), CPUS, ids=lambda v: str(v))
def test_rules_plan_legally_for_every_listed_cpu(arch: str, cpu: str) -> None:
    rng = np.random.default_rng(5)
    for cores in (1, 2, 64):
        target = target_of(arch, cpu, cores)
        for rule in RULES.values():
            for _ in range(4):
                problem = random_problem(rule, rng)
                plan = rule.plan(problem, target)
                legal = space(type(plan), problem, target)
                for f in fields(plan):
                    value = getattr(plan, f.name)
                    assert value in legal[f.name], f"{rule.NAME}: {f.name} = {value} for {problem}"


def test_plans_print_every_decision_with_what_it_decides() -> None:
    target = target_of("x86_64", "znver4")
    (func,) = kernels(GRAPHS["matmul"][0])
    found = default_schedule(func, target)
    lines = described(found.plan).splitlines()
    assert [line.split()[0] for line in lines] == [f.name for f in fields(found.plan)]
    assert all("  # " in line for line in lines)


def inlined(func: PrimFunc, rule: ModuleType) -> PrimFunc:
    sch = Schedule(func)
    if rule not in (attention, winograd):
        inline_elementwise(sch)
    return sch.func


CASES = {name: build for name, (build, _) in GRAPHS.items()} | STREAMS


def native(program: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    out = tcomp.compile(program, num_threads=2)(*inputs)
    return list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.drawn(1 / 4)
def test_any_legal_plan_is_refused_or_right(name: str) -> None:
    """A search may take any value that the plan calls legal: the answer stays."""
    rng = np.random.default_rng(len(name))
    (func,) = kernels(CASES[name])
    inputs = make_inputs(func, 3)
    want = native(func, inputs)  # test_rules compares it with the interpreter
    done = 0
    for rule in RULES.values():
        seen = inlined(func, rule)
        target = Target.parse(
            str(rng.choice(["llvm -mcpu=x86-64-v4 -num-cores=2", "llvm -mcpu=haswell -num-cores=2 -l1=2K -l2=8K"]))
        )
        if not rule.applies(seen, target):
            continue
        problem = rule.problem_of(seen)
        plan = rule.plan(problem, target)
        legal = space(type(plan), problem, target)
        for _ in range(3):
            changed = rng.choice([f.name for f in fields(plan)], 2, replace=False)
            other = replace(plan, **{k: legal[k][int(rng.integers(len(legal[k])))] for k in changed})
            sch = Schedule(func)
            try:
                rule.apply(sch, other)
            except ScheduleError:
                continue
            done += 1
            assert all(map(agree, native(sch, inputs), want)), f"{rule.NAME}: {other}"
    assert done


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_is_carried_out_is_the_plan(rule: ModuleType) -> None:
    """apply gets a schedule and a plan, and a plan holds values, no target to ask."""
    assert list(inspect.signature(rule.apply).parameters) == ["sch", "plan"]
    plan = rule.plan(random_problem(rule, np.random.default_rng(1)), target_of("x86_64", "haswell"))
    held = [getattr(plan, f.name) for f in fields(plan)]
    assert all(isinstance(v, (int, str)) or (isinstance(v, tuple) and all(type(x) is int for x in v)) for v in held)


def test_layouts_are_those_of_the_kernels_to_come() -> None:
    """The panel that the packing pass is told is the tile that the kernel's plan has."""
    rng = np.random.default_rng(0)
    target = target_of("x86_64", "znver5", 2)
    layout = CpuLayout(target)
    for _ in range(50):
        m, k, n = size(rng, 500), size(rng, 3000), size(rng, 3000)
        width = layout.panel((m, n), (k, n), float32)
        if n == 1:
            assert width == 0
            continue
        fixed = replace(open_problem((m, n), (k, n), float32), panel=width)
        plan = tiled_reduction.plan(fixed, target)
        assert plan.vectors * target.lanes(4) == width


def test_costs_say_where_they_were_measured() -> None:
    rows_ = costs_described()
    assert {name for name, *_ in rows_} == {f.name for f in fields(CostModel)}
    assert all(unit and what and where for _, _, unit, what, where in rows_)


def test_costs_decide() -> None:
    """A machine whose regions cost more runs small kernels on one core."""
    target = target_of("x86_64", "znver4")
    problem = elementwise.Problem(4, Work(10**6, 0, 10**6))
    assert elementwise.plan(problem, target).parallel
    assert not elementwise.plan(problem, replace(target, costs=CostModel(parallel_seconds=1.0))).parallel
