"""Which candidates to try next: all that differ from the default in one decision, then what evolves from the best, and some at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .database import Trial
from .space import Candidate, SearchSpace

ELITE = 6
"""Candidates that others evolve from."""
RANDOM_SHARE = 0.15
SMALL = 96
"""Candidates of a space of which all are tried."""


class Evolution:
    """An evolutionary search of one space. What it proposes follows from the seed and the trials that it was told, so that one that goes on
    from records does what it would have done.

    Args:
        seed: of what is left to chance. before: trials of an earlier search. elsewhere: what was best for other kernels, tried first.

    Attributes:
        tried: by candidate. stale: trials since the best got better. predictions: (expected, measured) ratios of what a model ranked.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: Sequence[int] = (0,),
        before: Sequence[Trial] = (),
        elsewhere: Sequence[Candidate] = (),
    ) -> None:
        self.space, self._seed, self.rng = space, list(seed), np.random.default_rng(list(seed))
        self.tried: dict[Candidate, Trial] = {}
        self.stale = 0
        self.predictions: list[tuple[float, float]] = []
        self._programs: set[str] = set()
        is_small = space.size <= SMALL
        first = (
            [] if space.default is None else list(space.everything() if is_small else space.neighbours(space.default))
        )
        moved = [c for other in elsewhere if (c := space.adapted(other)) is not None]
        self._first = [*(first[i] for i in self.rng.permutation(len(first))), *reversed(moved)]
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
        self.rng = np.random.default_rng([*self._seed, len(self.tried)])
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
        if not parents or rng.random() < RANDOM_SHARE:
            return space.random(rng)
        a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child = space.crossed(a, b, rng) if rng.random() < 0.4 else a
        return space.mutated(child, rng, 1 + int(rng.random() < 0.4))
