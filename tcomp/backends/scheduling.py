"""Where schedules meet code generation."""

from __future__ import annotations

from typing import Any

from ..codegen.build import Scheduled, Scheduler
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


def cuda_scheduler(target: CudaTarget) -> Scheduler:
    """What schedules a kernel by the default rules of GPUs."""
    return lambda func: told(rules.default_schedule(func, target))
