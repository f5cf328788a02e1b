"""Which candidates to try next: some that differ from the default in one decision, then what evolves from the best, ranked by a model of what was
measured, and some at random."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .cost_model import CostModel
from .database import Trial
from .space import Candidate, SearchSpace

ELITE = 6
"""Candidates that others evolve from."""
RANDOM_SHARE = 0.15
LEARNT, POOL = 24, 8
"""Measurements from which on a model ranks; candidates that it ranks for each that is tried."""
NEAR = 1.3
"""Times the default's cost by arithmetic, up to which a candidate is as good as any other."""
SMALL = 96
"""Candidates of a space of which all are tried."""


class Evolution:
    """An evolutionary search of one space. What it proposes follows from the seed and the trials that it was told, so that one that goes on
    from records does what it would have done.

    Args:
        seed: of what is left to chance. before: trials of an earlier search. elsewhere: what was best for other kernels, tried first.
        model: ranks what may be tried; by chance without it.

    Attributes:
        tried: by candidate. stale: trials since the best got better. predictions: (expected, measured) ratios of what a model ranked.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: Sequence[int] = (0,),
        before: Sequence[Trial] = (),
        elsewhere: Sequence[Candidate] = (),
        model: CostModel | None = None,
    ) -> None:
        self.space, self._seed, self.rng = space, list(seed), np.random.default_rng(list(seed))
        self.tried: dict[Candidate, Trial] = {}
        self.stale = 0
        self.predictions: list[tuple[float, float]] = []
        self._model, self._is_small = model, space.size <= SMALL
        self._expected: dict[Candidate, float] = {}
        self._programs: set[str] = set()
        first: list[Candidate] = []
        if space.default is not None:
            first = list(space.everything() if self._is_small else space.neighbours(space.default))
        moved = [c for other in elsewhere if (c := space.adapted(other)) is not None]
        shuffled = [first[i] for i in self.rng.permutation(len(first))]
        usual = 0.0 if space.default is None else space.cost(space.default)
        # the dearest first, since it is taken from the end; those that cost little more than the default come in any order
        self._first = [*sorted(shuffled, key=lambda c: -max(NEAR * usual, space.cost(c))), *reversed(moved)]
        self._best = 1.0
        for trial in before:
            self.tell(trial)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to try."""
        is_whole = len(self.tried) + 1 >= self.space.size or (self._is_small and not self._first)
        return self.space.default is None or is_whole

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
            if trial.candidate in self._expected:
                self.predictions.append((self._expected[trial.candidate], trial.ratio))
        is_better = trial.ratio is not None and trial.ratio > self._best * 1.01
        self._best = max(self._best, trial.ratio or 0.0)
        self.stale = 0 if is_better else self.stale + 1

    def propose(self, count: int) -> list[Candidate]:
        """Candidates that were not tried; fewer where there are hardly any left."""
        self.rng = np.random.default_rng([*self._seed, len(self.tried)])
        measured = {t.candidate: t.ratio for t in self.tried.values() if t.ratio is not None}
        if self._model is not None and not self._is_small and len(measured) >= LEARNT:
            self._model.fit(list(measured), list(measured.values()))
            return self._ranked(self._model, count)
        found: dict[Candidate, None] = {}
        while self._first and len(found) < count:
            self._add(self._first.pop(), found)
        self._evolve(found, count, 20 * count)
        return list(found)

    def _ranked(self, model: CostModel, count: int) -> list[Candidate]:
        """The most promising of many candidates, and some others."""
        found: dict[Candidate, None] = {}
        for candidate in self._first:
            self._add(candidate, found)
        self._evolve(found, len(found) + POOL * count, 20 * count)
        pool = list(found)
        if not pool:
            return []
        expected = model.predict(pool)
        order = np.argsort(-expected, kind="stable")
        chosen = count - round(RANDOM_SHARE * count)
        others = self.rng.permutation(order[chosen:])[: count - chosen]
        self._expected.update((pool[i], float(expected[i])) for i in (*order[:chosen], *others))
        return [pool[i] for i in (*order[:chosen], *others)]

    def _evolve(self, found: dict[Candidate, None], count: int, tries: int) -> None:
        """Add candidates until there are so many."""
        elite = [t.candidate for t in self.best(ELITE)]
        for _ in range(tries):
            if len(found) >= count or self.is_done:
                break
            self._add(self._evolved(elite), found)

    def _add(self, candidate: Candidate, found: dict[Candidate, None]) -> None:
        is_new = candidate not in self.tried and candidate != self.space.default
        if is_new and math.isfinite(self.space.cost(candidate)):
            found[candidate] = None

    def _evolved(self, elite: Sequence[Candidate]) -> Candidate:
        rng, space = self.rng, self.space
        parents = [*elite, *([space.default] if space.default else [])]
        if not parents or rng.random() < RANDOM_SHARE:
            return space.random(rng)
        a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child = space.crossed(a, b, rng) if rng.random() < 0.4 else a
        return space.mutated(child, rng, 1 + int(rng.random() < 0.4))
