"""A run of the tuner as one self-contained page."""

from __future__ import annotations

import html
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, EDGE = 300.0, 150.0, 34.0
_COLUMNS = ("kernel", "% of time", "calls", "tried", "refused", "best seen", "accepted", "changes", "seconds")
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 80em; color: #222 }
td, th { padding: .2em .7em; text-align: left; vertical-align: top } table { border-collapse: collapse }
tr + tr { border-top: 1px solid #ddd } figure { display: inline-block; margin: .5em 1em .5em 0 } figcaption { font-weight: 600 }
svg text { font-size: 10px; fill: #555 } .line { fill: none; stroke: #1f6feb; stroke-width: 1.5 } .axis { stroke: #999 } .dot { fill: #1f6feb }
.before { fill: #c9d1d9 } .after { fill: #1f6feb }
"""


def page_of(
    summary: Sequence[str],
    rows: Sequence[Sequence[str]],
    bars: Sequence[tuple[str, float, float]],
    searches: Sequence[tuple[str, Points, Points]],
) -> str:
    """HTML.

    Args:
        summary: lines of text. rows: cells of the table, a row a kernel. bars: (kernel, share of time before, after). searches: (kernel,
            best ratio by seconds, (predicted, measured) ratios).
    """
    head = "".join(f"<th>{c}</th>" for c in _COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in rows)
    pictures = "".join(
        f"<figure><figcaption>{html.escape(name)}</figcaption>{_chart(curve, 'seconds', 'best ratio', True)}"
        + (_chart(seen, "predicted ratio", "measured", False) if seen else "")
        + "</figure>"
        for name, curve, seen in searches
        if curve
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>tuning</title><style>{_STYLE}</style><h1>Tuning</h1>"
        f"<p>{'<br>'.join(map(html.escape, summary))}</p><table><tr>{head}</tr>{body}</table>"
        f"<h2>Time by kernel, before and after</h2>{_bars(bars)}<h2>Searches</h2>{pictures}</html>\n"
    )


def _bars(bars: Sequence[tuple[str, float, float]]) -> str:
    most = max((b for _, b, _ in bars), default=1.0) or 1.0
    rows = "".join(
        f"<text x=0 y={22 * i + 14}>{html.escape(name)}</text>"
        f"<rect class=before x=200 y={22 * i} width={400 * before / most:.1f} height=9 />"
        f"<rect class=after x=200 y={22 * i + 9} width={400 * after / most:.1f} height=9 />"
        for i, (name, before, after) in enumerate(bars)
    )
    return f"<svg width=620 height={22 * len(bars) + 4}>{rows}</svg>"


def _chart(points: Points, across: str, up: str, as_line: bool) -> str:
    """A small chart: a line, or dots."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (0.0 if as_line else min(xs)), max(xs)
    bottom, top = min(ys), max(ys)
    wide, tall = (high - low) or 1.0, (top - bottom) or 1.0
    places = [
        (EDGE + (x - low) / wide * (WIDTH - EDGE - 8), HEIGHT - EDGE - (y - bottom) / tall * (HEIGHT - EDGE - 12))
        for x, y in points
    ]
    if as_line:
        drawn = f"<polyline class=line points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in places)}' />"
    else:
        drawn = "".join(f"<circle class=dot r=2 cx={x:.1f} cy={y:.1f} />" for x, y in places)
    left, floor = f"{EDGE:.0f}", f"{HEIGHT - EDGE:.0f}"
    return (
        f"<svg width={WIDTH:.0f} height={HEIGHT:.0f}><line class=axis x1={left} y1={floor} x2={WIDTH:.0f} y2={floor} />"
        f"<line class=axis x1={left} y1=0 x2={left} y2={floor} />{drawn}"
        f"<text x={left} y={HEIGHT - EDGE + 12:.0f}>{low:.2f}</text><text x={WIDTH - 30:.0f} y={HEIGHT - EDGE + 12:.0f}>{high:.2f}</text>"
        f"<text x=0 y={floor}>{bottom:.2f}</text><text x=0 y=12>{top:.2f}</text>"
        f"<text x={WIDTH / 2 - 30:.0f} y={HEIGHT - 8:.0f}>{across}</text><text x={EDGE + 4:.0f} y=12>{up}</text></svg>"
    )
