"""Every operator for a GPU, its CUDA C run on the CPU and watched, against its reference in float64; random graphs; training steps."""

import numpy as np
import pytest
from test_operators import CASES, judge, make
from test_reference_backend import flops

import tcomp
from tcomp.ops import OPERATORS
from tcomp.ops.reference import evaluate
from tcomp.ops.registry import as_tuple
from tcomp.tools.graph_fuzz import differs, random_graph

MOST_FLOPS = 4_000_000
SMALL = [case for case in CASES if flops(*case) <= MOST_FLOPS]


def test_every_operator_has_a_small_case() -> None:
    assert {case[0] for case in SMALL} == set(OPERATORS)


@pytest.mark.parametrize(("op", "shapes", "attrs"), SMALL, ids=[f"{c[0]}-{i}" for i, c in enumerate(SMALL)])
@pytest.mark.drawn(1 / 3)
def test_every_operator(op: str, shapes: list, attrs: dict, rng: np.random.Generator) -> None:
    arrays = [make(s, op, rng) for s in shapes]
    g = tcomp.GraphBuilder()
    results = g.op(op, *(g.input(f"x{i}", x.shape, x.dtype) for i, x in enumerate(arrays)), **attrs)
    module = g.build(*as_tuple(results))
    exe = tcomp.compile(module, target="cuda -device=emulator")
    judge(exe(*arrays), evaluate(module, arrays, exact=True), attrs)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.drawn(1 / 4)
def test_random_graphs(seed: int) -> None:
    """Many kernels, results and constants in one program."""
    module, inputs, eps = random_graph(seed)
    exe = tcomp.compile(module, target="cuda -device=emulator")
    got = exe(*inputs)
    results = got if isinstance(got, tuple) else (got,)
    assert not [d for g, w, e in zip(results, evaluate(module, inputs), eps) if (d := differs(g, w, e))]
