"""Measurements of compiled modules."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def worst(self) -> float:
        return max(self.seconds)

    def __str__(self) -> str:
        return f"median {1e3 * self.median:.4f} ms, best {1e3 * self.best:.4f} ms, of {len(self.seconds)} runs"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes.

    Attributes:
        arena: the one workspace of a run.
        total: what all intermediate tensors would take, each with memory of its own.
        constants: weights.
    """

    arena: int
    total: int
    constants: int

    def __str__(self) -> str:
        saved = 100 * (1 - self.arena / self.total) if self.total else 0.0
        return (
            f"workspace {self.arena / 1024:.1f} KiB (all tensors apart: {self.total / 1024:.1f} KiB, {saved:.0f} % saved), "
            f"constants {self.constants / 1024:.1f} KiB"
        )


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One kernel call: median seconds, the least work that it must do, and the nodes of the source model that it computes. Where it
    stands in a loop, that of all trips, and how many there are."""

    name: str
    seconds: float
    flops: int
    nbytes: int
    origin: str = ""
    calls: int = 1

    @property
    def gflops(self) -> float:
        """Billions of operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """Billions of bytes a second."""
        return self.nbytes / self.seconds / 1e9 if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Kernel calls in the order of a run.

    Attributes:
        others: seconds of calls that are not listed.
    """

    rows: tuple[ProfileRow, ...]
    others: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all calls."""
        return sum(r.seconds for r in self.rows) + self.others

    def slowest(self, count: int) -> Profile:
        """Only so many calls, the slowest first."""
        rows = sorted(self.rows, key=lambda r: -r.seconds)[:count]
        return Profile(tuple(rows), self.seconds - sum(r.seconds for r in rows))

    def __str__(self) -> str:
        names = [r.name if r.calls == 1 else f"{r.name} x {r.calls}" for r in self.rows]
        width = max([*map(len, names), 6])
        lines = [f"{'kernel':<{width}}  {'us':>9}  {'%':>5}  {'GFLOP/s':>8}  {'GB/s':>7}"]
        for name, r in zip(names, self.rows):
            share = 100 * r.seconds / self.seconds if self.seconds else 0.0
            numbers = f"{1e6 * r.seconds:9.2f}  {share:5.1f}  {r.gflops:8.2f}  {r.gbytes:7.2f}"
            lines.append(f"{name:<{width}}  {numbers}{f'  {r.origin}' if r.origin else ''}")
        if self.others:
            share = 100 * self.others / self.seconds
            lines.append(f"{'others':<{width}}  {1e6 * self.others:9.2f}  {share:5.1f}")
        return "\n".join([*lines, f"{'total':<{width}}  {1e6 * self.seconds:9.2f}"])
