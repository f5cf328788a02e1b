"""What the assembly of a kernel tells: how wide its vectors are, and whether registers spill."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_REGISTER = re.compile(r"%([xyz])mm\d+")
_BITS = {"x": 128, "y": 256, "z": 512}
_NEON = re.compile(r"\bv\d+\.(?:16b|8h|4s|2d)\b")
_SCALAR = re.compile(r"\bv?\w+s[sd]\b")


@dataclass(frozen=True, slots=True)
class AssemblyFacts:
    """Counts of instructions, as written (not as executed).

    Attributes:
        vectors: instructions by the bits of their vector registers; scalars among those of x86 are left out.
        multiply_adds: fused ones on the widest vectors.
        spills, reloads: vectors that are put on the stack because no register is free, and fetched again.
    """

    vectors: dict[int, int]
    multiply_adds: int
    spills: int
    reloads: int

    @property
    def width(self) -> int:
        """Bits of the widest vectors; 0 where there are none."""
        return max(self.vectors, default=0)

    def __str__(self) -> str:
        if not self.width:
            return "no vector instructions"
        stack = f"{self.spills} spills, {self.reloads} reloads" if self.spills or self.reloads else "no spills"
        return f"{self.vectors[self.width]} instructions on {self.width}-bit vectors, {self.multiply_adds} of them multiply-adds; {stack}"


def assembly_facts(text: str) -> AssemblyFacts:
    """Read assembly as LLVM prints it, for x86-64 or AArch64."""
    vectors: Counter[int] = Counter()
    adds: Counter[int] = Counter()
    spills = reloads = 0
    for line in text.splitlines():
        code, _, comment = line.partition("#") if "mm" in line else line.partition("//")
        widths = [_BITS[w] for w in _REGISTER.findall(code)]
        if _NEON.search(code):
            widths.append(128)
        if not widths or (max(widths) == 128 and _SCALAR.search(code.split("%")[0])):
            continue
        width = max(widths)
        vectors[width] += 1
        adds[width] += bool(re.search(r"\bvfn?m(add|sub)|\bfml[as]\b", code))
        size = re.search(r"(\d+)-byte (Folded )?(Spill|Reload)", comment)
        if size and int(size[1]) * 8 >= width:
            spills += size[3] == "Spill"
            reloads += size[3] == "Reload"
    return AssemblyFacts(dict(vectors), adds[max(vectors, default=0)], spills, reloads)
