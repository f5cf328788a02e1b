"""Index arithmetic: simplification never changes a value, bounds always hold."""

import itertools
import random

import pytest

from tcomp.dtype import int64
from tcomp.ir.arith import can_prove, divisors, interval, simplify
from tcomp.ir.expr import EQ, LE, LT, NE, Const, Expr, FloorDiv, FloorMod, Select, Var, const
from tcomp.ir.printer import text
from tcomp.ir.query import equal
from tcomp.te import maximum, minimum


def evaluate(e: Expr, values: dict) -> int:
    match e:
        case Const():
            return e.value
        case Var():
            return values[e]
        case Select():
            return evaluate(e.then if evaluate(e.cond, values) else e.orelse, values)
    a, b = evaluate(e.a, values), evaluate(e.b, values)
    return {
        "+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "//": lambda: a // b, "%": lambda: a % b,
        "min": lambda: min(a, b), "max": lambda: max(a, b), "<": lambda: a < b, "<=": lambda: a <= b,
        "==": lambda: a == b, "!=": lambda: a != b, "and": lambda: a and b, "or": lambda: a or b,
    }[e.symbol]()  # fmt: skip


def random_expr(rng: random.Random, variables: list[Var], depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice([*variables, const(rng.randint(-9, 9))])
    a, b = random_expr(rng, variables, depth - 1), random_expr(rng, variables, depth - 1)
    k = rng.choice([2, 3, 4, 5, 8, 16])
    return rng.choice([
        lambda: a + b, lambda: a - b, lambda: a * rng.randint(-5, 5), lambda: FloorDiv(a, const(k)),
        lambda: FloorMod(a, const(k)), lambda: minimum(a, b), lambda: maximum(a, b), lambda: a * k + b,
    ])()  # fmt: skip


@pytest.mark.parametrize("seed", range(300))
def test_simplify_keeps_the_value_and_bounds_hold(seed: int) -> None:
    rng = random.Random(seed)
    variables = [Var(n) for n in "ijk"]
    extents = [rng.randint(1, 7) for _ in variables]
    env = {v: (const(0), const(n - 1)) for v, n in zip(variables, extents)}
    e = random_expr(rng, variables, 4)
    simple = simplify(e, env)
    low, high = interval(e, env)
    condition = e < rng.randint(-20, 20)
    proved = can_prove(condition, env) if not isinstance(condition, Const) else False
    for point in itertools.product(*(range(n) for n in extents)):
        values = dict(zip(variables, point))
        want = evaluate(e, values)
        assert evaluate(simple, values) == want, f"{text(e)} became {text(simple)}"
        assert (low is None or low <= want) and (high is None or want <= high)
        if proved:
            assert evaluate(condition, values)


@pytest.mark.parametrize("seed", range(300))
def test_simplify_keeps_what_conditions_say(seed: int) -> None:
    """With ranges and without them, where values are negative too."""
    rng = random.Random(seed)
    variables = [Var(n) for n in "ijk"]
    quotient = FloorDiv(random_expr(rng, variables, 2), const(rng.choice([2, 3, 7])))
    other = random_expr(rng, variables, rng.randrange(3))
    left, right = (quotient, other) if rng.random() < 0.5 else (other, quotient + rng.randint(-3, 3))
    condition = rng.choice([LT, LE, EQ, NE])(left, right)
    env = {v: (const(-3), const(rng.randint(-1, 4))) for v in variables}
    for known in (env, {}):
        simple = simplify(condition, known)
        for point in itertools.product(*(range(-3, env[v][1].value + 1) for v in variables)):
            values = dict(zip(variables, point))
            assert evaluate(simple, values) == evaluate(condition, values), f"{text(condition)} became {text(simple)}"


def test_conditions_on_quotients_speak_of_the_dividend() -> None:
    i, j, n = Var("i"), Var("j"), Var("n")
    for condition, simple in (
        (const(3) <= i // 3, "9 <= i"),
        (i // 3 - 3 < 224, "i <= 680"),
        (const(0) <= (i * 16 + j) // 3 - 3, "9 <= i * 16 + j"),
        (i // 4 < n, "i < n * 4"),
        (n <= i // 4, "n * 4 <= i"),
        (n < i // 4 + j, "n * 4 + 4 <= i + j * 4"),
    ):
        assert text(simplify(condition)) in (simple, simple.replace(" + 4 <= ", " + 3 < ")), text(condition)


def test_what_tiling_needs_simplifies() -> None:
    io, ii, n = Var("io"), Var("ii"), Var("n")
    env = {io: (const(0), const(7)), ii: (const(0), const(15)), n: (const(1), const(1 << 30))}
    assert simplify((io * 16 + ii) // 16, env) is io
    assert simplify((io * 16 + ii) % 16, env) is ii
    assert simplify((io * 32 + ii) // 16, env) == simplify(io * 2, env)
    assert simplify((ii // 4) * 4 + ii % 4, env) is ii
    assert simplify((ii // 2) // 4, env) == simplify(ii // 8, env)
    assert can_prove(io * 16 + ii < 128, env)
    assert not can_prove(io * 16 + ii < 127, env)


def test_symbolic_extents() -> None:
    i, n = Var("i"), Var("n")
    env = {n: (const(1), const(1 << 30)), i: (const(0), n - 1)}
    assert can_prove(i < n, env)
    assert can_prove(i + 1 <= n, env)
    assert not can_prove(i + 1 < n, env)
    assert simplify(n - n + i, env) is i
    assert can_prove(equal(n // n, 1), env)


def test_index_dtype_is_int64() -> None:
    assert simplify(Var("i") + 1).dtype == int64


def test_divisions_see_only_whole_steps() -> None:
    """A tile of lanes inside of a panel, whichever tile it is."""
    tile, lane = Var("tile"), Var("lane")
    env = {lane: (const(0), const(15))}
    assert simplify((tile * 16 + lane) % 32, env) == simplify(tile % 2 * 16 + lane, env)
    assert simplify((tile * 16 + lane) // 32, env) == simplify(tile // 2, env)
    assert simplify((tile * 48 + lane + 3) // 32, {lane: (const(0), const(12))}) == simplify(tile * 3 // 2, {})
    wide = {lane: (const(0), const(16))}  # may reach the next step
    assert simplify((tile * 16 + lane) // 32, wide) == (tile * 16 + lane) // 32


def test_the_digits_of_a_fused_loop_make_the_loop_again() -> None:
    """Row-major offsets of all axes of a tensor, fused into one loop and split into vectors."""
    i, lane = Var("i"), Var("lane")
    env = {i: (const(0), const(401407)), lane: (const(0), const(15))}
    x = i * 16 + lane
    offset = ((x // 802816 * 56 + x // 14336 % 56) * 56 + x // 256 % 56) * 256 + x % 256
    assert simplify(offset, env) == simplify(x, env)


@pytest.mark.parametrize("n", [1, 2, 12, 97, 360, 1 << 16, 65537 * 3, (1 << 31) - 1, 1 << 62])
def test_divisors(n: int) -> None:
    found = divisors(n)
    assert found[0] == 1 and found[-1] == n and found == sorted(set(found)) and all(n % d == 0 for d in found)
    if n < 1000:
        assert found == [d for d in range(1, n + 1) if n % d == 0]
    assert divisors(n, 10) == [d for d in range(1, 11) if n % d == 0]
