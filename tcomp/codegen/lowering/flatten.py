"""Buffers of several dimensions -> one-dimensional ones with computed offsets."""

from __future__ import annotations

from ...ir.arith import dims_env, simplify
from ...ir.expr import Buffer, Expr, Load, const
from ...ir.node import rewrite, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Allocate, For, If, Let, Stmt, Store, map_statements
from .common import Env, extend


def _strides(b: Buffer) -> list[Expr]:
    """Row-major strides, padded as the buffer's rules ask."""
    rules = {axis: (factor, offset) for axis, factor, offset in b.stride_rules}
    strides: list[Expr] = [const(1)] * b.ndim
    step: Expr = const(1)
    for axis in range(b.ndim - 1, -1, -1):
        if axis in rules:
            factor, offset = rules[axis]
            step = step + (offset - step) % factor
        strides[axis] = simplify(step, {})
        step = strides[axis] * b.shape[axis]
    return strides


def offset(b: Buffer, indices: tuple[Expr, ...], env: Env) -> Expr:
    """The offset of an element, in elements."""
    result: Expr = const(0)
    strides = _strides(b) if b.stride_rules else b.strides
    if strides is not None:
        for index, stride in zip(indices, strides):
            result = result + index * stride
    else:
        for index, extent in zip(indices, b.shape):
            result = result * extent + index
    return simplify(result, env)


def flatten_buffer(b: Buffer) -> Buffer:
    """The one-dimensional buffer of all elements."""
    size: Expr = const(1)
    for extent in b.shape:
        size = size * extent
    if b.stride_rules and b.shape:
        size = _strides(b)[0] * b.shape[0]
    return with_fields(b, shape=(simplify(size, {}),), strides=None, stride_rules=())


def flatten_buffers(func: PrimFunc) -> PrimFunc:
    """Give every access one index, the offset in elements, simplified for the ranges of the loops around it."""
    flat: dict[Buffer, Buffer] = {}

    def flat_of(b: Buffer) -> Buffer:
        if b not in flat:
            flat[b] = flatten_buffer(b)
        return flat[b]

    def expr(e: Expr, env: Env) -> Expr:
        def post(x: object) -> object:
            if isinstance(x, Load):
                return with_fields(x, buffer=flat_of(x.buffer), indices=(offset(x.buffer, x.indices, env),))
            return x

        return rewrite(e, post)

    def visit(s: Stmt, env: Env) -> Stmt:
        match s:
            case For():
                inner = extend(env, s)
                return map_statements(s, lambda x: visit(x, inner))
            case Store():
                index = expr(offset(s.buffer, s.indices, env), env)
                return with_fields(s, buffer=flat_of(s.buffer), indices=(index,), value=expr(s.value, env))
            case Let():
                return with_fields(s, value=expr(s.value, env), body=visit(s.body, extend(env, s)))
            case If():
                s = with_fields(s, cond=expr(s.cond, env))
                return map_statements(s, lambda x: visit(x, env))
            case Allocate():
                return with_fields(s, buffer=flat_of(s.buffer), body=visit(s.body, env))
            case _:
                return map_statements(s, lambda x: visit(x, env))

    body = visit(func.body, dims_env(func.dims))
    params = tuple(flat_of(p) if isinstance(p, Buffer) else p for p in func.params)
    return with_fields(func, params=params, body=body)
