"""The ONNX operator suite through native code: a third of it, drawn by a fixed seed; all of it in `make test-all`."""

import random

import pytest

onnx = pytest.importorskip("onnx")

from onnx_suite import DIFFERENT, KINDS, cases, reason, run  # noqa: E402

import tcomp  # noqa: E402

ALL = [(kind, name) for kind in KINDS for name in cases(kind)]
DRAWN = set(random.Random(19).sample(ALL, len(ALL) // 3))


def check(kind: str, name: str) -> None:
    case = cases(kind)[name]
    if reason(name):
        with pytest.raises(tcomp.UnsupportedError):
            run(case)
    else:
        run(case, *DIFFERENT.get(name, (0.0, 0.0)))


@pytest.mark.parametrize(("kind", "name"), sorted(DRAWN))
def test_case(kind: str, name: str) -> None:
    check(kind, name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [c for c in ALL if c not in DRAWN])
def test_the_other_cases(kind: str, name: str) -> None:
    check(kind, name)
