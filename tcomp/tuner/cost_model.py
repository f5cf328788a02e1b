"""What a kernel's own measurements say of candidates that were not measured: a small model, fitted while the search goes on."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod
from typing import Any, Protocol

import numpy as np

from .space import Candidate

STIFFNESS = 3.0
"""How much evidence a weight of the ridge regression must have."""
FLOOR = 0.3
"""Ratios below this are as bad as each other."""


class CostModel(Protocol):
    """What ranks candidates of one kernel."""

    def fit(self, candidates: Sequence[Candidate], ratios: Sequence[float]) -> None:
        """Learn from what was measured: the default's time divided by a candidate's."""

    def predict(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """The ratios that others may have."""


class RidgeModel:
    """Ridge regression of the logarithm of the ratio on a candidate's decisions (A. Hoerl and R. Kennard, Technometrics 12(1), 1970).

    It has a few dozen measurements to learn from. Gradient boosting, forests of random trees and Gaussian processes were tried on 1,700 measurements
    of ten kernels: what a search of 16 found by them was no better (`benchmarks.cost_model` measures this one).
    """

    def __init__(self) -> None:
        self._columns: list[tuple[str, Any]] = []
        self._mean: np.ndarray = np.zeros(0)
        self._scale: np.ndarray = np.zeros(0)
        self._weights: np.ndarray = np.zeros(0)
        self._usual = 0.0

    def fit(self, candidates: Sequence[Candidate], ratios: Sequence[float]) -> None:
        self._columns = sorted({key for c in candidates for key in features(c)}, key=str)
        x, y = self._matrix(candidates), np.log(np.maximum(ratios, FLOOR))
        self._usual, self._mean, self._scale = float(y.mean()), x.mean(axis=0), x.std(axis=0)
        self._scale[self._scale < 1e-9] = np.inf  # what never varies says nothing
        z = (x - self._mean) / self._scale
        self._weights = np.linalg.solve(z.T @ z + STIFFNESS * np.eye(z.shape[1]), z.T @ (y - self._usual))

    def predict(self, candidates: Sequence[Candidate]) -> np.ndarray:
        found: np.ndarray = np.exp((self._matrix(candidates) - self._mean) / self._scale @ self._weights + self._usual)
        return found

    def _matrix(self, candidates: Sequence[Candidate]) -> np.ndarray:
        rows = [features(c) for c in candidates]
        return np.array([[r.get(key, 0.0) for key in self._columns] for r in rows]).reshape(
            len(rows), len(self._columns)
        )


def features(candidate: Candidate) -> dict[tuple[str, Any], float]:
    """A candidate as named numbers: numbers by their logarithms, choices as zeros and ones, the size of a register tile and its loads."""
    found: dict[tuple[str, Any], float] = {("rule", candidate.rule): 1.0}
    sizes: dict[str, int] = {}
    for name, value in candidate.decisions:
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(v, int) for v in parts):
            found[name, str(value)] = 1.0
            continue
        for place, v in enumerate(parts):
            found[name, place] = log2(1 + v)
            found[name, f"{place} is 0"] = float(v == 0)
        sizes[name] = prod(max(1, v) for v in parts)
        found[name, "all"] = log2(1 + sizes[name])
    rows, vectors = sizes.get("rows", 1), sizes.get("vectors", 1)
    found["tile", "size"], found["tile", "loads"] = float(rows * vectors), (rows + vectors) / (rows * vectors)
    found["tile", "code"] = float(rows * vectors * sizes.get("unroll", 1))
    return found
