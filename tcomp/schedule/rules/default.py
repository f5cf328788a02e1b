"""Which rule schedules a kernel when nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import ScheduleError
from ...ir.largest import at_largest
from ...ir.primfunc import PrimFunc
from ...target import CudaTarget, Target
from ..library import domain_size, inline_elementwise
from ..schedule import Schedule
from ..source import Found
from .cpu import attention, elementwise, rows, scatter, streams, tiled_reduction, windows, winograd
from .cuda import attention as cuda_attention
from .cuda import plain, products, tensor_products, transposes
from .cuda import rows as cuda_rows
from .plan import Rule

WHOLE: tuple[Rule, ...] = (winograd, attention, cuda_attention)
"""Rules for certain operators, which know their stages by name."""
RULES: tuple[Rule, ...] = (scatter, elementwise, streams, windows, tiled_reduction, rows)
"""Rules for kernels of any kind, elementwise stages inlined, in order of preference."""
CPU_RULES: tuple[Rule, ...] = (winograd, attention, *RULES)
CUDA_RULES: tuple[Rule, ...] = (cuda_attention, tensor_products, products, cuda_rows, transposes, plain)
"""Those of GPUs."""


class Choice(NamedTuple):
    """A rule that applies to a kernel, the kernel's facts as it sees them, and what it decides."""

    rule: Rule
    problem: Any
    plan: Any


def choices(func: PrimFunc, target: Target) -> Iterator[Choice]:
    """The rules that apply to a kernel, in order of preference. Symbolic extents are planned for at their largest."""
    if any(domain_size(b) == 0 for b in func.blocks.values()):
        return
    inlined = None
    whole = at_largest(func)
    for rule in CUDA_RULES if isinstance(target, CudaTarget) else CPU_RULES:
        if rule not in WHOLE and inlined is None:
            inlined = _inlined(whole)
        seen = whole if inlined is None else inlined
        if rule.applies(seen, target):
            problem = rule.problem_of(seen)
            yield Choice(rule, problem, rule.plan(problem, target))


def follow(func: PrimFunc, rule: Rule, plan: Any) -> Schedule:
    """A kernel scheduled by a rule as a plan says.

    Raises:
        ScheduleError: a step is refused.
    """
    prepared = Schedule(func)
    rule.apply(prepared, plan)
    return prepared


def default_schedule(func: PrimFunc, target: Target) -> Found:
    """The default schedule of a kernel, the name of the rule that made it, and its plan. The schedule holds for all values of symbolic
    extents.

    Should a rule meet a step that is refused, the next one that applies is tried, and at last the plain loops stay: slow,
    and the name says so.
    """
    return next(default_schedules(func, target))


def default_schedules(func: PrimFunc, target: Target) -> Iterator[Found]:
    """The schedules by all rules that apply, in order of preference, the plain loops last; see `default_schedule`."""
    refused = ""
    for rule, _, plan in choices(func, target):
        try:
            yield Found(follow(func, rule, plan), rule.NAME + refused, plan)
        except ScheduleError as error:
            refused = f" ({rule.NAME} refused: {error.what})"
    is_empty = any(domain_size(b) == 0 for b in func.blocks.values())
    yield Found(Schedule(func), "nothing to do" if is_empty else "plain loops" + refused, None)


def _inlined(func: PrimFunc) -> PrimFunc:
    """The kernel as rules see it, elementwise stages inlined."""
    sch = Schedule(func)
    inline_elementwise(sch)
    return sch.func
