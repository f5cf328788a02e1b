"""Which thread of a block has which element of a buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from ...ir.arith import Linear, interval, linear, simplify
from ...ir.expr import Expr, Var
from ...ir.node import substitute
from ...ir.query import free_vars
from ...ir.stmt import For
from .common import Env


@dataclass(frozen=True)
class Part:
    """What a thread has of one dimension of a buffer.

    Attributes:
        whose: the threads that have an element, as a function of their numbers; empty where each has all elements. Equal ones mean the same
            thread for each element, if the loops around bind the same threads.
        index: of an element among the thread's own.
        extent: of these; None where each has all, or that is unknown.
    """

    whose: frozenset[tuple[Expr, int]]
    index: Expr
    extent: int | None


def part_of(index: Expr, threads: Sequence[For], env: Env, names: dict[str, Var]) -> Part | None:
    """An index as a thread and a place among its elements: `far * s * n + t * s + near`, for thread t of n and near < s. None where it cannot be
    told apart so.

    Args:
        threads: the loops around that are bound to threads. names: gets a variable that stands for each thread's number.
    """
    own: Mapping[Var, Expr] = {t.var: names.setdefault(t.thread, Var(t.thread)) for t in threads}
    form = linear(index, env)
    of_threads = {t: c for t, c in form.terms.items() if free_vars(t) and free_vars(t) <= own.keys()}
    if not of_threads:
        return None if free_vars(index) & own.keys() else Part(frozenset(), index, None)
    step = gcd(*of_threads.values())
    low, high = interval(Linear(of_threads).expr(), env)
    if low != 0 or high is None or high < 0:  # below 0 where a loop does not run
        return None
    span = high + step  # of all threads together
    far = Linear({t: c // span for t, c in form.terms.items() if t not in of_threads and c % span == 0}).expr()
    near = simplify(index - Linear(of_threads).expr() - far * span, env)
    (least, most), (first, last) = interval(near, env), interval(far, env)
    if (free_vars(near) | free_vars(far)) & own.keys():
        return None
    if least is None or most is None or least < 0 or most >= step:
        return None
    whose = frozenset((substitute(t, own), c) for t, c in of_threads.items())
    extent = None if first is None or last is None or first < 0 else (last + 1) * step
    return Part(whose, simplify(far * step + near, env), extent)
