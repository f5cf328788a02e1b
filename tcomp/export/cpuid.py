"""Where an x86-64 CPU tells of the instruction sets that generated code may use.

Source: Intel's Software Developer's Manual, volume 2A, CPUID; AMD's Architecture Programmer's Manual, volume 3, appendix E.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_EAX, _EBX, _ECX, _EDX = range(4)
_YMM, _ZMM = 0x06, 0xE6
"""State components that the system must save for vectors of 256 and of 512 bits (XCR0)."""


@dataclass(frozen=True, slots=True)
class FeatureBit:
    """A bit of CPUID.

    Attributes:
        register: 0 to 3 for EAX, EBX, ECX, EDX. state: bits of XCR0 that must be set, too.
    """

    name: str
    leaf: int
    subleaf: int
    register: int
    bit: int
    state: int = 0


_ROWS: tuple[tuple[int, int, int, int, dict[str, int]], ...] = (
    (1, 0, _ECX, 0, {"sse3": 0, "pclmul": 1, "ssse3": 9, "sse4.1": 19, "sse4.2": 20, "movbe": 22, "popcnt": 23}),
    (1, 0, _ECX, _YMM, {"fma": 12, "avx": 28, "f16c": 29}),
    (7, 0, _EBX, 0, {"bmi": 3, "bmi2": 8, "adx": 19}),
    (7, 0, _EBX, _YMM, {"avx2": 5}),
    (7, 0, _EBX, _ZMM, {"avx512f": 16, "avx512dq": 17, "avx512ifma": 21, "avx512cd": 28, "avx512bw": 30, "avx512vl": 31}),
    (7, 0, _ECX, 0, {"gfni": 8, "vpclmulqdq": 10}),
    (7, 0, _ECX, _ZMM, {"avx512vbmi": 1, "avx512vbmi2": 6, "avx512vnni": 11, "avx512bitalg": 12, "avx512vpopcntdq": 14}),
    (7, 0, _EDX, _ZMM, {"avx512fp16": 23}),
    (7, 1, _EAX, _YMM, {"avxvnni": 4}),
    (7, 1, _EAX, _ZMM, {"avx512bf16": 5}),
    (0x80000001, 0, _ECX, 0, {"lzcnt": 5, "prfchw": 8}),
)  # fmt: skip

FEATURE_BITS = {
    name: FeatureBit(name, leaf, subleaf, register, bit, state)
    for leaf, subleaf, register, state, bits in _ROWS
    for name, bit in bits.items()
}


def feature_bits(features: Iterable[str]) -> tuple[FeatureBit, ...]:
    """The bits to look at before code with these features (LLVM's words) may run. Features that LLVM never uses of its own accord, such
    as those for encryption, have none."""
    return tuple(FEATURE_BITS[f] for f in sorted(features) if f in FEATURE_BITS)
