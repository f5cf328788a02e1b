"""Which candidates to try next: all that differ from the default in one decision, then what evolves from the best, and some at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .database import Trial
from .space import Candidate, Space

ELITE = 6
"""Candidates that others evolve from."""
RANDOM_SHARE = 0.15
SMALL = 96
"""Candidates of a space of which all are tried."""


class Evolution:
    """An evolutionary search of one space.

    Attributes:
        tried: by candidate. stale: trials since the best got better.
    """

    def __init__(self, space: Space, rng: np.random.Generator, before: Sequence[Trial] = ()) -> None:
        self.space, self.rng = space, rng
        self.tried: dict[Candidate, Trial] = {}
        self.stale = 0
        self._programs: set[str] = set()
        first = [] if space.default is None else list(space.neighbours(space.default))
        self._first = [first[i] for i in rng.permutation(len(first))]
        self._best = 1.0
        for trial in before:
            self.tell(trial)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to try."""
        return self.space.default is None or len(self.tried) + 1 >= self.space.size

    def best(self, count: int) -> list[Trial]:
        """The fastest that were tried, one of each program."""
        fine = sorted((t for t in self.tried.values() if t.ratio is not None), key=lambda t: -(t.ratio or 0.0))
        return list({t.program: t for t in reversed(fine)}.values())[::-1][:count] if fine else []

    @property
    def programs(self) -> frozenset[str]:
        """Of the candidates that were measured."""
        return frozenset(self._programs)

    def tell(self, trial: Trial) -> None:
        """Take in a result."""
        self.tried[trial.candidate] = trial
        if trial.ratio is not None:
            self._programs.add(trial.program)
        is_better = trial.ratio is not None and trial.ratio > self._best * 1.01
        self._best = max(self._best, trial.ratio or 0.0)
        self.stale = 0 if is_better else self.stale + 1

    def propose(self, count: int) -> list[Candidate]:
        """Candidates that were not tried; fewer where there are hardly any left."""
        found: dict[Candidate, None] = {}
        while self._first and len(found) < count:
            self._add(self._first.pop(), found)
        for _ in range(20 * count):
            if len(found) >= count or self.is_done:
                break
            self._add(self._evolved(), found)
        return list(found)

    def _add(self, candidate: Candidate, found: dict[Candidate, None]) -> None:
        if candidate not in self.tried and candidate != self.space.default:
            found[candidate] = None

    def _evolved(self) -> Candidate:
        rng, space = self.rng, self.space
        parents = [t.candidate for t in self.best(ELITE)] + ([space.default] if space.default else [])
        if space.size <= SMALL or not parents or rng.random() < RANDOM_SHARE:
            return space.random(rng)
        a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child = space.crossed(a, b, rng) if rng.random() < 0.4 else a
        return space.mutated(child, rng, 1 + int(rng.random() < 0.4))
