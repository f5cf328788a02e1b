"""A schedule as one self-contained page: each step, the loops before it and after it."""

from __future__ import annotations

import difflib
import html
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..ir.primfunc import PrimFunc
from ..ir.printer import text
from .trace import Step

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; color: #1c2733; background: #f6f7f9 }
header { background: #1c2733; color: #fff; padding: .8em 1.4em }
header h1 { font-size: 1.1em; margin: 0 }
main { display: grid; grid-template-columns: 21em 1fr; gap: 1em; padding: 1em }
nav { background: #fff; border: 1px solid #d8dde3; border-radius: 6px; overflow: auto; max-height: 88vh }
nav button { display: block; width: 100%; text-align: left; border: 0; background: none; padding: .35em .8em;
  font: 12.5px/1.4 ui-monospace, monospace; cursor: pointer; color: inherit; white-space: pre-wrap }
nav button[aria-current=true] { background: #dbe9fb }
section { display: none; grid-template-columns: 1fr 1fr; gap: 1em }
section.shown { display: grid }
figure { margin: 0; background: #fff; border: 1px solid #d8dde3; border-radius: 6px; overflow: auto }
figcaption { padding: .3em .8em; border-bottom: 1px solid #d8dde3; color: #5a6775 }
pre { margin: 0; padding: .6em 0; font: 12.5px/1.45 ui-monospace, monospace }
pre span { display: block; padding: 0 .8em; min-height: 1.45em; white-space: pre }
.gone { background: #fde3e1 } .new { background: #dff3e1 }
"""
_SCRIPT = """
const steps = [...document.querySelectorAll('section')], buttons = [...document.querySelectorAll('nav button')];
let at = 0;
function show(i) {
  at = Math.max(0, Math.min(i, steps.length - 1));
  steps.forEach((s, n) => s.classList.toggle('shown', n === at));
  buttons.forEach((b, n) => b.setAttribute('aria-current', n === at));
  buttons[at].scrollIntoView({block: 'nearest'});
}
buttons.forEach((b, n) => b.onclick = () => show(n));
document.onkeydown = e => {
  if (['ArrowDown', 'ArrowRight'].includes(e.key)) { show(at + 1); e.preventDefault(); }
  if (['ArrowUp', 'ArrowLeft'].includes(e.key)) { show(at - 1); e.preventDefault(); }
};
show(steps.length - 1);
"""


def _listing(lines: Sequence[str], marked: set[int], kind: str) -> str:
    spans = (f'<span class="{kind if i in marked else ""}">{html.escape(x)}</span>' for i, x in enumerate(lines))
    return f"<pre>{''.join(spans)}</pre>"


def _figure(caption: str, listing: str) -> str:
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{listing}</figure>"


def _section(before: PrimFunc, after: PrimFunc) -> str:
    old, new = text(before).splitlines(), text(after).splitlines()
    gone, fresh = set[int](), set[int]()
    for tag, i, j, k, l in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            gone |= set(range(i, j))
            fresh |= set(range(k, l))
    left, right = _listing(old, gone, "gone"), _listing(new, fresh, "new")
    return f"<section>{_figure('before', left)}{_figure('after', right)}</section>"


def page(name: str, history: Sequence[tuple[Step, PrimFunc]], final: PrimFunc) -> str:
    """The page's text.

    Args:
        history: each step and the kernel before it; final: the kernel after the last.
    """
    states = [before for _, before in history] + [final]
    start = f"<section>{_figure('the kernel as written', _listing(text(states[0]).splitlines(), set(), ''))}</section>"
    sections = [start, *(_section(a, b) for a, b in pairwise(states))]
    labels = ["as written", *(f"{n}. {step.as_python()}" for n, (step, _) in enumerate(history, 1))]
    buttons = "".join(f"<button>{html.escape(label)}</button>" for label in labels)
    title = html.escape(f"schedule of {name}: {len(history)} steps")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<header><h1>{title}</h1></header><main><nav>{buttons}</nav><div>{''.join(sections)}</div></main>"
        f"<script>{_SCRIPT}</script></html>\n"
    )


def write(path: str | os.PathLike[str], content: str) -> Path:
    """Write a file, whole or not at all."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(content)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return target
