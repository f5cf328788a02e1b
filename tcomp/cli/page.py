"""One self-contained page about a compiled model."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.executable import Executable

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; color: #222; }
h1 { font-size: 1.5em; } td, th { padding: .2em .7em; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.kernel { border: 1px solid #bbb; border-radius: 6px; padding: .4em .7em; margin: .35em 0; position: relative; }
.bar { position: absolute; left: 0; top: 0; bottom: 0; background: #cfe3ff; border-radius: 6px; z-index: -1; }
.node { display: inline-block; background: #f3f3f3; border-radius: 4px; padding: 0 .4em; margin: .1em; font-size: 12px; }
.time { float: right; font-variant-numeric: tabular-nums; color: #555; }
"""


def page_of(name: str, facts: dict[str, Any], exe: Executable, arguments: Sequence[np.ndarray]) -> str:
    """HTML: the model's facts, then its kernels in the order of a run, each a box around the nodes that it computes, as long a bar as
    it takes time."""
    profile = exe.profile(*arguments, repeat=5)
    most = max((r.seconds for r in profile.rows), default=1.0) or 1.0
    rows = [
        ("inputs", "<br>".join(map(html.escape, facts["inputs"]))),
        ("outputs", "<br>".join(map(html.escape, facts["outputs"]))),
        ("operators", html.escape(", ".join(f"{k} {n}" for k, n in facts["operators"].items()))),
        ("parameters", f"{facts['parameters']:,} ({facts['parameter_bytes'] / 2**20:.1f} MiB)"),
        ("operations", f"{facts['flops'] / 1e6:,.1f} million"),
        ("time of all kernels", f"{1e3 * profile.seconds:.3f} ms"),
        ("memory", html.escape(str(exe.memory))),
    ]
    table = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows)
    boxes = "".join(_box(r, most, profile.seconds) for r in profile.rows)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(name)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(name)}</h1><table>{table}</table><h2>Kernels in the order of a run</h2>{boxes}</html>\n"
    )


def _box(row: Any, most: float, total: float) -> str:
    nodes = "".join(f"<span class=node>{html.escape(n)}</span>" for n in row.origin.split(", ") if n)
    share = 100 * row.seconds / total if total else 0.0
    calls = f" x {row.calls}" if row.calls > 1 else ""
    return (
        f"<div class=kernel><div class=bar style='width:{100 * row.seconds / most:.1f}%'></div>"
        f"<span class=time>{1e6 * row.seconds:.1f} us, {share:.1f} %, {row.gflops:.1f} GFLOP/s, {row.gbytes:.1f} GB/s</span>"
        f"<b>{html.escape(row.name)}{calls}</b><br>{nodes}</div>"
    )
