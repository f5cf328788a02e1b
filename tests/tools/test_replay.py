"""The tool that compares the code of two checkouts: silent about equal ones, exact about what differs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tcomp
from tcomp.tools.replay import ROOT, replay

TARGET = ["llvm -mcpu=skylake-avx512 -num-cores=1"]


def programs() -> Iterator[tuple[str, tcomp.IRModule]]:
    """A product and a softmax."""
    g = tcomp.GraphBuilder()
    yield "product", g.build(g.matmul(g.input("a", (30, 20)), g.input("b", (20, 50))))
    g = tcomp.GraphBuilder()
    yield "softmax", g.build(g.softmax(g.input("a", (30, 50))))


def checkout(folder: Path, path: str, old: str, new: str) -> Path:
    """A copy of this checkout with a change."""
    shutil.copytree(ROOT / "tcomp", folder / "tcomp", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return folder


def test_what_differs_is_named(tmp_path: Path) -> None:
    before = checkout(tmp_path, "tcomp/schedule/rules/cpu/tiled_reduction.py", "UNROLL = 4", "UNROLL = 2")
    found = dict(replay(before, "tests.tools.test_replay:programs", TARGET))
    change = found["product"]
    assert change is not None and "the schedule and the code differ" in str(change) and "kernel matmul" in str(change)
    assert "split" in change.schedule and change.code
    assert found["softmax"] is None


def test_equal_checkouts_make_equal_code() -> None:
    found = list(replay(ROOT, "tests.tools.test_replay:programs", TARGET))
    assert [c for _, c in found] == [None, None]


def test_kernels_that_only_one_side_makes_are_named(tmp_path: Path) -> None:
    before = checkout(
        tmp_path,
        "tcomp/passes/fuse.py",
        '"_".join(b.call.op for b in members if isinstance(b.call, OpCall))',
        '"_".join(["old"])',
    )
    found = [str(c) for _, c in replay(before, "tests.tools.test_replay:programs", TARGET)]
    assert (
        len(found) == 4 and sum("only made before" in c for c in found) == sum("only made now" in c for c in found) == 2
    )


def test_a_folder_without_tcomp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tcomp.TcompError, match="no checkout"):
        next(replay(tmp_path, "tests.tools.test_replay:programs"))
