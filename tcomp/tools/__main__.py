"""python -m tcomp.tools opt|fuzz|graph-fuzz|shrink|mutate|bisect|replay-kernels|calibrate"""

from __future__ import annotations

import collections
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..backends import backend_of
from ..compiler import compile
from ..errors import TcompError
from ..ir.interp import interpret, run
from ..ir.module import IRModule
from ..ir.primfunc import PrimFunc
from ..ir.printer import text
from ..ir.repro import from_python
from ..ops.reference import evaluate
from ..passes import LOWER, Pipeline, pipeline
from ..passes.base import Pass
from ..passes.check import TOLERANCE, random_array, relative_error, run_kernels
from ..schedule.primitives import ALL as SCHEDULE_STEPS
from ..schedule.rules.default import default_schedule
from ..target import Target
from . import model_fuzz, plan_fuzz
from .calibrate import calibrate as measure
from .fuzz import agree, make_case, make_inputs, outcomes, run_case, script
from .fuzz import shrink as shrink_case
from .graph_fuzz import random_graph, verdicts
from .mutate import PLACES, mutants, run_mutants
from .replay import TARGETS, replay

app = typer.Typer(add_completion=False, help="Tools for people who work on tcomp.", no_args_is_help=True)


def read_program(path: Path) -> Any:
    """The program of a reproducer file.

    Raises:
        TcompError: the file is missing or builds no program.
    """
    if not path.is_file():
        raise TcompError(f"no file {path}")
    program = from_python(path.read_text(encoding="utf-8"))
    if not isinstance(program, (IRModule, PrimFunc)):
        raise TcompError(f"{path} builds a {type(program).__name__}", why="expected an IRModule or a PrimFunc")
    return program


def _passes() -> tuple[Pass, ...]:
    """The passes of compile() for this machine."""
    return pipeline(backend_of(Target.parse("cpu")).layout(winograd=True)).passes


@app.command()
def opt(path: Path, passes: str = typer.Option("", help="names of passes, by commas; by default all of them")) -> None:
    """Run passes on a dumped program and print the result (a kernel: schedule, lower and print LLVM IR)."""
    program = read_program(path)
    if isinstance(program, PrimFunc):
        sch, rule, _ = default_schedule(program, Target.parse("cpu"))
        print(f"# rule: {rule}\n{text(sch.func)}\n")
        print(compile(sch).ir("llvm"))
        return
    known = {type(p).__name__: p for p in _passes()}
    names = [n for n in passes.split(",") if n] or list(known)
    unknown = [n for n in names if n not in known]
    if unknown:
        raise TcompError(f"no pass {unknown[0]!r}", hint=f"one of {', '.join(known)}")
    facts = frozenset({"typed", "canonical", "fused"})
    print(text(Pipeline(tuple(known[n] for n in names), facts).run(program)))


@app.command()
def fuzz(
    cases: int = 200,
    seed: int = 0,
    jobs: int = 2,
    anyway: bool = typer.Option(False, help="apply refused steps all the same, and report those that did no harm"),
    target: str = typer.Option("cpu", help='what runs the schedules natively, such as "cuda -device=emulator"'),
) -> None:
    """Random expressions under random schedules, each run three ways and watched for races."""
    layers: collections.Counter[str] = collections.Counter()
    applied: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    harmless: collections.Counter[tuple[str, str]] = collections.Counter()
    unsupported: collections.Counter[str] = collections.Counter()
    tried = 0
    for o in track(outcomes(seed, cases, jobs, anyway, target), "fuzzing", cases, transient=True):
        layers[o.layer or ("unsupported" if o.unsupported else "agree")] += 1
        unsupported.update([_reason(o.unsupported.partition(": ")[2])] if o.unsupported else [])
        applied.update(o.steps)
        refused.update(name for name, _ in o.refused)
        harmless.update((name, _reason(why)) for name, why in o.harmless or ())
        tried += o.tried
        if o.layer:
            print(f"seed {o.case.seed}: {o.layer}: {o.detail.splitlines()[0]}")
            print(f"  replay and shrink: python -m tcomp.tools shrink {o.case.seed} --target {target!r}")
    print(f"{'primitive':<26}{'applied':>9}{'refused':>9}")
    for name in sorted(SCHEDULE_STEPS):
        print(f"{name:<26}{applied[name]:>9}{refused[name]:>9}")
    print(f"{cases} cases, {applied.total()} steps applied, {refused.total()} refused: {dict(layers)}")
    for why, count in unsupported.most_common():
        print(f"{count:>7}  the target has no code: {why}")
    if anyway:
        share = 100 * harmless.total() / max(tried, 1)
        print(f"{tried} refused steps were tried all the same: {harmless.total()} ({share:.1f} %) did no harm")
        for (name, why), count in harmless.most_common(20):
            print(f"{count:>7}  {name}: {why}")
    raise typer.Exit(1 if layers.keys() - {"agree", "unsupported"} else 0)


