"""Random decisions of the default rules over random kernels."""

from collections import Counter

import pytest

from tcomp.tools import plan_fuzz
from tcomp.tools.plan_fuzz import Outcome, operator_graph, outcomes, run_case


@pytest.mark.parametrize("count", [24, pytest.param(400, marks=pytest.mark.slow)])
def test_random_decisions_are_refused_or_right(count: int) -> None:
    kinds: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes(7000, count, 1):
        assert not outcome.wrong
        kinds.update(outcome.kinds)
    assert sum(n for (_, kind), n in kinds.items() if kind == "right") >= count
    assert len({rule for rule, _ in kinds}) >= 3


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_random_decisions_for_a_gpu(count: int) -> None:
    kinds: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes(8, count, 1, "cuda -device=emulator"):
        assert not outcome.wrong
        kinds.update(outcome.kinds)
    assert kinds["tensor_product", "right"] and kinds["plain", "right"] >= count


def test_what_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that say something else than what is computed."""
    exact = plan_fuzz.evaluate
    monkeypatch.setattr(plan_fuzz, "evaluate", lambda *args, **how: [r + 1 for r in exact(*args, **how)])
    told = [run_case(seed).wrong for seed in range(7000, 7004)]
    assert all(told) and "replay: python -m tcomp.tools plan-fuzz --cases 1 --seed 7000" in told[0]


def test_kernels_of_all_kinds_are_made() -> None:
    seen = {b.call.op for seed in range(150) for b in operator_graph(seed)[0].main.bindings}
    assert seen >= {"matmul", "conv2d", "max_pool2d", "softmax", "transpose", "concat", "attention"}
    assert Outcome().kinds == Counter()
