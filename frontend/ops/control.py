"""Loops and branches: functions of tensors that run once for each row, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorTuple, TensorTupleOp, accumulate_gradients, is_float, is_zeros, zeros_like
from ..body import (
    Body,
    Tree,
    argument,
    close,
    forward_values,
    leaves,
    specs_of,
    trace_body,
    tracing,
    unflatten,
    value_in,
)
from ..modes import DIFFERENTIATING
from ..registry import ops
from ..trace import Spec


class Scan(TensorTupleOp):
    """A body run once for each row: (initial carried tensors, scanned tensors, captured ones) -> (last carried tensors, stacked rows).

    Args:
        body: (carried, rows, captured) -> (carried, new rows).
    """

    def __init__(self, body: Body, num_carried: int, num_scanned: int, length: int, reverse: bool) -> None:
        self.body = body
        self.num_carried, self.num_scanned = num_carried, num_scanned
        self.length, self.reverse = length, reverse
        self._trail: list[dict[int, Any]] | None = None

    def __call__(self, *args: Any) -> TensorTuple:
        if DIFFERENTIATING.get() and any(x.requires_grad for x in args):
            self._trail = []
        return super().__call__(*args)

    @property
    def _first_captured(self) -> int:
        return self.num_carried + self.num_scanned

    def infer(self, inputs: Sequence[Any]) -> tuple[Spec, ...]:
        found = specs_of(self.body.results)
        rows = (Spec((self.length, *s.shape), s.dtype) for s in found[self.num_carried :])
        return (*found[: self.num_carried], *rows)

    def compute(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        carried = arrays[: self.num_carried]
        scanned, captured = arrays[self.num_carried : self._first_captured], arrays[self._first_captured :]
        results = self.body.results
        stacked = [np.empty(s.shape, s.dtype) for s in self.infer(())[self.num_carried :]]
        if self._trail is not None:
            self._trail.clear()
        for at in reversed(range(self.length)) if self.reverse else range(self.length):
            values = self.body.compute((*carried, *(x[at] for x in scanned), *captured))
            carried = tuple(values[id(r)] for r in results[: self.num_carried])
            for store, r in zip(stacked, results[self.num_carried :]):
                store[at] = values[id(r)]
            if self._trail is not None:
                self._trail.append(values)
        return (*carried, *stacked)

    def lower(self, g: Any, *args: Any) -> tuple[Any, ...]:
        init, captured = args[: self.num_carried], args[self._first_captured :]

        def step(b: Any, carried: Any, rows: Any) -> Any:
            made = self.body.lower(b, (*carried, *rows, *captured))
            return made[: self.num_carried], made[self.num_carried :]

        scanned = args[self.num_carried : self._first_captured]
        after, stacked = g.scan(step, init, scanned, length=self.length, reverse=self.reverse)
        return (*after, *stacked)

    def gradient(self, out_grad: TensorTuple, node: TensorTuple) -> tuple[Tensor | None, ...]:
        """A scan the other way. Its body is the gradient of this one's; what it needs of the values of each trip becomes a stacked
        result of this scan."""
        body, params = self.body, self.body.params
        grads = _members(out_grad)
        carried = [k for k in range(self.num_carried) if is_float(params[k].dtype)]
        rows = range(self.num_carried, len(body.results))
        live = [k for k in rows if is_float(body.results[k].dtype) and not is_zeros(grads[k])]
        wanted = [i for i in range(self.num_carried, len(params)) if node.inputs[i].requires_grad]
        with tracing():
            seeds = {k: argument(body.results[k]) for k in (*carried, *live)}
            found = _gradients(body, seeds, [params[i] for i in (*carried, *wanted)])
            sums = {i: argument(params[i]) for i in wanted if i >= self._first_captured}
            after = [_given(found, params[k]) for k in carried]
            after += [
                total + _given(found, params[i]) if id(params[i]) in found else total for i, total in sums.items()
            ]
            new_rows = {i: _given(found, params[i]) for i in wanted if i < self._first_captured}
        used = forward_values([*after, *new_rows.values()], body)
        place = {id(p): i for i, p in enumerate(params)}
        constant = [v for v in used if place.get(id(v), 0) >= self._first_captured]
        varying = [v for v in used if place.get(id(v), 0) < self._first_captured]
        own = [*(seeds[k] for k in carried), *sums.values(), *(seeds[k] for k in live), *varying, *constant]
        back, captured = close(own, [*after, *new_rows.values()])
        init = [grads[k] for k in carried] + [zeros_like(params[i]) for i in sums]
        scanned = [grads[k] for k in live] + self._rows_of(node, varying)
        outside = [node.inputs[place[id(v)]] for v in constant] + captured
        op = Scan(back, len(init), len(scanned), self.length, not self.reverse)
        made = iter(op(*init, *scanned, *outside))
        order = [*carried, *sums, *new_rows]
        by_input: dict[int, Tensor] = dict(zip(order, made))
        return tuple(by_input.get(i) for i in range(len(node.inputs)))

    def _rows_of(self, node: TensorTuple, values: Sequence[Tensor]) -> list[Tensor]:
        """Values of the body, those of all trips stacked: scanned tensors, or results of the node, which gets those that it lacks."""
        place = {id(p): i for i, p in enumerate(self.body.params)}
        known = {id(r): k for k, r in enumerate(self.body.results) if k >= self.num_carried}
        is_scanned = lambda v: self.num_carried <= place.get(id(v), -1)
        missing = [v for v in values if not is_scanned(v) and id(v) not in known]
        if missing:
            known |= dict(zip(map(id, missing), count(len(self.body.results))))
            self._extend(node, missing)
        return [node.inputs[place[id(v)]] if is_scanned(v) else node[known[id(v)]] for v in values]

    def _extend(self, node: TensorTuple, values: Sequence[Tensor]) -> None:
        """Let a node of this scan have further results: stacked values of the body."""
        body = Body(self.body.params, (*self.body.results, *values))
        op = Scan(body, self.num_carried, self.num_scanned, self.length, self.reverse)
        op._trail = self._trail
        before = node.cached_data
        node.op, node._spec, node.cached_data = op, op.infer(()), None
        if before is not None and op._trail is not None and len(op._trail) == self.length:
            trail = op._trail[::-1] if self.reverse else op._trail
            empty = [np.empty(s.shape, s.dtype) for s in node._spec[len(before) :]]
            for store, v in zip(empty, values):
                for at, known in enumerate(trail):
                    store[at] = value_in(known, v)
            node.cached_data = (*before, *empty)


class Cond(TensorTupleOp):
    """One of two bodies: (condition, what both take) -> its results."""

    def __init__(self, then: Body, orelse: Body) -> None:
        self.then, self.orelse = then, orelse

    def infer(self, inputs: Sequence[Any]) -> tuple[Spec, ...]:
        return specs_of(self.then.results)

    def compute(self, pred: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        chosen = self.then if pred else self.orelse
        values = chosen.compute(arrays)
        return tuple(values[id(r)] for r in chosen.results)

    def lower(self, g: Any, pred: Any, *args: Any) -> tuple[Any, ...]:
        found = g.cond(pred, lambda b: tuple(self.then.lower(b, args)), lambda b: tuple(self.orelse.lower(b, args)))
        return tuple(found)

    def gradient(self, out_grad: TensorTuple, node: TensorTuple) -> tuple[Tensor | None, ...]:
        """A cond of the bodies' gradients, which compute again what they need."""
        grads = _members(out_grad)
        live = [k for k, r in enumerate(self.then.results) if is_float(r.dtype) and not is_zeros(grads[k])]
        wanted = [i for i in range(1, len(node.inputs)) if node.inputs[i].requires_grad]
        if not live or not wanted:
            return (None,) * len(node.inputs)

        def back(body: Body) -> tuple[Body, list[Tensor]]:
            with tracing():
                seeds = {k: argument(body.results[k]) for k in live}
                found = _gradients(body, seeds, [body.params[i - 1] for i in wanted])
                after = [_given(found, body.params[i - 1]) for i in wanted]
            return close([*body.params, *seeds.values()], after)

        operands = [*node.inputs[1:], *(grads[k] for k in live)]
        made = iter(_choose(node.inputs[0], back(self.then), back(self.orelse), operands))
        by_input = dict(zip(wanted, made))
        return tuple(by_input.get(i) for i in range(len(node.inputs)))


