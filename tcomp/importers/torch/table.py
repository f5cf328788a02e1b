"""Which function turns an ATen operator into calls of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .node import Node

Converter = Callable[..., Any]
"""(node, the call's own arguments...) -> its result, or a tuple of them."""

TABLE: dict[str, Converter] = {}


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Decorator: register a converter for operators: "add.Tensor" is one overload, "add" stands for all of them."""

    def put(f: Converter) -> Converter:
        TABLE.update(dict.fromkeys(names, f))
        return f

    return put


def converter(name: str) -> Converter | None:
    """The converter of an overload, such as "add.Tensor"; None where there is none."""
    return TABLE.get(name) or TABLE.get(name.split(".")[0])


__all__ = ["TABLE", "Converter", "Node", "converter", "converts"]
