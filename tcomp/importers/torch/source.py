"""A PyTorch module or an exported program."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ...dtype import DType, dtype
from ...errors import ShapeError, TcompError, UnsupportedError
from ...ir.graph import Operand
from ...ir.module import IRModule
from ...ir.node import with_fields
from ..builder import FoldingBuilder
from ..source import Bound, ModelInput, refusal
from . import elementwise, movement, neural, recurrent, reductions  # noqa: F401  (fill the table)
from .node import Node, is_tensor
from .table import converter

_IGNORED = (
    "_assert_tensor_metadata",
    "_assert_async",
    "sym_constrain_range",
    "_assert_scalar",
    "sym_constrain_range_for_size",
)


def kind_of(t: Any) -> DType:
    """Our dtype of PyTorch's.

    Raises:
        UnsupportedError: there is none.
    """
    name = str(t).removeprefix("torch.")
    try:
        return dtype(name)
    except TcompError:
        raise UnsupportedError(f"tensors of {name} cannot be compiled") from None


def array_of(t: Any) -> np.ndarray:
    """The values of a tensor, over its own memory where that is possible."""
    plain = t.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(dtype("bfloat16").numpy)
    return plain.numpy()


class TorchSource:
    """A PyTorch program.

    Args:
        program: as torch.export makes it. name: for people.

    Raises:
        UnsupportedError: it changes its inputs or its own state.
    """

    beside: tuple[str, ...] = ()

    def __init__(self, program: ExportedProgram, name: str = "model") -> None:
        self.name = name
        self._program = decomposed(program)
        changed = [s for s in self._program.graph_signature.output_specs if "MUTATION" in s.kind.name]
        if changed:
            raise UnsupportedError(
                f"{name} changes {changed[0].target or 'an input'} while it runs",
                hint="model.eval(), or a functional model",
            )
        values = {n.name: n.meta.get("val") for n in self._program.graph.nodes}
        found = []
        for s in self._program.graph_signature.input_specs:
            if s.kind.name == "USER_INPUT":
                v = values[s.arg.name]
                if isinstance(v, torch.Tensor):
                    shape = tuple(e if isinstance(e, int) else str(e) for e in v.shape)
                    found.append(ModelInput(s.arg.name, kind_of(v.dtype), shape))
        self.inputs = tuple(found)
        specs = [s for s in self._program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
        self.outputs = tuple(f"output{i}" for i, s in enumerate(specs) if getattr(s.arg, "name", None))
        if any(not isinstance(e, int) for i in self.inputs for e in i.shape or ()):
            raise UnsupportedError(f"{name} was exported with dynamic shapes", hint="export it for the shapes at hand")

    def close(self) -> None:
        """See `ModelSource`; the tensors are those of the program, which its owner holds."""

    def operators(self) -> list[str]:
        """See `ModelSource`."""
        nodes = [n for n in self._program.graph.nodes if n.op == "call_function"]
        return [str(n.target).removeprefix("aten.") for n in nodes if n.target is not operator.getitem]

    def build(self, shapes: Mapping[str, tuple[int | Bound, ...]], values: Mapping[str, Any]) -> IRModule:
        """See `ModelSource`."""
        g = FoldingBuilder(self.name)
        env: dict[str, Any] = {}
        problems: list[str] = []
        self._parameters(g, env, problems)
        results: list[Operand] = []
        for node in self._program.graph.nodes:
            if node.op == "call_function":
                self._convert(g, node, env, problems)
            elif node.op == "output":
                results = [env[n.name] for n in node.args[0] if isinstance(n, torch.fx.Node)]
        if problems:
            raise refusal(self.name, problems)
        module = g.build(*results)
        return module.with_main(with_fields(module.main, attrs=module.main.attrs.with_(result_names=self.outputs)))

    def _parameters(self, g: FoldingBuilder, env: dict[str, Any], problems: list[str]) -> None:
        p = self._program
        for s in p.graph_signature.input_specs:
            kind, name = s.kind.name, s.arg.name
            if kind == "USER_INPUT":
                known = next((i for i in self.inputs if i.name == name), None)
                env[name] = (
                    getattr(s.arg, "value", None) if known is None else g.input(name, known.shape or (), known.dtype)
                )
                continue
            if kind == "TOKEN":  # keeps effects in order
                env[name] = None
                continue
            target = str(s.target)
            value = p.state_dict.get(target) if kind in ("PARAMETER", "BUFFER") else None
            value = p.constants.get(target) if value is None else value
            if not isinstance(value, torch.Tensor):
                problems.append(f"{target}: a {type(value).__name__} is no tensor")
                continue
            env[name] = g.constant(array_of(value), target)

    def _convert(self, g: FoldingBuilder, node: Any, env: dict[str, Any], problems: list[str]) -> None:
        target = str(node.target)
        name = target.removeprefix("aten.")

        def value(a: Any) -> Any:
            if isinstance(a, torch.fx.Node):
                return env[a.name]
            if isinstance(a, (list, tuple)):
                return [value(x) for x in a]
            return a

        try:
            if node.target is operator.getitem:
                env[node.name] = env[node.args[0].name][node.args[1]]
                return
            if name.split(".")[0] in _IGNORED:
                env[node.name] = None
                return
            convert = converter(name) if target.startswith("aten.") else None
            if convert is None:
                raise UnsupportedError(f"{target} is no operator that can be compiled")
            args, named = value(node.args), {k: value(v) for k, v in node.kwargs.items()}
            if any(x is _MISSING for x in _flat([args, list(named.values())])):
                raise KeyError
            with g.origin(_label(node)):
                env[node.name] = self._called(g, convert, name, node, args, named)
        except KeyError:  # what it reads could not be converted
            env[node.name] = _Missing()
        except UnsupportedError as error:
            problems.append(f"{node.name}: {error.what}{': ' + error.why if error.why else ''}")
            env[node.name] = _Missing()

    def _called(self, g: FoldingBuilder, convert: Any, name: str, node: Any, args: Any, named: Any) -> Any:
        told = node.meta.get("val")
        all_told = [t for t in (told if isinstance(told, (list, tuple)) else [told]) if isinstance(t, torch.Tensor)]
        kinds = tuple(kind_of(t.dtype) for t in all_told)
        shape = tuple(all_told[0].shape) if all_told else ()
        named = {
            k: v
            for k, v in named.items()
            if k not in ("device", "layout", "pin_memory", "memory_format", "non_blocking")
        }
        named.pop("dtype", None)
        try:
            found = convert(Node(g, name, kinds, shape), *args, **named)
        except TypeError as error:
            raise UnsupportedError(f"{name} with these arguments is not read", why=str(error)) from error
        for made, told_ in zip(found if isinstance(found, tuple) else [found], all_told):
            if is_tensor(made) and (made.type.shape, made.type.dtype) != (tuple(told_.shape), kind_of(told_.dtype)):
                raise ShapeError(
                    f"{name} makes {made.type}", why=f"PyTorch tells {kind_of(told_.dtype)}{list(told_.shape)}"
                )
        return found


class _Missing(tuple[Any, ...]):
    """What could not be converted, and each part of it."""

    def __getitem__(self, i: Any) -> Any:
        return self


_MISSING = object()


def _flat(x: Any) -> Any:
    if isinstance(x, _Missing):
        yield _MISSING
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from _flat(y)
    else:
        yield x


def _label(node: Any) -> str:
    """The module that a call comes from, and its name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [p for p, _ in stack.values()]
    return f"{path[-1]}.{node.name}" if path and path[-1] else str(node.name)


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program without changes in place, and with operators that have no converter taken apart."""
    table = torch.export.default_decompositions()
    for op in list(table):
        name = str(op).removeprefix("aten.")
        if str(op).startswith("aten.") and converter(name) is not None:
            del table[op]
    return program.run_decompositions(table)


def source_of(model: Any, inputs: Any = None) -> TorchSource:
    """A module (with example inputs) or an exported program.

    Raises:
        TcompError: a module without inputs, or one that cannot be exported.
    """
    if isinstance(model, ExportedProgram):
        return TorchSource(model)
    if inputs is None:
        raise TcompError("compile needs example inputs to trace this model", hint="compile(model, [x])")
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    tensors = tuple(x if isinstance(x, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(x)) for x in given)
    try:
        with torch.no_grad():
            program = torch.export.export(model, tensors)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise TcompError(
            f"torch.export cannot export this {type(model).__name__}", why=f"{type(error).__name__}: {first}"
        ) from error
    return TorchSource(program, type(model).__name__)