def _choose(
    pred: Tensor, then: tuple[Body, list[Tensor]], orelse: tuple[Body, list[Tensor]], operands: Sequence[Tensor]
) -> TensorTuple:
    """A cond of two bodies of the same operands, each of which captures more."""
    captured = {id(x): x for _, outside in (then, orelse) for x in outside}

    def with_all(body: Body, outside: Sequence[Tensor]) -> Body:
        own = dict(zip(map(id, outside), body.params[len(operands) :]))
        rest = [own[key] if key in own else argument(x) for key, x in captured.items()]
        return Body((*body.params[: len(operands)], *rest), body.results)

    made: TensorTuple = Cond(with_all(*then), with_all(*orelse))(pred, *operands, *captured.values())
    return made


def _members(grad: TensorTuple) -> list[Tensor]:
    """The tensors of a tuple."""
    return list(grad.inputs) if isinstance(grad.op, ops.MakeTensorTuple) else list(grad)


def _gradients(body: Body, seeds: dict[int, Tensor], targets: Sequence[Tensor]) -> dict[int, Tensor]:
    """Gradients of some results of a body by some of its parameters, by their ids; those that do not depend on them are left out."""
    ids = {id(t) for t in targets}
    outputs = [body.results[k] for k in seeds]
    return {id(n): g for n, g in accumulate_gradients(outputs, list(seeds.values()), targets) if id(n) in ids}


