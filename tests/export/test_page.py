"""The page that recognises digits, in a real browser: drawn with the mouse, looked at as people see it."""

import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, Browser, served

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("ziglang") is None, reason="no Chromium or no ziglang"
)


def arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse, from one angle to another, in turns; 0 is at the right, a quarter at the bottom."""
    turns = [2 * math.pi * (start + (end - start) * i / 24) for i in range(25)]
    return [(x + wide * math.cos(t), y + high * math.sin(t)) for t in turns]


STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [arc(0.5, 0.5, 0.24, 0.38, 0, 1)],
    1: [[(0.38, 0.28), (0.53, 0.12), (0.53, 0.88)]],
    3: [arc(0.48, 0.3, 0.2, 0.18, -0.45, 0.25) + arc(0.48, 0.68, 0.22, 0.2, -0.25, 0.45)],
    4: [[(0.55, 0.1), (0.25, 0.6), (0.78, 0.6)], [(0.6, 0.35), (0.6, 0.92)]],
    6: [[(0.6, 0.1), (0.42, 0.3), (0.32, 0.6)], arc(0.5, 0.68, 0.19, 0.2, 0.5, 1.5)],
    7: [[(0.25, 0.14), (0.75, 0.14), (0.45, 0.9)]],
}
"""On a square of side 1."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("web")
    done = subprocess.run([sys.executable, ROOT / "tutorials" / "web" / "build.py", folder], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("%")[0]) >= 97
    with served(folder) as address:
        browser = Browser(f"{address}/index.html", tmp_path_factory.mktemp("profile"))
        yield browser
        browser.close()


def test_what_is_drawn_is_recognised_while_it_is_drawn(page: Browser) -> None:
    for _ in range(200):
        ready = page.value("document.body?.dataset.ready ?? ''")
        if ready:
            break
        time.sleep(0.05)
    assert float(ready) <= 1e-5, page.console
    left, top, side = page.value("(({x, y, width}) => [x, y, width])(document.getElementById('pad').getBoundingClientRect())")  # fmt: skip
    assert page.value("document.querySelectorAll('li.best').length") == 0
    for digit, strokes in STROKES.items():
        page.value("document.getElementById('clear').click()")
        for stroke in strokes:
            page.drag([(left + side * x, top + side * y) for x, y in stroke])
        best = page.value("document.querySelector('li.best').textContent")
        assert best[0] == str(digit), f"{digit} was read as {best}"
        assert page.value("document.getElementById('status').textContent").endswith("ms a run")
    chances = page.value("[...document.querySelectorAll('.chance')].map((e) => parseFloat(e.textContent))")
    assert len(chances) == 10 and sum(chances) == pytest.approx(100, abs=0.6)
    picture = page.screenshot()
    assert picture[:4] == b"\x89PNG" and not page.console
    if os.environ.get("PAGE_PICTURE"):
        Path(os.environ["PAGE_PICTURE"]).write_bytes(picture)
    page.value("document.getElementById('clear').click()")
    assert page.value("document.querySelectorAll('li.best').length") == 0
