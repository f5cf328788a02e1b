"""The LLVM code generator of a CPU: checks, text and object code of kernels."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import memory_bytes
from ...errors import TargetError, UnsupportedError
from ...ir.graph import extent_at
from ...ir.primfunc import PrimFunc
from ...ir.tensor_intrin import tensor_intrin
from ...lazy import lazy_module
from ...target import CpuTarget
from ..build import LoweringStep, scratch_buffers
from .machine import Machine, emit_assembly, emit_object

# what only a kernel that is not in the cache needs
lowering = lazy_module("tcomp.codegen.lowering")
llvm_expr = lazy_module("tcomp.codegen.llvm.expr")
llvm_kernel = lazy_module("tcomp.codegen.llvm.kernel")


@dataclass(frozen=True, slots=True)
class LlvmGenerator:
    """A `Generator` of object code through LLVM."""

    target: CpuTarget

    @property
    def machine(self) -> Machine:
        return Machine(self.target.triple, self.target.cpu, self.target.features)

    @property
    def steps(self) -> tuple[LoweringStep, ...]:
        found: tuple[LoweringStep, ...] = lowering.STEPS
        return found

    def check(self, scheduled: PrimFunc, lowered: PrimFunc) -> None:
        """Refuse instructions that the target lacks, and buffers that this machine does not hold.

        Raises:
            TargetError: a block is tensorized with an instruction that the target does not have.
            UnsupportedError: a buffer of fixed size inside the kernel is too large.
        """
        for block in scheduled.blocks.values():
            intrin = tensor_intrin(str(block.annotations.get("tensor_intrin", "")))
            if intrin is not None and not self.target.has(intrin.feature):
                raise TargetError(
                    f"cannot compile block {block.name} for {self.target}",
                    why=f"it is tensorized with {intrin.name}, which needs {intrin.feature}",
                    hint="leave tensorize out for this target",
                )
        limit = memory_bytes()
        largest = dict(zip(scheduled.dims, scheduled.attrs.get("dim_max", ())))
        for name, nbytes in scratch_buffers(lowered):
            size = extent_at(nbytes, largest)
            if isinstance(size, int) and size > limit:
                raise UnsupportedError(
                    f"cannot compile kernel {scheduled.name}: buffer {name} would take {size / 2**30:.0f} GiB",
                    why=f"this machine has {limit / 2**30:.0f} GiB",
                    hint="compute its producer inside a loop of its consumer (compute_at), or keep less of it",
                )

    def text(self, lowered: PrimFunc, symbol: str) -> str:
        """A lowered kernel as LLVM IR."""
        t = self.target
        cpu = llvm_expr.Abilities(8 * t.vector_bytes, t.converts_halves, t.fuses_multiply_add)
        module: str = llvm_kernel.kernel_module(lowered, symbol, cpu)
        return module

    def code(self, text: str) -> bytes:
        """Object code of LLVM IR."""
        return emit_object(text, self.machine)

    def assembly(self, text: str) -> str:
        """LLVM IR as the CPU's assembly."""
        return emit_assembly(text, self.machine)
