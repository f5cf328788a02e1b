"""Names that users choose, as LLVM, files and printed programs can take them. Users see their own everywhere else."""

from __future__ import annotations

import re

LONGEST = 60


def plain_name(name: str) -> str:
    """A name of at most 60 letters, digits, _ and . that files and LLVM take; not unique."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)[:LONGEST].lstrip(".") or "unnamed"


def unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is taken; taken from now on."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def printable_name(name: str) -> str:
    """A name on one line: what cannot be printed is escaped, the middle of a very long one is left out."""
    shown = name if name.isprintable() else name.encode("unicode_escape").decode()
    return shown if len(shown) <= 4 * LONGEST else f"{shown[: 2 * LONGEST]}...{shown[-LONGEST:]}"
