"""Immutable tree nodes, and the one generic walk, rewrite and substitute over them.

A node is a frozen, slotted dataclass whose children are nodes or tuples of nodes. Which fields hold children is read
from the fields themselves, so there is no visitor hierarchy: a new node works with everything here at once.

Fields marked `atom()` name something without containing it (the variable that a loop binds, the buffer that a load
reads): a walk does not enter them and a rewrite does not replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class Node:
    """Base of every IR node."""

    __slots__ = ()


def atom(**kwargs: Any) -> Any:
    """A field that refers to a node without owning it."""
    return field(metadata={"atom": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(atom, field))
def node(cls: type[T]) -> type[T]:
    """Class decorator: an immutable node that compares by structure."""
    return dataclass(frozen=True, slots=True)(cls)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(atom, field))
def identity_node(cls: type[T]) -> type[T]:
    """Class decorator: an immutable node that is equal to itself alone (variables, buffers, statements)."""
    return dataclass(frozen=True, slots=True, eq=False)(cls)


_PLAIN = {
    "str",
    "int",
    "float",
    "bool",
    "int | float | bool",
    "DType",
    "str | None",
    "int | None",
    "LoopKind",
    "IterKind",
}
"""Annotations of fields that hold no nodes."""


def _child_fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if not f.metadata.get("atom") and f.type not in _PLAIN)


child_fields: Callable[[Any], tuple[str, ...]] = cache(_child_fields)
"""The names of the fields of a node class that may hold children, in order."""


def children(x: Node) -> Iterator[Node]:
    """The direct children of a node, in field order."""
    for name in child_fields(type(x)):
        value = getattr(x, name)
        if isinstance(value, Node):
            yield value
        elif type(value) is tuple:
            for item in value:
                if isinstance(item, Node):
                    yield item


def walk(x: Node) -> Iterator[Node]:
    """Every node of a tree, parents first, siblings in order."""
    stack = [x]
    while stack:
        current = stack.pop()
        yield current
        for name in reversed(child_fields(type(current))):
            value = getattr(current, name)
            if isinstance(value, Node):
                stack.append(value)
            elif value and type(value) is tuple:
                stack.extend([item for item in reversed(value) if isinstance(item, Node)])


def unique_nodes(x: Node) -> list[Node]:
    """Every object of a tree once, also where several places share it; children before their parents."""
    found: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(x, False)]
    while stack:
        current, is_entered = stack.pop()
        if is_entered:
            found.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend([(c, False) for c in reversed(list(children(current)))])
    return found


def _init_fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.init)


init_fields: Callable[[Any], tuple[str, ...]] = cache(_init_fields)
"""The names of the fields that the constructor of a node class takes, in order."""


def with_fields(x: T, **changes: Any) -> T:
    """A copy of a node with some fields replaced."""
    cls: Any = type(x)
    values = [changes.pop(name) if name in changes else getattr(x, name) for name in init_fields(cls)]
    assert not changes, f"{cls.__name__} has no field {next(iter(changes))}"
    copy: T = cls(*values)
    return copy


def map_children(x: T, f: Callable[[Any], Any]) -> T:
    """The node with `f` applied to each direct child; the same object where nothing changed."""
    changes: dict[str, Any] = {}
    for name in child_fields(type(x)):
        value = getattr(x, name)
        if isinstance(value, Node):
            new = f(value)
            if new is not value:
                changes[name] = new
        elif type(value) is tuple and value:
            items = tuple(f(item) if isinstance(item, Node) else item for item in value)
            if any(a is not b for a, b in zip(items, value)):
                changes[name] = items
    return with_fields(x, **changes) if changes else x


def rewrite(x: Any, post: Callable[[Any], Any], pre: Callable[[Any], Any] | None = None) -> Any:
    """Rebuild a tree from the leaves up.

    Args:
        post: called on each node after its children; returns its replacement (or the node itself).
        pre: called on each node before its children; a result other than None replaces the node and is not entered.
    """

    # without recursion: a tree may be deeper than Python's stack
    results: list[Any] = []
    stack: list[tuple[Any, bool]] = [(x, False)]
    while stack:
        current, is_entered = stack.pop()
        if is_entered:
            results.append(post(_with_new_children(current, results)))
            continue
        early = None if pre is None else pre(current)
        if early is not None:
            results.append(early)
            continue
        inner = list(children(current))
        if inner:
            stack.append((current, True))
            stack.extend([(c, False) for c in reversed(inner)])
        else:
            results.append(post(current))
    return results[0]


def _with_new_children(x: Any, results: list[Any]) -> Any:
    """The node with the last results as its children, which are taken off the list; the same object where nothing changed."""
    changes: dict[str, Any] = {}
    for name in reversed(child_fields(type(x))):
        value = getattr(x, name)
        if isinstance(value, Node):
            new = results.pop()
            if new is not value:
                changes[name] = new
        elif type(value) is tuple and value:
            items = [results.pop() if isinstance(item, Node) else item for item in reversed(value)]
            items.reverse()
            if any(a is not b for a, b in zip(items, value)):
                changes[name] = tuple(items)
    return with_fields(x, **changes) if changes else x


def substitute(x: T, mapping: Mapping[Any, Any]) -> T:
    """Replace variables (by expressions) and buffers (by buffers) throughout a tree.

    Buffers stand in atom fields, so each node's `buffer` field is looked up as well.
    """
    if not mapping:
        return x

    def post(current: Any) -> Any:
        buffer = getattr(current, "buffer", None)
        if buffer is not None and buffer in mapping:
            return with_fields(current, buffer=mapping[buffer])
        return current

    def pre(current: Any) -> Any:
        return mapping.get(current) if type(current).__hash__ is object.__hash__ else None

    return rewrite(x, post, pre)
