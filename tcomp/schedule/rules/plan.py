"""Plans: what a default rule has decided, as data.

A rule is a module with NAME, `applies(func, target)`, `problem_of(func)` (the facts of a kernel), `plan(problem, target)` (pure
arithmetic, a frozen dataclass) and `apply(sch, plan)` (public steps of Schedule, no decision). Every field of a plan is a `decision`:
it says what is decided, and which values are legal. A rule may have `cost(problem, plan, target)`, too: what arithmetic says of any plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, fields
from typing import Any, Protocol

from ...ir.primfunc import PrimFunc
from ...target import Target
from ..schedule import Schedule

Legal = Callable[[Any, Any], Sequence[Any]]
"""(problem, target) -> the values that a decision may take."""


def decision(what: str, legal: Legal, is_scale: bool = True) -> Any:
    """A field of a plan.

    Args:
        what: is decided. legal: the values to choose from. is_scale: whether neighbours among these are alike, so that a search need not look
            at all of many.
    """
    return field(metadata={"what": what, "legal": legal, "is_scale": is_scale})


def yes_or_no(problem: Any, target: Any) -> Sequence[bool]:
    """Both values of a flag."""
    return (False, True)


def space(plan_type: type, problem: Any, target: Target) -> dict[str, Sequence[Any]]:
    """The legal values of each decision of a plan, given a problem: what a search may choose from."""
    return {f.name: f.metadata["legal"](problem, target) for f in fields(plan_type)}


def cost_of(rule: Rule, problem: Any, plan: Any, target: Target) -> float:
    """How long a plan takes by a rule's arithmetic, to compare plans of one problem by; infinite of what should not even be tried; 1 where the
    rule has no opinion."""
    cost: Callable[[Any, Any, Any], float] = getattr(rule, "cost", lambda *_: 1.0)
    return cost(problem, plan, target)


def scales(plan_type: type) -> frozenset[str]:
    """The decisions whose values go from less to more."""
    return frozenset(f.name for f in fields(plan_type) if f.metadata["is_scale"])


def described(plan: Any) -> str:
    """A line for each decision: its name, its value, what it decides."""
    rows = [(f.name, repr(getattr(plan, f.name)), f.metadata["what"]) for f in fields(plan)]
    widths = [max((len(r[i]) for r in rows), default=0) for i in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}} = {value:<{widths[1]}}  # {what}" for name, value, what in rows)


class Rule(Protocol):
    """What a rule's module has. Each is for one kind of target."""

    NAME: str

    def applies(self, func: PrimFunc, target: Any) -> bool: ...

    def problem_of(self, func: PrimFunc) -> Any: ...

    def plan(self, problem: Any, target: Any) -> Any: ...

    def apply(self, sch: Schedule, plan: Any) -> None: ...
