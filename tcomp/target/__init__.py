"""What code is generated for: targets, the machines known by name, what their operations cost."""

from .base import Target
from .costs import CostModel
from .cpu import CpuTarget
from .cuda import CudaTarget
from .reference import ReferenceTarget

__all__ = ["CostModel", "CpuTarget", "CudaTarget", "ReferenceTarget", "Target"]
