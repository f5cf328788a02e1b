"""The default schedule of a GPU for everything else: each stage a launch of its own, each of its elements a thread."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.primfunc import PrimFunc
from ....target import CudaTarget
from ...library import inline_elementwise
from ...schedule import Schedule
from ..plan import decision
from .common import spread

NAME = "plain"
ACCESS_BYTES = 16
"""Of the widest access to memory."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: bytes of its widest element."""

    itemsize: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    return True


def problem_of(func: PrimFunc) -> Problem:
    return Problem(max((b.dtype.itemsize for b in (*func.buffers, *func.allocs)), default=4))


@dataclass(frozen=True, slots=True)
class PlainPlan:
    """How elements are spread over threads."""

    threads: int = decision("threads of a block", lambda p, t: (32, 64, 128, 256, 512, 1024))
    lanes: int = decision("neighbours that a thread computes at once", lambda p, t: (1, 2, 4, 8))


def plan(p: Problem, target: CudaTarget) -> PlainPlan:
    """A thread moves as much as one access to memory does."""
    return PlainPlan(256, max(ACCESS_BYTES // p.itemsize, 1))


def apply(sch: Schedule, plan: PlainPlan) -> None:
    """The loops of a block over its results become threads, as far as they are independent; those of a reduction run in a thread."""
    inline_elementwise(sch)
    for name in list(sch.func.blocks):
        spread(sch, name, plan.threads, plan.lanes)
