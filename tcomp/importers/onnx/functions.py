"""The bodies that the ONNX standard gives to operators which are made of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, TensorProto, TypeProto

from ...dtype import DType
from ..extents import Extents
from .node import Given

_ELEMENTS = {
    "float32": "FLOAT",
    "float64": "DOUBLE",
}


def schema_function(node: NodeProto, version: int, given: Sequence[Given]) -> FunctionProto | None:
    """The body of an operator; None where the standard has none."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        known = [v for v in schema.function_opset_versions if v <= version]
        if known:
            return _parsed(schema, schema.get_function_with_opset_version(max(known)), version)
    if schema.has_context_dependent_function:
        known = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        if known:
            types = [_type_of(x) for x in given]
            return _parsed(
                schema,
                schema.get_context_dependent_function_with_opset_version(
                    max(known), node.SerializeToString(), [t.SerializeToString() for t in types]
                ),
                version,
            )
    return None


def _parsed(schema: Any, text: bytes, version: int) -> FunctionProto | None:
    """A body, with the defaults of the operator's attributes, and the versions of operators that it does not name."""
    if not text:
        return None
    f = FunctionProto()
    f.ParseFromString(text)
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            f.attribute_proto.add().CopyFrom(attribute.default_value)
            assert attribute.default_value.name == name
    known = {o.domain for o in f.opset_import}
    if "" not in known and "ai.onnx" not in known:
        own = version if schema.domain == "" else onnx.defs.onnx_opset_version()
        f.opset_import.add(domain="", version=own)
    return f


def _type_of(x: Given) -> TypeProto:
    """The type of an argument in ONNX's words."""
    t = TypeProto()
    if x is None:
        return t
    shape = x.values.shape if isinstance(x, Extents) else x.type.shape
    t.tensor_type.elem_type = element_type(None if isinstance(x, Extents) else x.type.dtype)
    t.tensor_type.shape.SetInParent()
    for e in shape:
        d = t.tensor_type.shape.dim.add()
        if isinstance(e, int):
            d.dim_value = e
        else:
            d.dim_param = str(e)
    return t


def element_type(d: DType | None) -> int:
    """ONNX's number of a dtype; int64 for None."""
    name = "int64" if d is None else d.name
    return int(getattr(TensorProto, _ELEMENTS.get(name, name.upper())))