@app.command("graph-fuzz")
def graph_fuzz(
    cases: int = 200,
    seed: int = 0,
    jobs: int = 2,
    show: bool = typer.Option(False, help="print the graph of the first seed, and stop"),
) -> None:
    """Random graphs over all operators and dtypes, before and after each graph pass, and compiled."""
    if show:
        print(text(random_graph(seed)[0]))
        return
    failed = 0
    for at, verdict in track(verdicts(seed, cases, jobs), "fuzzing graphs", cases, transient=True):
        if verdict:
            failed += 1
            print(f"seed {at}: {verdict}\n  replay: python -m tcomp.tools graph-fuzz --cases 1 --seed {at}")
    print(f"{cases} graphs, {failed} disagreements")
    raise typer.Exit(1 if failed else 0)


@app.command("plan-fuzz")
def plan_fuzz_command(cases: int = 200, seed: int = 0, jobs: int = 2, target: str = "") -> None:
    """Random decisions of the default rules over random kernels: each is refused, or right. For CPUs drawn by chance, or --target "cuda -device=emulator"."""
    kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    failed = 0
    for outcome in track(plan_fuzz.outcomes(seed, cases, jobs, target), "fuzzing plans", cases, transient=True):
        kinds.update(outcome.kinds)
        if outcome.wrong:
            failed += 1
            print(outcome.wrong, flush=True)
    for (rule, kind), count in sorted(kinds.items()):
        print(f"{count:>7}  {rule or 'any rule'}: {kind}")
    print(f"{cases} graphs, {sum(kinds.values())} decided kernels, {failed} wrong")
    raise typer.Exit(1 if failed else 0)


@app.command("model-fuzz")
def model_fuzz_command(
    files: Annotated[list[Path], typer.Argument(help="model files to damage")],
    cases: int = 200,
    seed: int = 0,
    jobs: int = 2,
    keep: Annotated[Path | None, typer.Option(help="a folder for the files that end wrongly")] = None,
) -> None:
    """Damaged model files: each must end in a result or in a user's error, in time, within memory, and write nothing."""
    found: collections.Counter[str] = collections.Counter()
    ended = model_fuzz.outcomes(files, cases, seed, jobs, keep)
    for name, outcome in track(ended, "fuzzing files", cases, transient=True):
        found[outcome.kind] += 1
        if outcome.kind not in model_fuzz.RIGHT:
            print(f"case {name}: {outcome.kind}: {outcome.text[:600]}", flush=True)
    print(f"{cases} files: {dict(found)}")
    raise typer.Exit(0 if found.keys() <= set(model_fuzz.RIGHT) else 1)


def _reason(why: str) -> str:
    """A reason without the names in it."""
    return re.sub(r"\b(block|loop|iterator|axis) \S+", r"\1 ...", why.split(":")[0])[:90]


@app.command()
def shrink(seed: int, target: str = "cpu") -> None:
    """Replay a failing fuzz case, drop the steps that it does not need, and print it as a script."""
    outcome = run_case(make_case(seed, target), target=target)
    if not outcome.layer:
        print(f"seed {seed} passes")
        return
    outcome = run_case(shrink_case(outcome.case, outcome.layer, target=target), target=target)
    print(f"# {outcome.layer}: {outcome.detail}\n# {outcome.case}\n{script(outcome)}")


@app.command()
def mutate(
    place: str = typer.Option("schedule", help=f"which checks: {', '.join(PLACES)}"),
    name: str = typer.Option("", help="only checks in whose function's name this regular expression is found"),
    tests: str = typer.Option("", help="the tests that should notice, by commas; those of the place by default"),
    jobs: int = 2,
) -> None:
    """Remove each refusal of a place's checks in turn, and see whether the tests notice."""
    if place not in PLACES:
        raise TcompError(f"no place {place!r}", hint=f"one of {', '.join(PLACES)}")
    chosen = list(mutants(place, name))
    noticing = [Path(t).resolve() for t in ([t for t in tests.split(",") if t] or PLACES[place].tests)]
    survivors = 0
    for mutant, killer in track(run_mutants(chosen, noticing, jobs), "mutants", len(chosen), transient=True):
        survivors += not killer
        verdict = f"noticed by {killer.rsplit('::', 1)[-1]}" if killer else "NOT NOTICED"
        print(f"{mutant.path}:{mutant.line} {mutant.function}: {mutant.reason[:70]}: {verdict}")
    print(f"{len(chosen)} checks removed in turn, {len(chosen) - survivors} noticed, {survivors} not")
    raise typer.Exit(1 if survivors else 0)


