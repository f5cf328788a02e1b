"""The pages under docs/: the code in them runs, the files that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_of_the_architecture_runs() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict = {}
    exec(compile(code, "architecture.md", "exec"), scope)
    exe = scope["exe"]
    assert exe.num_kernels == 1 and float(scope["y"][0, 0]) == 768
    for stage in ("graph", "fused", "loops", "scheduled", "schedule", "llvm", "asm", "explain"):
        assert exe.ir(stage)
    assert "rule: tiled reduction" in exe.explain()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    names = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|ll|toml))`", page.read_text(encoding="utf-8")))
    known = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*") if ".venv" not in p.parts}
    missing = [n for n in names if not any(k == n or k.endswith("/" + n) for k in known)]
    assert not missing
