"""What all targets have in common."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TargetError
from ..lazy import lazy_module

parsing = lazy_module("tcomp.target.parse")
reference = lazy_module("tcomp.target.reference")
cuda = lazy_module("tcomp.target.cuda")


class Target:
    """A machine to compile for: one of a closed set of kinds, CpuTarget, CudaTarget, ReferenceTarget."""

    __slots__ = ()

    def missing_here(self) -> tuple[str, ...]:
        """What this machine lacks to run code for the target; empty where it can."""
        return ()

    @staticmethod
    def parse(text: str | Target) -> Target:
        """The target that a text describes.

        Args:
            text: "cpu" (this machine), or "llvm" or "cpu" with options: `-mcpu=skylake-avx512` (or `native`), `-mattr=+avx2,-avx512f`,
                `-mtriple=x86_64-unknown-linux-gnu`, `-num-cores=8`; and of what is detected, or known by the CPU's name, otherwise:
                `-fma-ports=2`, `-l1=48K`, `-l2=2M`, `-l3=32M`, and how many cores share a cache, `-l2-cores=1`, `-l3-cores=8`. "cuda", with options `-arch=sm_80`, `-device=0` (or `emulator`), and of what
                the device tells, or is known by its architecture, otherwise: `-sms=108`, `-fma-lanes=64`, `-threads=2048`, `-registers=65536`, `-block-shared=163K`,
                `-sm-shared=164K`, `-l2=40M`, `-bandwidth=1555` (GB/s). Or "reference": kernels are interpreted, as plain loops.

        Raises:
            TargetError: an unknown kind or option.
        """
        if isinstance(text, Target):
            return text
        words = text.split() if isinstance(text, str) else []
        if words and words[0] in ("cpu", "llvm"):
            return parsing.cpu_target(text, words[1:])
        if words == ["reference"]:
            return reference.ReferenceTarget()
        if words and words[0] == "cuda":
            return cuda.cuda_target(text, words[1:])
        raise TargetError(
            f"unknown target {text!r}", hint='"cpu", "llvm -mcpu=skylake-avx512 -num-cores=8", or "cuda -arch=sm_80"'
        )

    @staticmethod
    def parse_all(text: str | Target | Sequence[str | Target]) -> tuple[Target, ...]:
        """The targets that a text describes, the most capable first: of `-mcpu=x86-64-v2,x86-64-v3,x86-64-v4`, three; or several texts.

        Raises:
            TargetError: as for `parse`.
        """
        if isinstance(text, Sequence) and not isinstance(text, str):
            return tuple(sorted(dict.fromkeys(map(Target.parse, text)), key=parsing.capability, reverse=True))
        words = text.split() if isinstance(text, str) else []
        listed = next((w for w in words if w.startswith("-mcpu=") and "," in w), None)
        if listed is None:
            return (Target.parse(text),)
        names = dict.fromkeys(name for name in listed.removeprefix("-mcpu=").split(",") if name)
        found = dict.fromkeys(Target.parse(str(text).replace(listed, f"-mcpu={name}")) for name in names)
        return tuple(sorted(found, key=parsing.capability, reverse=True))
