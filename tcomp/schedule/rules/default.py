"""Which rule schedules a kernel when nobody else does."""

from __future__ import annotations

from ...errors import ScheduleError
from ...ir.largest import at_largest
from ...ir.primfunc import PrimFunc
from ...target import CpuTarget
from ..library import domain_size, inline_elementwise
from ..schedule import Schedule
from ..source import Found
from .cpu import attention, elementwise, rows, scatter, streams, tiled_reduction, windows, winograd
from .plan import Rule

WHOLE: tuple[Rule, ...] = (winograd, attention)
"""Rules for certain operators, which know their stages by name."""
RULES: tuple[Rule, ...] = (scatter, elementwise, streams, windows, tiled_reduction, rows)
"""Rules for kernels of any kind, elementwise stages inlined, in order of preference."""


def default_schedule(func: PrimFunc, target: CpuTarget) -> Found:
    """The default schedule of a kernel, the name of the rule that made it, and its plan. Symbolic extents are planned for at their
    largest; the schedule holds for all.

    Should a rule meet a step that is refused, the next one that applies is tried, and at last the plain loops stay: slow,
    and the name says so.
    """
    if any(domain_size(b) == 0 for b in func.blocks.values()):
        return Found(Schedule(func), "nothing to do", None)
    refused, inlined = "", None
    whole = at_largest(func)
    for rule in (*WHOLE, *RULES):
        if rule not in WHOLE and inlined is None:
            inlined = _inlined(whole)
        seen = whole if inlined is None else inlined
        if not rule.applies(seen, target):
            continue
        prepared = Schedule(func)
        plan = rule.plan(rule.problem_of(seen), target)
        try:
            rule.apply(prepared, plan)
        except ScheduleError as error:
            refused = f" ({rule.NAME} refused: {error.what})"
            continue
        return Found(prepared, rule.NAME + refused, plan)
    return Found(Schedule(func), "plain loops" + refused, None)


def _inlined(func: PrimFunc) -> PrimFunc:
    """The kernel as rules see it, elementwise stages inlined."""
    sch = Schedule(func)
    inline_elementwise(sch)
    return sch.func
