"""NVIDIA GPUs: CUDA C, the default rules of schedule/rules/cuda, a device or its emulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ..codegen.build import Kernel, LoweringStep, build_all, make_kernel
from ..codegen.cuda import nvcc
from ..codegen.cuda.accesses import accesses_of
from ..codegen.cuda.generator import CudaGenerator, prelude, source_of
from ..codegen.cuda.launches import launches_of
from ..ir.printer import text
from ..ir.query import as_int
from ..runtime.device.cuda import CudaDriver
from ..runtime.device.emulator import Emulator
from ..runtime.device.gpu import GpuLibrary
from ..runtime.device.grid import GridKernel
from ..target import CudaTarget
from .layouts import GpuLayout
from .scheduling import cuda_scheduler, told

if TYPE_CHECKING:
    from ..codegen.cache import ObjectCache
    from ..ir.primfunc import PrimFunc
    from ..runtime.program import Program


@dataclass(frozen=True)
class CudaBackend:
    """A `Backend` for one GPU."""

    target: CudaTarget

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        return CudaGenerator(self.target).steps

    @property
    def views(self) -> Mapping[str, Callable[[Kernel], str]]:
        arch = self.target.arch
        return {
            "cuda": lambda k: source_of(k.text),
            "ptx": lambda k: nvcc.ptx(_unit(k), arch),
            "sass": self.sass,
            "explain": self.explain,
        }

    def layout(self, winograd: bool) -> GpuLayout:
        return GpuLayout()

    def kernel(self, func: PrimFunc, given: Any = None) -> Kernel:
        generator = CudaGenerator(self.target)
        if given is None:
            return make_kernel(func, generator, cuda_scheduler(self.target, generator.check_schedule))
        return make_kernel(func, generator, lambda _: told(given), f"given\n{text(given.schedule.func)}")

    def build(
        self, kernels: Sequence[Kernel], cache: ObjectCache, on_done: Callable[[Kernel], None] | None = None
    ) -> None:
        build_all(kernels, cache, on_done)

    def link(self, program: Program, kernels: Sequence[Kernel], cache: ObjectCache) -> GpuLibrary:
        return self.load([*dict.fromkeys(k.object_code for k in kernels)])

    def load(self, objects: Sequence[bytes]) -> GpuLibrary:
        driver = Emulator() if self.target.is_emulated else CudaDriver(self.target.device, self.target.arch)
        return GpuLibrary(driver, prelude(), objects)

    def sass(self, k: Kernel) -> str:
        """The instructions of a kernel, and for each launch its registers, spills, shared memory and occupancy."""
        taken, lines = nvcc.resources(_unit(k), self.target.arch), []
        for grid in GridKernel.from_json(k.text).launches:
            own, threads = taken[grid.function], prod(grid.threads)
            shared = own.shared + grid.pool
            busy = nvcc.occupancy(self.target, threads, own.registers, shared)
            lines.append(
                f"// {grid.function}: {own.registers} registers, {own.spilled} bytes spilled, {shared} bytes of shared memory, occupancy {busy:.2f}"
            )
        return "\n".join([*lines, nvcc.sass(_unit(k), self.target.arch)])

    def explain(self, k: Kernel) -> str:
        """Which schedule a kernel got, and how its launches touch memory."""
        lines = [f"kernel {k.func.name} for {self.target}", f"rule: {k.made.rule}"]
        lines += (f"    {line}" for line in k.made.plan.splitlines())
        for launch in launches_of(k.lowered).launches:
            blocks = " x ".join("?" if as_int(e) is None else str(as_int(e)) for e in launch.grid)
            threads = " x ".join(map(str, launch.block))
            lines += [f"launch: {blocks} blocks of {threads} threads", f"    {accesses_of(launch)}"]
        return "\n".join(lines)


def _unit(k: Kernel) -> str:
    """A kernel as a translation unit of its own."""
    found = GridKernel.from_json(k.text)
    return "\n".join([prelude(), *found.helpers.values(), found.source])
