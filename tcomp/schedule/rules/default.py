"""Which rule schedules a kernel when nobody else does."""

from __future__ import annotations

from types import ModuleType

from ...errors import ScheduleError
from ...ir.primfunc import PrimFunc
from ...target import Target
from ..library import inline_elementwise, points
from ..schedule import Schedule
from .cpu import attention, elementwise, rows, streams, tiled_reduction, windows, winograd

WHOLE: tuple[ModuleType, ...] = (winograd, attention)
"""Rules for certain operators, which know their stages by name."""
RULES: tuple[ModuleType, ...] = (elementwise, streams, windows, tiled_reduction, rows)
"""Rules for kernels of any kind, elementwise stages inlined, in order of preference. A rule has NAME, applies(func, target) and
apply(sch, target)."""


def default_schedule(func: PrimFunc, target: Target) -> tuple[Schedule, str]:
    """The default schedule of a kernel, and the name of the rule that made it.

    Should a rule meet a step that is refused, the next one that applies is tried, and at last the plain loops stay: slow,
    and the name says so.
    """
    if any(points(b) == 0 for b in func.blocks.values()):
        return Schedule(func), "nothing to do"
    refused, inlined = "", None
    for rule in (*WHOLE, *RULES):
        if rule not in WHOLE and inlined is None:
            inlined = _inlined(func)
        if not rule.applies(func if inlined is None else inlined, target):
            continue
        prepared = Schedule(func)
        try:
            rule.apply(prepared, target)
        except ScheduleError as error:
            refused = f" ({rule.NAME} refused: {error.what})"
            continue
        return prepared, rule.NAME + refused
    return Schedule(func), "plain loops" + refused


def _inlined(func: PrimFunc) -> PrimFunc:
    """The kernel as rules see it, elementwise stages inlined."""
    sch = Schedule(func)
    inline_elementwise(sch)
    return sch.func
