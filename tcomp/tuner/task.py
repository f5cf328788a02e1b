"""What is tuned: the distinct kernels of a model, with their shares of its time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from ..ir.equal import structural_hash
from ..ir.module import IRModule
from ..ir.primfunc import PrimFunc
from ..target import CpuTarget
from .space import SearchSpace, Space
from .traces import TraceSpace


@dataclass(frozen=True)
class Task:
    """A kernel to tune.

    Attributes:
        func: before scheduling. seconds: of all its calls in a run of the model, by the default schedule; calls: how many.
        module: holds the graph function that the kernel computes, by the kernel's name; None for a kernel alone.
        own: a user's schedule, where its decisions are to be tuned, and not those of the default rules.
    """

    func: PrimFunc
    target: CpuTarget
    seconds: float = 0.0
    calls: int = 1
    module: IRModule | None = None
    own: TraceSpace | None = None

    @cached_property
    def key(self) -> str:
        """The same for kernels that compute the same on the same buffers, whatever they are called."""
        kernel = kernel_key(self.func)
        return kernel if self.own is None else f"{kernel}/{self.own.name}"

    @cached_property
    def space(self) -> SearchSpace:
        return Space(self.func, self.target) if self.own is None else self.own


def kernel_key(func: PrimFunc) -> str:
    """What identifies an unscheduled kernel in records."""
    parts = (
        structural_hash((func.params, func.body, func.allocs, func.num_outputs)),
        repr((func.attrs.get("aliases", ()), func.attrs.get("dim_max", ()))),
    )
    return hashlib.blake2b("|".join(parts).encode(), digest_size=16).hexdigest()
