"""The ONNX operator suite through native code: about a third of it, drawn by a fixed seed; all of it in `make test-all`."""

from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from onnx_suite import DIFFERENT, KINDS, cases, cases_of, node_files, reason, run  # noqa: E402

import tcomp  # noqa: E402

OTHERS = [(kind, name) for kind in KINDS if kind != "node" for name in cases(kind)]
FILES = [f for f in node_files() if f != "_image_decoder_data"]  # which defines no case


def outcome(name: str, case: Any) -> str:
    """What is wrong with a case; nothing where it passes, or is refused as it should."""
    try:
        run(case, *DIFFERENT.get(name, (0.0, 0.0)))
    except tcomp.UnsupportedError as error:
        return "" if reason(name) else f"{name}: {error}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    return f"{name} is run" if reason(name) else ""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.drawn(0.3)
def test_node_cases(file: str) -> None:
    """Of one operator; those of all operators are too many to be computed where tests are only listed."""
    found = cases_of(file)
    assert found
    assert not [text for name, case in found.items() if (text := outcome(name, case))]


@pytest.mark.parametrize(("kind", "name"), OTHERS)
@pytest.mark.drawn(1 / 3)
def test_whole_models(kind: str, name: str) -> None:
    assert not outcome(name, cases(kind)[name])
