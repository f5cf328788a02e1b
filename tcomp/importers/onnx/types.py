"""ONNX's types and attributes as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, TypeProto, numpy_helper

from ...dtype import DType, dtype
from ...errors import ShapeError, UnsupportedError
from ..source import ModelInput, Open

_NAMES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.BOOL: "bool",
    **{getattr(TensorProto, f"{k.upper()}{b}"): f"{k}{b}" for k in ("int", "uint") for b in (8, 16, 32, 64)},
}


def dtype_of(element: int) -> DType:
    """The dtype of an ONNX element type.

    Raises:
        UnsupportedError: tcomp has no such type.
    """
    name = _NAMES.get(element)
    if name is None:
        known = TensorProto.DataType.items()
        shown = next((k for k, v in known if v == element), str(element))
        raise UnsupportedError(f"tensors of {shown} cannot be compiled", hint=f"one of {', '.join(_NAMES.values())}")
    return dtype(name)


def damaged_text(message: Message) -> str:
    """A field of a message, or of one inside it, that should be a text and is none; protobuf gives bytes there. Empty where all are."""
    for field, value in message.ListFields():
        many = value if hasattr(value, "extend") else (value,)
        if field.type == field.TYPE_STRING:
            if not all(isinstance(v, str) for v in many):
                return f"{message.DESCRIPTOR.name}.{field.name}"
        elif field.type == field.TYPE_MESSAGE:
            for v in many:
                if found := damaged_text(v):
                    return found
    return ""


class ModelFolder:
    """Where the data of a model lie that are not in its file.

    Args:
        path: of the folder; None where the model is no file: it can have no such data.

    Attributes:
        read: the files that were read, by their places in the folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = None if path is None else Path(path).resolve()
        self.read: dict[str, None] = {}

    def open(self, name: str) -> str | None:
        """The folder, which `name` is a file in; None where it is not."""
        if self.path is None or not name:
            return None
        file = self.path / name
        if not file.resolve().is_relative_to(self.path) or not file.is_file():
            return None
        self.read[name] = None
        return str(self.path)


NOWHERE = ModelFolder()


def array_of(tensor: TensorProto, folder: ModelFolder = NOWHERE) -> np.ndarray:
    """The values of a tensor.

    Raises:
        UnsupportedError: of a type that tcomp lacks. ShapeError: it is damaged, or its values lie outside of the model's folder.
    """
    wanted = dtype_of(tensor.data_type)
    path = ""
    if tensor.data_location == TensorProto.EXTERNAL:
        where = next((e.value for e in tensor.external_data if e.key == "location"), "")
        found = folder.open(where)
        if found is None:
            raise ShapeError(
                f"tensor {tensor.name!r} keeps its values in {where!r}", why="that is no file in the model's folder"
            )
        path = found
    try:
        values = numpy_helper.to_array(tensor, path)
    except Exception as error:
        raise ShapeError(f"tensor {tensor.name!r} is damaged", why=f"{type(error).__name__}: {error}") from error
    return np.asarray(values, wanted.numpy)


def attribute(a: AttributeProto) -> Any:
    """A number, text, list or array; a graph as it is.

    Raises:
        UnsupportedError: of a kind that is not read. ShapeError: it is damaged.
    """
    match a.type:
        case AttributeProto.FLOAT:
            return float(a.f)
        case AttributeProto.INT:
            return int(a.i)
        case AttributeProto.STRING:
            return a.s.decode(errors="replace")
        case AttributeProto.TENSOR:
            return array_of(a.t)
        case AttributeProto.GRAPH:
            return a.g
        case AttributeProto.FLOATS:
            return [float(f) for f in a.floats]
        case AttributeProto.INTS:
            return [int(i) for i in a.ints]
        case AttributeProto.STRINGS:
            return [s.decode(errors="replace") for s in a.strings]
        case AttributeProto.TENSORS:
            return [array_of(t) for t in a.tensors]
    kind = AttributeProto.AttributeType.Name(a.type) if a.type in AttributeProto.AttributeType.values() else a.type
    raise UnsupportedError(f"attribute {a.name!r} is of the kind {kind}, which is not read")


def input_of(name: str, t: TypeProto) -> ModelInput:
    """A declared input.

    Raises:
        UnsupportedError: it is no tensor, or of a type that tcomp lacks.
    """
    kind = t.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(
            f"input {name!r} is a {str(kind).removesuffix('_type')}", why="only tensors can be compiled"
        )
    element = dtype_of(t.tensor_type.elem_type)
    if not t.tensor_type.HasField("shape"):
        return ModelInput(name, element, None)
    return ModelInput(name, element, tuple(map(_extent, t.tensor_type.shape.dim)))


def _extent(d: Any) -> Open:
    match d.WhichOneof("value"):
        case "dim_value":
            return int(d.dim_value) if d.dim_value >= 0 else None
        case "dim_param":
            name = str(d.dim_param)
            return None if name in ("", "?") else name  # several of these need not be equal
    return None
