"""The table of methods in docs/schedule.md is true."""

from pathlib import Path

from kernels import add

from tcomp.ir import PrimFunc
from tcomp.schedule import Schedule
from tcomp.schedule.primitives import ALL

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schedule.md"


def rows() -> list[list[str]]:
    lines = [x for x in DOCS.read_text().splitlines() if x.startswith("| `")]
    return [[cell.strip() for cell in x.strip("|").split("|")] for x in lines]


def test_every_method_named_exists_and_every_absence_has_a_reason() -> None:
    known = {*dir(Schedule), *vars(Schedule(_kernel()))}
    for theirs, ours, remark in rows():
        assert all(name.strip("` ") in known for name in ours.split(",") if name), (theirs, ours)
        assert ours or remark.startswith("absent:"), theirs


def test_every_primitive_is_mentioned() -> None:
    text = "\n".join(" ".join(r[1:]) for r in rows())
    assert not [name for name in ALL if f"`{name}`" not in text]


def _kernel() -> PrimFunc:

    return add()
