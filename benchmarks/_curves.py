"""Curves as a plain SVG, for results that one wants to see."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_COLOURS = ("#0b6e4f", "#3a86c8", "#c08a2b", "#b5483a", "#7a5ea8", "#6b7280", "#111827")
_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 300, 52, 34

Line = list[tuple[float, float]]


def curves(
    panels: Mapping[str, Mapping[str, Line]],
    across: str,
    up: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> str:
    """Panels side by side, each with its lines; points outside the ranges are left out."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    parts = [
        _panel(number, title, lines, colours, (x_range, y_range))
        for number, (title, lines) in enumerate(panels.items())
    ]
    width = len(panels) * (_WIDTH + _LEFT) + 16
    below = _TOP + _HEIGHT + 34
    legend = "".join(
        f'<rect x="{_LEFT + (at % 3) * 270}" y="{below + 18 * (at // 3)}" width="14" height="4" '
        f'fill="{colours[name]}"/>'
        f'<text x="{_LEFT + 20 + (at % 3) * 270}" y="{below + 6 + 18 * (at // 3)}">{escape(name)}</text>'
        for at, name in enumerate(names)
    )
    axes = f'<text x="{_LEFT}" y="{below - 12}">{escape(across)}</text><text x="4" y="16">{escape(up)}</text>'
    height = below + 18 * (-(-len(names) // 3)) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}{axes}{legend}</svg>\n'
    )


def _panel(
    number: int,
    title: str,
    lines: Mapping[str, Line],
    colours: Mapping[str, str],
    ranges: tuple[tuple[float, float], tuple[float, float]],
) -> str:
    (x0, x1), (y0, y1) = ranges
    left = _LEFT + number * (_WIDTH + _LEFT)

    def place(x: float, y: float) -> str:
        return f"{left + (x - x0) / (x1 - x0) * _WIDTH:.1f},{_TOP + (y1 - y) / (y1 - y0) * _HEIGHT:.1f}"

    grid = []
    for step in range(7):
        x, y = x0 + (x1 - x0) * step / 6, y0 + (y1 - y0) * step / 6
        (px, _), (_, py) = place(x, y0).split(","), place(x0, y).split(",")
        grid.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{py}" y2="{py}" stroke="#e5e7eb"/>')
        grid.append(f'<text x="{left - 6}" y="{py}" text-anchor="end" dominant-baseline="middle">{y:.2f}</text>')
        grid.append(f'<text x="{px}" y="{_TOP + _HEIGHT + 13}" text-anchor="middle">{x:.2f}</text>')
    drawn = []
    for name, line in lines.items():
        inside = [place(x, y) for x, y in line if x0 <= x <= x1 and y0 <= y <= y1]
        drawn.append(f'<polyline points="{" ".join(inside)}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
        drawn += [
            f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.4" fill="{colours[name]}"/>' for p in inside
        ]
    heading = f'<text x="{left}" y="{_TOP - 10}" font-weight="bold">{escape(title)}</text>'
    return heading + "".join(grid) + "".join(drawn)
