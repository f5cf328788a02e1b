"""The ONNX operator suite through native code: a third of it, drawn by a fixed seed; all of it in `make test-all`."""

import pytest

onnx = pytest.importorskip("onnx")

from onnx_suite import DIFFERENT, KINDS, cases, reason, run  # noqa: E402

import tcomp  # noqa: E402


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in cases(kind)])
@pytest.mark.drawn(1 / 3)
def test_case(kind: str, name: str) -> None:
    case = cases(kind)[name]
    if reason(name):
        with pytest.raises(tcomp.UnsupportedError):
            run(case)
    else:
        run(case, *DIFFERENT.get(name, (0.0, 0.0)))
