"""Every operator for a GPU, its CUDA C run on the CPU and watched, against its reference in float64; random graphs; random schedules."""

import numpy as np
import pytest
from test_operators import CASES
from test_reference_backend import check_graph, check_operator, flops

from tcomp.ops import OPERATORS
from tcomp.tools.fuzz import outcomes

EMULATOR = "cuda -device=emulator"
MOST_FLOPS = 4_000_000
SMALL = [case for case in CASES if flops(*case) <= MOST_FLOPS]


def test_every_operator_has_a_small_case() -> None:
    assert {case[0] for case in SMALL} == set(OPERATORS)


@pytest.mark.parametrize(("op", "shapes", "attrs"), SMALL, ids=[f"{c[0]}-{i}" for i, c in enumerate(SMALL)])
@pytest.mark.drawn(1 / 3)
def test_every_operator(op: str, shapes: list, attrs: dict, rng: np.random.Generator) -> None:
    check_operator(op, shapes, attrs, rng, EMULATOR)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.drawn(1 / 4)
def test_random_graphs(seed: int) -> None:
    check_graph(seed, EMULATOR)


FOUND = (144, 45, 59, 78, 83, 323, 202, 10036, 10077, 10088, 10502, 11228)
"""Seeds of schedules that were once wrong on the emulator: barriers, registers, guards, scratch memory too small."""


def check_schedule(seed: int) -> None:
    (outcome,) = outcomes(seed, 1, 1, target=EMULATOR)
    assert not outcome.layer, f"{outcome.detail}\npython -m tcomp.tools shrink {seed} --target '{EMULATOR}'"


@pytest.mark.parametrize("seed", FOUND)
def test_past_failures_stay_fixed(seed: int) -> None:
    check_schedule(seed)


@pytest.mark.parametrize("seed", range(30_000, 30_040))
@pytest.mark.drawn(1 / 2)
def test_random_schedules(seed: int) -> None:
    """Loops bound at random: what is not refused computes the same, without races."""
    check_schedule(seed)
