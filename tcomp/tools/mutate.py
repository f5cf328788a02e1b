"""Mutation testing of checks: remove each refusal in turn, and see whether the tests notice.

A mutant is the package with one refusal taken out, so that the check falls through: of the schedule's legality checks a `return` of
a refusal (or of a reason for one), elsewhere a `raise`. It is killed when some test of the place fails.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Place:
    """Files with checks, and the tests that should notice where one is missing.

    Attributes:
        files: patterns, relative to the package.
        tests: relative to the repository.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]


PLACES = {
    "schedule": Place(("schedule/primitives/*.py",), ("tests/schedule",)),
    "traces": Place(("schedule/trace.py",), ("tests/schedule/test_hostile.py", "tests/schedule/test_primitives.py")),
    "te": Place(("te/*.py", "analysis/check.py"), ("tests/te", "tests/test_extremes.py")),
    "graphs": Place(
        ("ops/builder.py", "ops/scatter.py"),
        ("tests/test_control.py", "tests/ops/test_operators.py", "tests/test_symbolic.py"),
    ),
    "calls": Place(
        ("runtime/arguments.py", "runtime/extents.py", "runtime/executable.py", "runtime/threads.py", "config.py"),
        (
            "tests/test_arguments.py",
            "tests/test_names.py",
            "tests/test_compile.py",
            "tests/passes/test_update.py",
            "tests/ops/test_operators.py",
            "tests/codegen/test_old_cpus.py",
            "tests/codegen/test_threads.py",
        ),
    ),
    "targets": Place(
        ("target/base.py", "target/parse.py", "codegen/llvm/generator.py"),
        ("tests/test_target.py", "tests/schedule/test_effects.py", "tests/schedule/test_hostile.py"),
    ),
}
"""Where there are checks."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One refusal that is taken out.

    Attributes:
        path: of the file, relative to the package; number: which of its refusals; function, line: where it stands.
        reason: the text of the refusal, or of its condition.
        is_raise: whether it is raised, and not returned.
    """

    path: str
    number: int
    function: str
    line: int
    reason: str
    is_raise: bool = False


class _Finder(ast.NodeTransformer):
    """Counts the refusals of a file; takes one out."""

    def __init__(self, source: str, takes_raises: bool, remove: int = -1) -> None:
        self.source, self.takes_raises, self.remove = source, takes_raises, remove
        self.found: list[tuple[str, int, str]] = []
        self.function: ast.FunctionDef | None = None

    def visit_Raise(self, s: ast.Raise) -> ast.AST:
        # of what an "except" passes on, only the wording would go
        if self.function is None or s.exc is None or s.cause is not None or not self.takes_raises:
            return s
        shown = s.exc.args[0] if isinstance(s.exc, ast.Call) and s.exc.args else s.exc
        self.found.append((self.function.name, s.lineno, ast.unparse(shown)))
        return ast.copy_location(ast.Pass(), s) if len(self.found) - 1 == self.remove else s

    def visit_FunctionDef(self, f: ast.FunctionDef) -> ast.AST:
        outer, self.function = self.function, f
        self.generic_visit(f)
        self.function = outer
        return f

    def _texts(self) -> bool:
        """Whether the function answers with a reason in words."""
        assert self.function is not None and self.function.returns is not None
        return "str" in ast.unparse(self.function.returns).split(" | ")

    def visit_Return(self, s: ast.Return) -> ast.AST:
        if self.function is None or s.value is None or self.takes_raises:
            return s
        calls = [x for x in ast.walk(s.value) if isinstance(x, ast.Call) and getattr(x.func, "id", "") == "Refusal"]
        is_text = isinstance(s.value, (ast.JoinedStr, ast.Constant)) and self._texts()
        if isinstance(s.value, ast.Constant) and not isinstance(s.value.value, str):
            return s
        passed_on = isinstance(s.value, ast.Name) and s.value.id in ("refusal", "moved", "found", "tiles", "buffer")
        if not (calls or is_text or passed_on) or self.function.name.startswith("apply_"):
            return s
        shown = calls[0].args[1] if calls and len(calls[0].args) > 1 else s.value
        self.found.append((self.function.name, s.lineno, ast.unparse(shown)))
        if len(self.found) - 1 != self.remove:
            return s
        is_last = self.function.body[-1] is s
        return ast.copy_location(ast.Return(ast.Constant(None)) if is_last else ast.Pass(), s)


def mutants(place: str = "schedule", name: str = "") -> Iterator[Mutant]:
    """All refusals of a place, or those of functions in whose name a regular expression is found."""
    for path in sorted(p for pattern in PLACES[place].files for p in PACKAGE.glob(pattern)):
        source = path.read_text(encoding="utf-8")
        finder = _Finder(source, place != "schedule")
        finder.visit(ast.parse(source))
        for number, (function, line, reason) in enumerate(finder.found):
            if re.search(name, function):
                yield Mutant(str(path.relative_to(PACKAGE)), number, function, line, reason, place != "schedule")


class Workplace:
    """A copy of the package in which mutants are made, one at a time."""

    def __init__(self, tests: Sequence[Path]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tcomp-mutants-"))
        self.tests = tests
        for package in (PACKAGE, PACKAGE.parent / "frontend"):
            shutil.copytree(package, self.folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, mutant: Mutant | None) -> str:
        """The test that fails with a mutant (None: the package as it is); "" where all pass."""
        path = self.folder / "tcomp" / mutant.path if mutant else None
        source = path.read_text(encoding="utf-8") if path else ""
        if mutant is not None and path is not None:
            tree = _Finder(source, mutant.is_raise, mutant.number).visit(ast.parse(source))
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
        try:
            # the tests of refusals first: they are quick, and most mutants end there
            return self._failing("-k", "refus") or self._failing()
        finally:
            if path is not None:
                path.write_text(source, encoding="utf-8")

    def _failing(self, *options: str) -> str:
        """The first test that fails."""
        env = {**os.environ, "PYTHONPATH": str(self.folder), "TCOMP_CACHE_DIR": str(self.folder / "cache")}
        command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        done = subprocess.run(
            [*command, "-m", "not slow", *options, *map(str, self.tests)],
            capture_output=True,
            text=True,
            env=env,
            cwd=self.tests[0] if self.tests[0].is_dir() else self.tests[0].parent,
        )
        if done.returncode in (0, 5):  # 5: none was chosen
            return ""
        failed = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" - ")[0] if failed else f"pytest ended with {done.returncode}"

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def run_mutants(chosen: list[Mutant], tests: Sequence[Path], jobs: int) -> Iterator[tuple[Mutant, str]]:
    """Each mutant and the test that notices it ("" where none does), as they are done.

    Raises:
        RuntimeError: the tests fail without any mutant.
    """
    places: SimpleQueue[Workplace] = SimpleQueue()
    made = [Workplace(tests) for _ in range(jobs)]
    for place in made:
        places.put(place)

    def one(mutant: Mutant) -> tuple[Mutant, str]:
        place = places.get()
        try:
            return mutant, place.run(mutant)
        finally:
            places.put(place)

    try:
        broken = made[0].run(None)
        if broken:
            raise RuntimeError(f"the tests fail as they are: {broken}")
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, chosen)
    finally:
        for place in made:
            place.close()
