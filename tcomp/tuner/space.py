"""What may be decided about a kernel: the plans of the rules that apply to it, and steps from one to another.

A default plan is the arithmetic's choice; any other combination of the legal values of its decisions is another candidate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Protocol

import numpy as np

from ..errors import ScheduleError
from ..ir.primfunc import PrimFunc
from ..schedule import Schedule, Trace
from ..schedule.rules.default import WHOLE, Choice, choices, follow
from ..schedule.rules.plan import cost_of, scales, space
from ..target import CpuTarget

MOST_VALUES = 12
"""Numbers of a decision that a search looks at: of a long range, its ends, the default and what lies between at growing distances."""


TRACE = "trace"
"""Stands for a rule where a candidate is the steps of a schedule themselves."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule and its decisions, as (name, value)."""

    rule: str
    decisions: tuple[tuple[str, Any], ...]

    def to_json(self) -> str:
        return json.dumps({"rule": self.rule, "decisions": dict(self.decisions)}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Candidate:
        """What `to_json` wrote; lists become tuples, as plans have them.

        Raises:
            ValueError, KeyError, TypeError: the text is none.
        """
        data = json.loads(text)
        rule, decisions = data["rule"], data["decisions"]
        if not isinstance(rule, str) or not isinstance(decisions, dict):
            raise TypeError("a candidate is a rule and decisions")
        return Candidate(rule, tuple(sorted((k, _frozen(v)) for k, v in decisions.items())))


def replayed(func: PrimFunc, candidate: Candidate) -> Schedule:
    """A kernel after the steps that a candidate is.

    Raises:
        ScheduleError: they are no steps, or one is refused.
    """
    text = dict(candidate.decisions).get("trace")
    if not isinstance(text, str):
        raise ScheduleError("the candidate has no trace")
    found: Schedule = Trace.from_json(text).replay(Schedule(func))
    return found


class SearchSpace(Protocol):
    """What a search needs to know of the candidates of a kernel.

    Attributes:
        default: what others are measured against; None where there is nothing to choose.
    """

    @property
    def default(self) -> Candidate | None: ...

    @property
    def size(self) -> int:
        """How many candidates there are, about."""

    def schedule(self, candidate: Candidate) -> Schedule:
        """The kernel, scheduled so. Raises ScheduleError where that is not legal."""

    def cost(self, candidate: Candidate) -> float:
        """How long it takes by arithmetic, to compare candidates by; infinite of what should not even be tried; 1 for no opinion."""

    def everything(self) -> Iterator[Candidate]:
        """All candidates, of a small space."""

    def neighbours(self, candidate: Candidate) -> Iterator[Candidate]:
        """Those that differ little."""

    def random(self, rng: np.random.Generator) -> Candidate:
        """Any."""

    def mutated(self, candidate: Candidate, rng: np.random.Generator, changes: int = 1) -> Candidate:
        """Some decisions taken anew."""

    def crossed(self, a: Candidate, b: Candidate, rng: np.random.Generator) -> Candidate:
        """Something of both."""

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """What is nearest to a candidate of another kernel; None where that makes no sense."""

    def told(self, candidate: Candidate) -> str:
        """What it decides otherwise than the default, as text."""


class Space:
    """The candidates of a kernel on a target, by the rules that apply to it (a `SearchSpace`).

    Attributes:
        default: what the default schedule is; None where no rule applies.
    """

    def __init__(self, func: PrimFunc, target: CpuTarget) -> None:
        self.func, self.target = func, target
        self._choices: dict[str, Choice] = {}
        for choice in choices(func, target):
            self._choices[choice.rule.NAME] = choice
            if choice.rule in WHOLE:  # it knows the stages of the operator; the rest would treat them as any loops
                break
        self._legal = {name: space(type(c.plan), c.problem, target) for name, c in self._choices.items()}
        self._scales = {name: scales(type(c.plan)) for name, c in self._choices.items()}
        self.default = next((candidate_of(name, c.plan) for name, c in self._choices.items()), None)

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(self._choices)

    def values(self, rule: str, name: str) -> Sequence[Any]:
        """The values of a decision that a search looks at."""
        legal, usual = self._legal[rule][name], getattr(self._choices[rule].plan, name)
        if len(legal) <= MOST_VALUES or name not in self._scales[rule]:
            return list(legal)
        at = legal.index(usual)
        steps = [0, *(sign * (1 << k) for k in range(len(legal).bit_length()) for sign in (1, -1))]
        near = [at + s for s in steps if 0 <= at + s < len(legal)][: MOST_VALUES - 2]
        return [legal[i] for i in sorted({0, len(legal) - 1, *near})]

    @property
    def size(self) -> int:
        """How many candidates there are, counting the values that a search looks at."""
        return sum(int(np.prod([len(self.values(r, n)) for n in self._legal[r]], dtype=object)) for r in self._choices)

    def plan(self, candidate: Candidate) -> Any:
        """The plan that a candidate is.

        Raises:
            ScheduleError: the rule does not apply here, or a value is not legal.
        """
        choice = self._choices.get(candidate.rule)
        if choice is None:
            raise ScheduleError(f"rule {candidate.rule!r} does not apply to kernel {self.func.name}")
        legal, decisions = self._legal[candidate.rule], dict(candidate.decisions)
        wrong = sorted(legal.keys() ^ decisions.keys()) or [n for n, v in decisions.items() if v not in legal[n]]
        if wrong:
            raise ScheduleError(f"no legal value of {', '.join(wrong)} for kernel {self.func.name}")
        return replace(choice.plan, **decisions)

    def schedule(self, candidate: Candidate) -> Schedule:
        """The kernel, scheduled so.

        Raises:
            ScheduleError: as for `plan`; or a step is refused.
        """
        if candidate.rule == TRACE:
            return replayed(self.func, candidate)
        plan = self.plan(candidate)
        return follow(self.func, self._choices[candidate.rule].rule, plan)

    def cost(self, candidate: Candidate) -> float:
        """What the rule's arithmetic says."""
        choice = self._choices[candidate.rule]
        return cost_of(choice.rule, choice.problem, replace(choice.plan, **dict(candidate.decisions)), self.target)

    def everything(self) -> Iterator[Candidate]:
        """All candidates, by the values that a search looks at."""
        for rule in self._choices:
            names = sorted(self._legal[rule])
            for values in product(*(self.values(rule, n) for n in names)):
                yield Candidate(rule, tuple(zip(names, values)))

    def neighbours(self, candidate: Candidate) -> Iterator[Candidate]:
        """All candidates that differ in one decision; and the plans of other rules, from a default."""
        for name, value in candidate.decisions:
            for other in self.values(candidate.rule, name):
                if other != value:
                    yield _changed(candidate, name, other)
        if candidate == self.default:
            yield from (candidate_of(r, c.plan) for r, c in self._choices.items() if r != candidate.rule)

    def random(self, rng: np.random.Generator) -> Candidate:
        """Any candidate."""
        rule = self.rules[int(rng.integers(len(self.rules)))]
        return Candidate(rule, tuple((n, _drawn(self.values(rule, n), rng)) for n in sorted(self._legal[rule])))

    def mutated(self, candidate: Candidate, rng: np.random.Generator, changes: int = 1) -> Candidate:
        """Some decisions taken anew."""
        names = [n for n, _ in candidate.decisions if len(self.values(candidate.rule, n)) > 1]
        for i in rng.permutation(len(names))[:changes]:
            candidate = _changed(candidate, names[i], _drawn(self.values(candidate.rule, names[i]), rng))
        return candidate

    def crossed(self, a: Candidate, b: Candidate, rng: np.random.Generator) -> Candidate:
        """Each decision of one of two candidates of the same rule."""
        if a.rule != b.rule:
            return a
        return Candidate(a.rule, tuple(x if rng.random() < 0.5 else y for x, y in zip(a.decisions, b.decisions)))

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """The decisions of a candidate of another kernel, as far as they are legal here, and the default's for the rest."""
        choice = self._choices.get(candidate.rule)
        if choice is None:
            return None
        usual, given = candidate_of(candidate.rule, choice.plan), dict(candidate.decisions)
        legal = self._legal[candidate.rule]
        found = tuple((n, given[n] if n in given and given[n] in legal[n] else v) for n, v in usual.decisions)
        return Candidate(candidate.rule, found)

    def told(self, candidate: Candidate) -> str:
        """What it decides otherwise than the default."""
        default = self.default
        if default is None or candidate.rule != default.rule:
            return candidate.rule
        return ", ".join(f"{n} {b} -> {a}" for n, (a, b) in differences(candidate, default).items())


def candidate_of(rule: str, plan: Any) -> Candidate:
    """A plan as a candidate."""
    return Candidate(rule, tuple(sorted((f.name, getattr(plan, f.name)) for f in fields(plan))))


def differences(a: Candidate, b: Candidate) -> Mapping[str, tuple[Any, Any]]:
    """The decisions that differ, of candidates of one rule."""
    other = dict(b.decisions)
    return {n: (v, other.get(n)) for n, v in a.decisions if other.get(n) != v}


def _changed(candidate: Candidate, name: str, value: Any) -> Candidate:
    return Candidate(candidate.rule, tuple((n, value if n == name else v) for n, v in candidate.decisions))


def _drawn(values: Sequence[Any], rng: np.random.Generator) -> Any:
    return values[int(rng.integers(len(values)))]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
