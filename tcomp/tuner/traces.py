"""A user's own schedule as a space: what its sampling steps may decide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from ..errors import ScheduleError
from ..ir.primfunc import PrimFunc
from ..schedule import Schedule, Trace
from .space import TRACE, Candidate, replayed

MANY = 1 << 40
"""Candidates of a schedule with sampling steps: nobody counts them."""
NEAR = 4
"""Other decisions of each step that are tried first."""
TRIES = 8
"""Draws, until one is legal together with the other decisions."""


class TraceSpace:
    """The schedules that a function makes of a kernel by other decisions of its sampling steps. A candidate is a trace, so that whoever builds it
    needs no function.

    Args:
        schedule: takes a Schedule. Decisions that it gives itself (`decision=`) make the default; without them, chance does.

    Raises:
        ScheduleError: a step of the default is refused.
    """

    def __init__(self, func: PrimFunc, schedule: Callable[[Schedule], Any]) -> None:
        self.func, self._function = func, schedule
        first = self._made(0)
        self.default = _candidate(first)
        self.size = MANY if first.trace.samples else 1

    @property
    def name(self) -> str:
        """The same for equal defaults: ratios are to them."""
        return hashlib.blake2b(self.default.to_json().encode(), digest_size=8).hexdigest()

    def schedule(self, candidate: Candidate) -> Schedule:
        """The kernel, scheduled so.

        Raises:
            ScheduleError: a step is refused.
        """
        return replayed(self.func, candidate)

    def cost(self, candidate: Candidate) -> float:
        """No opinion."""
        return 1.0

    def everything(self) -> Iterator[Candidate]:
        """The default, which is all there is where nothing is sampled."""
        yield self.default

    def neighbours(self, candidate: Candidate) -> Iterator[Candidate]:
        """Some that differ in one decision."""
        found = {candidate}
        for place in _trace(candidate).samples:
            for seed in range(NEAR):
                other = self._changed(candidate, [place], seed)
                if other not in found:
                    found.add(other)
                    yield other

    def random(self, rng: np.random.Generator) -> Candidate:
        """Any candidate: the function again, or its steps with all decisions new, where it has fixed them."""
        for _ in range(TRIES):
            seed = int(rng.integers(1 << 31))
            try:
                found = _candidate(self._made(seed))
            except ScheduleError:
                continue
            if found != self.default:
                return found
            found = self._changed(self.default, _trace(self.default).samples, seed)
            if found != self.default:
                return found
        return self.default

    def mutated(self, candidate: Candidate, rng: np.random.Generator, changes: int = 1) -> Candidate:
        """Some decisions taken anew."""
        samples = _trace(candidate).samples
        for _ in range(TRIES if samples else 0):
            places = rng.permutation(samples)[:changes]
            found = self._changed(candidate, places.tolist(), int(rng.integers(1 << 31)))
            if found != candidate:
                return found
        return candidate

    def crossed(self, a: Candidate, b: Candidate, rng: np.random.Generator) -> Candidate:
        """One of two: decisions of different traces do not fit together."""
        return a if rng.random() < 0.5 else b

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """None: decisions about another kernel say little."""
        return None

    def told(self, candidate: Candidate) -> str:
        """The decisions, as text."""
        trace = _trace(candidate)
        return ", ".join(f"{', '.join(trace.steps[p].results)} = {trace.steps[p].args[-1]}" for p in trace.samples)

    def _made(self, seed: int) -> Schedule:
        sch = Schedule(self.func, seed)
        self._function(sch)
        return sch

    def _changed(self, candidate: Candidate, places: Collection[int], seed: int) -> Candidate:
        """Other decisions at these places; the same candidate where they do not fit the rest."""
        try:
            return _candidate(_trace(candidate).replay(Schedule(self.func, seed), draw=places))
        except ScheduleError:
            return candidate


def _candidate(sch: Schedule) -> Candidate:
    return Candidate(TRACE, (("trace", sch.trace.as_json()),))


def _trace(candidate: Candidate) -> Trace:
    return Trace.from_json(dict(candidate.decisions)["trace"])
