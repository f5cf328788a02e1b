"""An ONNX model, from a file or from memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from ...errors import InternalError, ShapeError, TcompError, UnsupportedError
from ...ir.graph import Operand
from ...ir.module import IRModule
from ...ir.node import with_fields
from ..builder import FoldingBuilder
from ..extents import Extents
from ..source import Bound, ModelInput, declared, refusal
from . import converters  # noqa: F401  (fills the table)
from .graph import Reader, Scope
from .types import NOWHERE, ModelFolder, array_of, damaged_text, input_of


class OnnxSource:
    """A model in ONNX's format.

    Args:
        model: the model, which must not change any more.
        name: for people. folder: of its file.

    Raises:
        UnsupportedError: an input is no tensor.
    """

    def __init__(self, model: ModelProto, name: str = "model", folder: ModelFolder = NOWHERE) -> None:
        self._model = model
        self._closed = False
        self.name = name
        self.folder = folder
        if not model.HasField("graph"):
            raise ShapeError(f"{name} has no graph")
        damaged = damaged_text(model)
        if damaged:
            raise ShapeError(f"{name} is damaged", why=f"{damaged} is no text")
        self._arrays: dict[str, np.ndarray] = {}
        self._lacking: dict[str, str] = {}
        problems: list[str] = []
        found: list[ModelInput] = []
        for t in model.graph.initializer:
            try:
                self._arrays[t.name] = array_of(t, folder)
            except UnsupportedError as error:
                self._lacking[t.name] = error.what
        self._lacking.update(
            {t.values.name: "sparse tensors cannot be compiled" for t in model.graph.sparse_initializer}
        )
        for v in model.graph.input:
            if v.name not in self._arrays and v.name not in self._lacking:
                try:
                    found.append(input_of(v.name, v.type))
                except UnsupportedError as error:
                    problems.append(str(error))
        if problems:
            raise refusal(name, problems)
        self.inputs = tuple(found)
        self.outputs = tuple(v.name for v in model.graph.output)

    def close(self) -> None:
        """See `ModelSource`."""
        self._closed = True
        self._arrays.clear()

    @property
    def beside(self) -> tuple[str, ...]:
        return tuple(self.folder.read)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> OnnxSource:
        """A model from a file.

        Raises:
            TcompError: there is no such file, or it is damaged.
        """
        file = Path(path)
        if file.exists() and not file.is_file():
            raise TcompError(f"cannot read {file}", why="it is no regular file")
        try:
            model = ModelProto()
            model.ParseFromString(file.read_bytes())
        except OSError as error:
            raise TcompError(f"cannot read {file}", why=error.strerror or str(error)) from error
        except DecodeError as error:
            raise TcompError(f"{file} is no ONNX model, or a damaged one", why=str(error)) from error
        source = OnnxSource(model, file.name, ModelFolder(str(file.parent)))
        del model.graph.initializer[:], model.graph.sparse_initializer[:]  # they are arrays now
        source._model = ModelProto()
        source._model.CopyFrom(model)  # the memory of a message is freed with the whole message alone
        return source

    def operators(self) -> list[str]:
        """See `ModelSource`."""
        found: list[str] = []

        def visit(nodes: Any) -> None:
            for n in nodes:
                found.append(n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}")
                for a in n.attribute:
                    visit(a.g.node)

        visit(self._model.graph.node)
        return found

    def build(self, shapes: Mapping[str, tuple[int | Bound, ...]], values: Mapping[str, Any]) -> IRModule:
        """See `ModelSource`."""
        g = FoldingBuilder(self.name)
        symbols: dict[str, Any] = {}
        given: dict[str, Operand] = {}
        for i in self.inputs:
            if i.name in values:
                given[i.name] = g.constant(np.asarray(values[i.name]))
            else:
                given[i.name] = g.input(i.name, declared(shapes[i.name], symbols, g.dim), i.dtype)
        if self._closed:
            raise InternalError(f"{self.name} is closed")
        model = self._model
        functions = {(("" if f.domain == "ai.onnx" else f.domain), f.name): f for f in model.functions}
        versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
        reader = Reader(functions, self.folder)
        scope = Scope(versions or {"": 1})
        given.update({name: g.constant(a, name) for name, a in self._arrays.items()})
        results = reader.graph(g, model.graph, scope, given, self._lacking)
        if reader.problems:
            raise refusal(self.name, reader.problems)
        operands = [r.as_operand(g) if isinstance(r, Extents) else r for r in results]
        module = g.build(*operands)
        main = module.main
        return module.with_main(with_fields(main, attrs=main.attrs.with_(result_names=self.outputs)))


def source_of(model: Any) -> OnnxSource | None:
    """A ModelProto, or the path of an ONNX file, as a source; None for anything else."""
    if isinstance(model, onnx.ModelProto):
        return OnnxSource(model, model.graph.name or "model")
    return OnnxSource.load(model)
