"""The constants of the cost model that can be measured, on this machine, beside those that rules plan with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..target import CpuTarget, Target
from ..target.costs import described
from .peak import fma_peak, function_seconds, memory_bandwidth, read_bandwidth


@dataclass(frozen=True, slots=True)
class Row:
    """A constant: what rules assume, and what was measured here (None of one that is not measured)."""

    name: str
    assumed: float
    measured: float | None
    unit: str
    what: str
    where: str


def calibrate() -> Iterator[Row]:
    """Measure the constants one after another; those that cannot be measured come as they are."""
    target = Target.parse("cpu")
    assert isinstance(target, CpuTarget)
    peak = fma_peak(1)
    cycle = 2.0 * target.lanes(4) * target.fma_ports / (1e9 * peak)  # seconds, while vectors are busy
    measures: dict[str, Callable[[], float]] = {
        "fma_latency": lambda: peak / fma_peak(1, chains=1) / target.fma_ports,
        "loads": lambda: 1e9 * read_bandwidth(target.l1_bytes // 2) * cycle / target.vector_bytes,
        "near_bytes": lambda: 1e9 * read_bandwidth(target.l2_bytes_per_core // 2) * cycle,
        "far_bytes": lambda: 1e9 * read_bandwidth(max(4 * target.l2_bytes, 1 << 25)) * cycle,
        "flops": lambda: 1e9 * peak,
        "function_seconds": function_seconds,
        "memory_bytes": lambda: 1e9 * memory_bandwidth(1),
    }
    for name, _, unit, what, where in described():
        measured = measures[name]() if name in measures else None
        yield Row(name, getattr(target.costs, name), measured, unit, what, where)
