"""Whether two checkouts of tcomp generate the same code: all kernels of a list of programs, made by both and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ..errors import TcompError

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "llvm -mcpu=skylake-avx512 -num-cores=1 -l1=32K -l2=1M -l3=16M",
    "llvm -mcpu=znver4 -num-cores=2 -l1=32K -l2=1M -l3=32M",
    "llvm -mcpu=haswell -num-cores=8 -l1=32K -l2=256K -l3=8M",
)
"""Machines that differ in width, registers, caches and cores; their code is generated here, not run."""


@dataclass(frozen=True, slots=True)
class Change:
    """A kernel that the two checkouts make differently.

    Attributes:
        rules: the rule before and after, "" where the checkout does not make the kernel; schedule: the difference of the schedules' texts, as a diff; code: of the LLVM IR, values and
            labels numbered. "" where they are the same: a schedule may say the same in other words.
    """

    program: str
    target: str
    kernel: str
    rules: tuple[str, str]
    schedule: str
    code: str

    def __str__(self) -> str:
        before, after = self.rules
        if not (before and after):
            return f"{self.program} [{self.target}] kernel {self.kernel}: only made {'before' if before else 'now'}"
        rule = f"rule {before}" if before == after else f"rule {before} -> {after}"
        what = "the schedule and the code differ" if self.schedule else "the code differs, the schedule's text does not"
        return f"{self.program} [{self.target}] kernel {self.kernel}: {rule}; {what}"


def replay(
    before: Path, source: str, targets: Sequence[str] = TARGETS, share: int = 0, of: int = 1
) -> Iterator[tuple[str, Change | None]]:
    """Compare the kernels of programs, in the order of the source.

    Args:
        before: another checkout. source: "module:function" of something that yields (name, program), found from this checkout.
        share, of: only every `of`-th program, from number `share` on.

    Returns:
        (program, what differs) for each kernel.

    Raises:
        TcompError: a checkout is missing, or one of the two failed to compile a program.
    """
    if not (before / "tcomp").is_dir():
        raise TcompError(f"no checkout of tcomp in {before}")
    old, new = (_side(checkout, source, targets, share, of) for checkout in (before, ROOT))
    place = itemgetter("program", "target")
    for (where, a), (there, b) in zip(groupby(old, place), groupby(new, place), strict=True):
        assert where == there
        sides = [{r["kernel"]: r for r in records} for records in (a, b)]
        for kernel in dict.fromkeys([*sides[0], *sides[1]]):
            nothing = {
                "program": where[0],
                "target": where[1],
                "kernel": kernel,
                "rule": "",
                "schedule": "",
                "code": "",
            }
            yield where[0], _compare(*(side.get(kernel, nothing) for side in sides))


def _side(checkout: Path, source: str, targets: Sequence[str], share: int, of: int) -> Iterator[dict[str, str]]:
    script = Path(__file__).with_name("record_kernels.py")
    command = [sys.executable, str(script), str(checkout), source, str(share), str(of), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise TcompError(f"{checkout} failed on {source}", why=f"status {process.returncode}; see above")


def _compare(a: dict[str, str], b: dict[str, str]) -> Change | None:
    if all(a[key] == b[key] for key in ("code", "schedule", "rule")):
        return None
    rules = a["rule"], b["rule"]
    return Change(b["program"], b["target"], b["kernel"], rules, *(_diff(a[k], b[k]) for k in ("schedule", "code")))


def _diff(a: str, b: str) -> str:
    return "\n".join(unified_diff(a.splitlines(), b.splitlines(), "before", "after", n=1, lineterm=""))
