"""Where schedules meet code generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..codegen.build import Scheduled, Scheduler
from ..errors import UnsupportedError
from ..ir.primfunc import PrimFunc
from ..lazy import lazy_module
from ..target import CpuTarget, CudaTarget

# what a model whose kernels are all in the cache does not need
plans = lazy_module("tcomp.schedule.rules.plan")
rules = lazy_module("tcomp.schedule.rules.default")


def told(found: Any) -> Scheduled:
    """What a source of schedules has found, as code generation wants it."""
    plan = "" if found.plan is None else plans.described(found.plan)
    return Scheduled(found.schedule.func, found.origin, str(found.schedule.trace), plan)


def cpu_scheduler(target: CpuTarget) -> Scheduler:
    """What schedules a kernel by the default rules of CPUs."""
    return lambda func: told(rules.default_schedule(func, target))


def cuda_scheduler(target: CudaTarget, check: Callable[[PrimFunc], None]) -> Scheduler:
    """What schedules a kernel by the default rules of GPUs: by the first one whose launches the target can run.

    Args:
        check: raises UnsupportedError where it cannot.
    """

    def schedule(func: PrimFunc) -> Scheduled:
        why = ""
        for found in rules.default_schedules(func, target):
            try:
                check(found.schedule.func)
            except UnsupportedError as error:
                why = f" ({found.origin} does not fit: {error.why})"
                continue
            return told(found._replace(origin=found.origin + why))
        return told(rules.default_schedule(func, target))  # which says what is wrong when its code is made

    return schedule