@app.command()
def bisect(path: Path) -> None:
    """Name the first pass or lowering step that changes a dumped program's answer."""
    program = read_program(path)
    (_bisect_kernel if isinstance(program, PrimFunc) else _bisect_module)(program)


def _report(name: str, error: float) -> None:
    verdict = "ok" if error <= TOLERANCE else "CHANGES THE ANSWER"
    print(f"{name:<32} relative error {error:9.2e}  {verdict}")
    if error > TOLERANCE:
        raise typer.Exit(1)


def _bisect_module(module: IRModule) -> None:
    rng = np.random.default_rng(0)
    inputs = [random_array(p.type, rng) for p in module.main.params]
    want = evaluate(module, inputs, exact=True)
    lowering = {type(p) for p in LOWER.passes}
    for p in _passes():
        if type(p) in lowering:
            continue
        module = Pipeline((p,), module.facts | p.requires).run(module)
        got = evaluate(module, inputs, exact=True)
        _report(type(p).__name__, max(map(relative_error, got, want)))
    module = LOWER.run(module)
    _report("LowerToPrimFuncs", max(map(relative_error, run_kernels(module, inputs), want)))
    for name, f in module.functions.items():
        if isinstance(f, PrimFunc):
            print(f"kernel {name}:")
            _bisect_kernel(f)


def _bisect_kernel(func: PrimFunc) -> None:
    inputs = make_inputs(func, 0)
    want = run(func, inputs)
    sch, rule, _ = default_schedule(func, Target.parse("cpu"))
    _report(f"schedule ({rule})"[:32], max(map(relative_error, run(sch.func, inputs), want)))
    lowered = sch.func
    for step in backend_of(Target.parse("cpu")).steps:
        lowered = step(lowered)
        flat = all(len(b.shape) == 1 for b in lowered.buffers)
        outputs = [np.zeros_like(w) for w in want]
        views = [a.reshape(-1) if flat else a for a in (*inputs, *outputs)]
        interpret(lowered, *views)
        _report(step.__name__, max(map(relative_error, outputs, want)))
    out = compile(sch)(*inputs)
    got = list(out) if isinstance(out, tuple) else [out]
    _report("native", max(map(relative_error, got, want)))
    assert all(map(agree, got, want))


@app.command("replay-kernels")
def replay_kernels(
    before: Path,
    source: str = typer.Option("benchmarks.programs:few", help="module:function that yields (name, program)"),
    target: Annotated[
        list[str] | None, typer.Option(help=f"a target, or several (--target T --target U); by default {TARGETS}")
    ] = None,
    share: int = typer.Option(0, help="number of the first program"),
    of: int = typer.Option(1, help="take each program whose number is SHARE modulo this"),
    show: bool = typer.Option(False, help="print how schedules differ, or else the code"),
) -> None:
    """Generate all kernels of a list of programs with another checkout of tcomp and with this one, and list those that differ."""
    count = changed = worded = 0
    for program, change in replay(before.resolve(), source, target or TARGETS, share, of):
        count += 1
        if sys.stderr.isatty():
            print(f"\r{count:>6} kernels, {changed} differ; {program:<50.50}", end="", file=sys.stderr)
        if change is not None and not change.code:
            worded += 1
        elif change is not None:
            changed += 1
            print(change, flush=True)
            if show:
                print(change.schedule or change.code)
    print(f"{count} kernels, the code of {changed} differs, only the schedule's wording of {worded}")
    raise typer.Exit(1 if changed else 0)


@app.command()
def calibrate() -> None:
    """Measure what this CPU's operations cost, beside the constants that the default rules plan with."""
    target = Target.parse("cpu")
    table = Table("constant", "assumed", "measured here", "unit", "what", "measured on")
    for row in track(measure(), "measuring", transient=True):
        shown = "" if row.measured is None else f"{row.measured:.3g}"
        table.add_row(row.name, f"{row.assumed:.3g}", shown, row.unit, row.what, row.where)
    terminal = Console(markup=False)
    console = terminal if terminal.is_terminal else Console(width=180, markup=False)
    console.print(f"{target}; one core, vectors busy")
    console.print(table)


def main() -> None:
    try:
        app()
    except TcompError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