def _given(found: dict[int, Tensor], like: Tensor) -> Tensor:
    """The gradient by a tensor, in its dtype; zeros where there is none."""
    g = found.get(id(like))
    if g is None:
        return zeros_like(like)
    return g if g.dtype == like.dtype else ops.cast(g, like.dtype)


def scan(
    f: Callable[[Tree, Tree], tuple[Tree, Tree]],
    init: Tree,
    xs: Tree = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Tree, Tree]:
    """A loop: `carry, y = f(carry, x)` for each row x of some tensors, from one initial carry; `f` is traced once, and so compiled once.

        def step(total, x):
            total = total + x
            return total, total

        last, running = ndl.scan(step, ndl.init.zeros(3), X)     # X: (steps, 3)

    Its gradient is a scan the other way, which reads what the first one has stacked for it. Random numbers that `f` draws are the same
    in each trip.

    Args:
        f: (carry, x) -> (carry, y). Carry, x and y are a tensor, None, or tuples of such; the carry keeps its shapes and dtypes. It may
            use other tensors, and sees no values.
        init: the carry of the first trip.
        xs: tensors with one row for each trip along their first axis.
        length: the number of trips, needed without `xs`.
        reverse: begin at the last row.

    Returns:
        The carry after the last trip, and all y, stacked along a new first axis.

    Raises:
        ValueError: numbers of rows differ, the carry changes its form, or `f` sets the data of a tensor. TypeError: `f` looks at values.
    """
    carried, scanned = leaves(init), leaves(xs)
    rows = _rows(scanned, length)
    forms: list[Tree] = []

    def flat(*args: Tensor) -> list[Tensor]:
        given: Iterator[Tensor] = iter(args)
        made = f(unflatten(init, given), unflatten(xs, given))
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            raise TypeError("the function of a scan returns (carry, y)")
        forms[:] = made
        after = leaves(made[0])
        if [(t.shape, t.dtype) for t in after] != [(t.shape, t.dtype) for t in carried]:
            shown = [", ".join(f"{t.dtype}{list(t.shape)}" for t in ts) for ts in (carried, after)]
            raise ValueError(f"the function of a scan turns the carry ({shown[0]}) into ({shown[1]})")
        return [*after, *leaves(made[1])]

    body, captured = trace_body(flat, [*(t.known for t in carried), *(_Row(t) for t in scanned)])
    op = Scan(body, len(carried), len(scanned), rows, reverse)
    if not body.results:
        return unflatten(forms[0], iter(())), unflatten(forms[1], iter(()))
    found = iter(op(*carried, *scanned, *captured))
    return unflatten(forms[0], found), unflatten(forms[1], found)


class _Row:
    """The type of a slice along the first axis."""

    def __init__(self, t: Tensor) -> None:
        self.shape, self.dtype = t.shape[1:], t.dtype


def _rows(scanned: Sequence[Tensor], length: int | None) -> int:
    if any(not t.shape for t in scanned):
        raise ValueError("a tensor without axes has no rows to scan")
    given = {t.shape[0] for t in scanned} | (set() if length is None else {length})
    if len(given) != 1 or min(given) < 0:
        raise ValueError(f"a scan needs one number of rows, got {sorted(given) if given else 'none'}")
    return given.pop()


def cond(pred: Any, then: Callable[..., Tree], orelse: Callable[..., Tree], *operands: Tensor) -> Tree:
    """`then(*operands)` where a condition holds, else `orelse(*operands)`: both are traced, one runs.

    Args:
        pred: a bool tensor without axes, or one that is compared with zero.
        then, orelse: of tensors; their results are a tensor, or tuples of such, of equal types. They may use other tensors.

    Raises:
        ValueError: the condition has axes, or the results differ in type.
    """
    condition = pred if isinstance(pred, Tensor) else Tensor.make_const(np.asarray(pred))
    if condition.shape:
        raise ValueError(f"a condition is one value, not a tensor of shape {condition.shape}")
    forms: list[Tree] = []

    def traced(f: Callable[..., Tree]) -> tuple[Body, list[Tensor]]:
        def flat(*args: Tensor) -> list[Tensor]:
            forms.append(f(*args))
            return leaves(forms[-1])

        return trace_body(flat, [t.known for t in operands])

    both = traced(then), traced(orelse)
    types = [[(r.shape, r.dtype) for r in body.results] for body, _ in both]
    if types[0] != types[1] or not types[0]:
        shown = [", ".join(f"{d}{list(s)}" for s, d in t) for t in types]
        raise ValueError(
            f"the functions of a cond return ({shown[0]}) and ({shown[1]}): they must be alike, and not empty"
        )
    flag = condition if condition.dtype == np.bool_ else ops.not_equal(condition, zeros_like(condition))
    return unflatten(forms[0], iter(_choose(flag, *both, operands)))
