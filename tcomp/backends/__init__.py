"""Kinds of targets, each one object: what compile() asks for without knowing the kind."""

from __future__ import annotations

from ..errors import TargetError
from ..lazy import lazy_module
from ..target import CpuTarget, CudaTarget, ReferenceTarget, Target
from .base import Backend

cpu = lazy_module("tcomp.backends.cpu")
cuda = lazy_module("tcomp.backends.cuda")
reference = lazy_module("tcomp.backends.reference")


def backend_of(target: Target) -> Backend:
    """The backend of a target.

    Raises:
        TargetError: there is none.
    """
    found: Backend
    match target:
        case CpuTarget():
            found = cpu.CpuBackend(target)
        case CudaTarget():
            found = cuda.CudaBackend(target)
        case ReferenceTarget():
            found = reference.ReferenceBackend(target)
        case _:
            raise TargetError(f"tcomp generates no code for {target}")
    return found


__all__ = ["Backend", "backend_of"]
