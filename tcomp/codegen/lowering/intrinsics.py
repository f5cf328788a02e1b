"""Loops of tensorized blocks -> the instructions that they stand for."""

from __future__ import annotations

from ...analysis.match import MismatchError, match
from ...errors import UnsupportedError
from ...ir.arith import dims_env
from ...ir.expr import Buffer, Load, const
from ...ir.node import rewrite, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import For, Stmt, Store, map_statements
from ...ir.tensor_intrin import Place, TensorIntrin, tensor_intrin
from .common import Env, extend
from .flatten import flatten_buffer, offset


def place_intrinsics(func: PrimFunc) -> PrimFunc:
    """Write the instruction in place of each nest that `Schedule.tensorize` marked.

    Raises:
        UnsupportedError: a later step changed how an operand lies in memory.
    """
    return with_fields(func, body=_visit(func.body, dims_env(func.dims)))


def _visit(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, For):
        intrin = tensor_intrin(str(s.annotations.get("tensor_intrin", "")))
        if intrin is not None:
            return _instruction(intrin, s, env)
        inner = extend(env, s)
        return map_statements(s, lambda x: _visit(x, inner))
    return map_statements(s, lambda x: _visit(x, env))


def _instruction(intrin: TensorIntrin, s: For, env: Env) -> Stmt:
    flat: dict[Buffer, Buffer] = {}

    def flatten(x: object) -> object:
        if isinstance(x, (Load, Store)) and x.buffer.name not in intrin.apart:
            buffer = flat.setdefault(x.buffer, flatten_buffer(x.buffer))
            return with_fields(x, buffer=buffer, indices=(offset(x.buffer, x.indices, {}),))
        return x

    wanted = rewrite(intrin.description, flatten)
    try:
        found = match(wanted, s, env, intrin.apart)
    except MismatchError as error:
        raise UnsupportedError(
            f"the nest of loop {s.var.name} cannot be the instruction {intrin.name}",
            why=f"{error}: a later step changed how it lies in memory",
            hint="tensorize after the operands have their final layout",
        ) from None
    return intrin.implementation({name: Place(x.buffer, x.index[-1], const(x.step)) for name, x in found.items()})
