"""Structural equality and hash, up to the names of variables and buffers.

A tree is written down as a flat sequence of tokens in which each variable and buffer is the number of its first
occurrence. Two trees are equal when the sequences are; the hash is the digest of the sequence. So both agree by
construction, and both take time linear in the size of the tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .expr import Buffer, Const, Var
from .graph import Binding, Value
from .module import IRModule
from .node import Node

_SKIP_NAME = (Var, Buffer, Value)


def tokens(x: Any) -> list[Any]:
    """The canonical sequence of a tree."""
    out: list[Any] = []
    numbers: dict[Any, int] = {}

    def fields_of(y: Any) -> None:
        for f in fields(y):
            is_name = (f.name == "name" and isinstance(y, _SKIP_NAME)) or (
                f.name == "origin" and isinstance(y, Binding)
            )
            if f.init and not is_name:
                visit(getattr(y, f.name))

    def visit(y: Any) -> None:
        if isinstance(y, _SKIP_NAME):
            seen = y in numbers
            out.append(("ref", type(y).__name__, numbers.setdefault(y, len(numbers))))
            if not seen:
                fields_of(y)
        elif isinstance(y, Const):
            out.append(("const", str(y.dtype), y._key()[0]))
        elif isinstance(y, IRModule):
            functions(y)
        elif isinstance(y, Node):
            out.append(type(y).__name__)
            fields_of(y)
        elif isinstance(y, (tuple, list)):
            out.append(len(y))
            for item in y:
                visit(item)
        elif isinstance(y, (Mapping, frozenset)):
            out.append(sorted(y.items() if isinstance(y, Mapping) else y))
        else:
            out.append(
                str(y) if y is not None and not isinstance(y, (int, float, str, bool)) else (type(y).__name__, y)
            )

    def functions(m: IRModule) -> None:
        for name in sorted(m.functions):
            out.append(name)
            visit(m.functions[name])
        for name in sorted(m.constants):
            array = m.constants[name]
            out.append((name, str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()))
        out.append((m.entry, sorted(m.facts)))

    visit(x)
    return out


def structural_equal(a: Any, b: Any) -> bool:
    """Whether two trees are the same up to a renaming of variables and buffers."""
    return tokens(a) == tokens(b)


def structural_hash(x: Any) -> str:
    """A digest (32 hexadecimal digits) that structurally equal trees share."""
    return hashlib.blake2b(repr(tokens(x)).encode(), digest_size=16).hexdigest()


def first_difference(a: Any, b: Any) -> str:
    """Where two trees part, for messages; empty where they do not."""
    left, right = tokens(a), tokens(b)
    for i, (x, y) in enumerate(zip(left, right)):
        if x != y:
            return f"token {i}: {x!r} against {y!r}, after {left[max(0, i - 4) : i]!r}"
    return "" if len(left) == len(right) else f"one tree goes on for {abs(len(left) - len(right))} tokens"
