"""Models from elsewhere: ONNX files, PyTorch modules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TcompError, UnsupportedError
from ..ir.module import IRModule
from ..lazy import lazy_module
from .source import Bound, ModelInput, ModelSource, NeedsValues, fixed_shapes

onnx_source = lazy_module("tcomp.importers.onnx.source")
torch_source = lazy_module("tcomp.importers.torch.source")

__all__ = ["Bound", "ModelInput", "ModelSource", "NeedsValues", "fixed_shapes", "load", "source_of"]


def load(
    model: Any,
    inputs: Any = None,
    *,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    shapes: Mapping[str, Sequence[Any]] | None = None,
    values: Mapping[str, Any] | None = None,
) -> IRModule:
    """A model from elsewhere as an IRModule.

    Args:
        model: the path of an ONNX file, an onnx.ModelProto, a torch.nn.Module (with example inputs), or a torch ExportedProgram.
        inputs: example arrays, whose shapes the inputs have.
        dims: extents by the names that the model gives them: a number, or (1, bound) for any up to a bound.
        shapes: whole shapes by the inputs' names.
        values: of inputs that decide extents; they are no inputs of the module then.

    Raises:
        UnsupportedError: what cannot be compiled, all of it at once. ShapeError: the model does not fit together, or an extent is open.
        TcompError: there is no such file, or it is damaged.
    """
    source = source_of(model, inputs)
    if source is None:
        raise UnsupportedError(
            f"cannot read a {type(model).__name__}", hint="the path of an ONNX file, or a ModelProto"
        )
    found = shapes_of(source, inputs, dims, shapes)
    known = dict(values or {})
    for i in source.inputs:
        shape = found[i.name]
        if i.name not in known and (shape is None or not all(isinstance(e, (int, Bound)) for e in shape)):
            raise TcompError(f"extents of {i} are open", hint="dims= or shapes= fix them")
    try:
        return source.build(found, known)
    except NeedsValues as error:
        raise TcompError(
            f"{source.name} cannot be read without the values of {', '.join(error.names)}",
            why=str(error),
            hint="values=",
        ) from None


def shapes_of(
    source: ModelSource,
    inputs: Any = None,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    shapes: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """The inputs' shapes, see `fixed_shapes`; of example arrays, where those are given."""
    if inputs is not None:
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(given) != len(source.inputs):
            raise TcompError(f"{len(given)} example inputs for {source.name}, which has {len(source.inputs)}")
        shapes = {**{i.name: tuple(x.shape) for i, x in zip(source.inputs, given)}, **(shapes or {})}
    return fixed_shapes(source, dims, shapes)


def source_of(model: Any, inputs: Any = None) -> ModelSource | None:
    """A model from elsewhere, ready to be read; None for anything that is no such model.

    Raises:
        TcompError: no such file, a damaged one, or the package that reads it is missing.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.suffix != ".onnx":
            raise TcompError(f"{path} is no model that can be read", hint="a file whose name ends in .onnx")
        return _read("onnx", lambda: onnx_source.source_of(model))
    if _is_a(model, "onnx", "ModelProto"):
        return _read("onnx", lambda: onnx_source.source_of(model))
    if _is_a(model, "torch", "Module") or _is_a(model, "torch", "ExportedProgram"):
        return _read("torch", lambda: torch_source.source_of(model, inputs))
    return None


def _is_a(model: Any, package: str, name: str) -> bool:
    """Whether a model is of a class of a package, which need not be imported."""
    return any(t.__name__ == name and t.__module__.split(".")[0] == package for t in type(model).__mro__)


def _read(package: str, read: Any) -> ModelSource:
    try:
        found: ModelSource = read()
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in (package, "google"):
            raise TcompError(
                f"reading this model needs the package {package}", hint=f"pip install tcomp[{package}]"
            ) from None
        raise
    return found
