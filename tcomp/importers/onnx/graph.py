"""Walking an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto

from ...errors import ShapeError, TcompError, UnsupportedError
from ...ir.graph import Operand
from ..builder import FoldingBuilder
from ..extents import Extents
from ..source import NeedsValues
from .functions import schema_function
from .node import Attributes, Given, Node
from .shapes import of_extents
from .table import HARMLESS, converter
from .types import NOWHERE, ModelFolder, array_of, attribute


class _Missing:
    """What a node made that could not be converted: so that one reading finds all of those."""


_MISSING = _Missing()


@dataclass
class Scope:
    """The names of a graph, and of those around it.

    Attributes:
        tensors: initializers that nothing has read so far.
        versions: of operators, by domain.
    """

    versions: Mapping[str, int]
    outer: Scope | None = None
    values: dict[str, Given | _Missing] = field(default_factory=dict)
    tensors: dict[str, TensorProto] = field(default_factory=dict)


@dataclass
class Reader:
    """Reads the graphs of one model.

    Attributes:
        functions: the model's own, by (domain, name).
        problems: what cannot be compiled, of all nodes.
        folder: of the model's file.
    """

    functions: Mapping[tuple[str, str], FunctionProto]
    folder: ModelFolder = NOWHERE
    problems: list[str] = field(default_factory=list)
    depth: int = 0

    def graph(
        self,
        g: FoldingBuilder,
        graph: GraphProto,
        outer: Scope,
        known: Mapping[str, Given],
        lacking: Mapping[str, str] | None = None,
    ) -> list[Operand | Extents]:
        """The results of a graph.

        Args:
            known: what its inputs, and initializers that are read already, are.
            lacking: initializers that cannot be compiled, and why.
        """
        scope = Scope(outer.versions, outer, dict(known), {t.name: t for t in graph.initializer if t.name not in known})
        for name, why in (lacking or {}).items():
            self.problems.append(f"initializer {name}: {why}")
            scope.values[name] = _MISSING
        self.nodes(g, graph.node, scope)
        return [self._result(g, scope, v.name) for v in graph.output]

    def _result(self, g: FoldingBuilder, scope: Scope, name: str) -> Any:
        found = self.lookup(g, scope, name)
        if found is None:
            raise ShapeError(f"the result {name!r} is computed by no node")
        return g.constant(np.zeros(0)) if isinstance(found, _Missing) else found

    def nodes(self, g: FoldingBuilder, nodes: Sequence[NodeProto], scope: Scope) -> None:
        """Convert nodes in their order."""
        for proto in nodes:
            label = proto.name or (f"{proto.op_type} of {proto.output[0]}" if proto.output else proto.op_type)
            given = [self.lookup(g, scope, name) if name else None for name in proto.input]
            if any(isinstance(x, _Missing) for x in given):
                results: Any = [_MISSING] * len(proto.output)
            else:
                results = self._guarded(g, proto, label, tuple(given), scope)
            for name, value in zip(proto.output, results):
                if name:
                    if name in scope.values:
                        raise ShapeError(f"{name!r} is defined twice", why=f"the second time by node {label}")
                    scope.values[name] = value

    def lookup(self, g: FoldingBuilder, scope: Scope, name: str) -> Any:
        """What a name stands for.

        Raises:
            ShapeError: nothing, up to here.
        """
        at: Scope | None = scope
        while at is not None:
            if name in at.values:
                return at.values[name]
            if name in at.tensors:
                t = at.tensors[name]
                try:
                    at.values[name] = g.constant(array_of(t, self.folder), name)
                except UnsupportedError as error:
                    self._note(f"initializer {name}", error)
                    at.values[name] = _MISSING
                return at.values[name]
            at = at.outer
        raise ShapeError(f"{name!r} is used and not defined", why="no input, initializer or earlier node has that name")

    def _note(self, label: str, error: UnsupportedError) -> None:
        why = f"{error.what}: {error.why}" if error.why else error.what
        self.problems.append(f"{label}: {why}")

    def _guarded(self, g: FoldingBuilder, proto: NodeProto, label: str, given: tuple[Any, ...], scope: Scope) -> Any:
        """The results of a node; what cannot be compiled is noted, and reading goes on."""
        try:
            with g.origin(label):
                return self._node(g, proto, label, given, scope)
        except UnsupportedError as error:
            self._note(label, error)
            return [_MISSING] * len(proto.output)
        except (TcompError, NeedsValues):
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError) as error:
            raise ShapeError(
                f"node {label} ({proto.op_type}) cannot be read", why=f"{type(error).__name__}: {error}"
            ) from error

    def _node(self, g: FoldingBuilder, proto: NodeProto, label: str, given: tuple[Given, ...], scope: Scope) -> Any:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        own = self.functions.get((domain, proto.op_type))
        if own is not None:
            return self._call(g, own, proto, given, scope)
        version = scope.versions.get(domain)
        if version is None:
            raise ShapeError(f"the model does not say which version of {domain or 'ai.onnx'} it uses")
        if any(isinstance(x, Extents) and not x.is_known for x in given):
            found = of_extents(g, proto.op_type, given, {a.name: attribute(a) for a in proto.attribute})
            if found is not None:
                return [found]
        convert = converter(domain, proto.op_type, version)
        if convert is None:
            body = schema_function(proto, version, given)
            if body is None:
                shown = proto.op_type if not domain else f"{domain}.{proto.op_type}"
                raise UnsupportedError(f"{shown} (version {version}) is no operator that can be compiled")
            return self._call(g, body, proto, given, scope)

        def body_of(inner: FoldingBuilder, graph: GraphProto, names: Mapping[str, Given]) -> Any:
            return self.graph(inner, graph, scope, names)

        attrs = Attributes({a.name: attribute(a) for a in proto.attribute})
        node = Node(g, proto.op_type, label, version, given, attrs, len(proto.output), body_of)
        made = convert(node)
        unread = [name for name in attrs.unread if (proto.op_type, name) not in HARMLESS]
        if unread:
            raise UnsupportedError(f"attribute {unread[0]!r} of {proto.op_type} is not read")
        results = list(made) if isinstance(made, tuple) else [made]
        lacking = [n for n in list(proto.output)[len(results) :] if n]
        if lacking:
            raise UnsupportedError(f"{proto.op_type} does not make its result {lacking[0]!r}")
        return results

    def _call(
        self, g: FoldingBuilder, f: FunctionProto, proto: NodeProto, given: tuple[Given, ...], scope: Scope
    ) -> Any:
        """The results of a function of the model, or of the body that the standard gives to an operator."""
        if self.depth > 50:
            raise ShapeError(f"function {f.name} calls itself, or too many others inside each other")
        actual = {a.name: a for a in proto.attribute}
        for a in f.attribute_proto:
            actual.setdefault(a.name, a)
        inner = Scope({("" if o.domain == "ai.onnx" else o.domain): o.version for o in f.opset_import}, None)
        inner.values = dict(zip(f.input, [*given, *[None] * (len(f.input) - len(given))]))
        self.depth += 1
        try:
            self.nodes(g, [_with_attributes(n, actual) for n in f.node], inner)
        finally:
            self.depth -= 1
        wanted = [*proto.output, *([""] * len(f.output))]
        return [self.lookup(g, inner, name) if asked else None for name, asked in zip(f.output, wanted)]


def _with_attributes(node: NodeProto, actual: Mapping[str, Any]) -> NodeProto:
    """A node of a function's body, with the attributes that the call gives to the function."""
    graphs = [a for a in node.attribute if a.HasField("g")]
    if not graphs and not any(a.ref_attr_name for a in node.attribute):
        return node
    made = NodeProto()
    made.CopyFrom(node)
    del made.attribute[:]
    for a in node.attribute:
        if a.ref_attr_name:
            if a.ref_attr_name in actual:
                copy = made.attribute.add()
                copy.CopyFrom(actual[a.ref_attr_name])
                copy.name = a.name
            continue
        copy = made.attribute.add()
        copy.CopyFrom(a)
        if a.HasField("g"):
            inner = [_with_attributes(n, actual) for n in a.g.node]
            del copy.g.node[:]
            copy.g.node.extend(inner)
    return made
