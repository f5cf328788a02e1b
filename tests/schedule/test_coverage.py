"""Every primitive has tests of what it does, of its trace, and of what it refuses."""

import test_families
import test_primitives
from harness import expect
from kernels import matmul

from tcomp.schedule import Schedule
from tcomp.schedule.primitives import ALL


def test_every_primitive_is_seen_to_work_and_to_replay() -> None:
    seen: set[str] = set()
    older = [
        f
        for n, f in vars(test_primitives).items()
        if n in ("_split", "_fuse", "_reorder", "_kinds", "_inline", "_caches")
    ]
    older += [test_primitives._compute_at, test_primitives._reverse_compute_at, test_primitives._decompose]
    for steps, func in [*test_families.DONE, *((f, matmul) for f in older)]:
        sch = Schedule(func())
        steps(sch)
        seen |= {step.method for step, _ in sch.history}
    rfactored = Schedule(test_families.row_sum())
    rfactored.rfactor("S", rfactored.get_loops("S")[1])
    seen |= {step.method for step, _ in rfactored.history}
    assert not ALL.keys() - seen


def test_every_primitive_is_seen_to_refuse() -> None:
    tables = [*test_families.REFUSED, *test_primitives.REFUSED, *test_primitives.RFACTOR_REFUSED]
    refused = {expect(func(), reason, step) for reason, func, step in tables}
    assert not ALL.keys() - refused
