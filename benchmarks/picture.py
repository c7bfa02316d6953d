"""A bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from html import escape

_ROW, _LEFT, _WIDTH = 28, 270, 760


def bars(rows: list[tuple[str, float]], title: str) -> str:
    """Return one horizontal bar per (name, value)."""
    most = max(value for _, value in rows)
    height = 40 + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="13" fill="#777">',
        f"<title>{escape(title)}</title>",
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(rows):
        y, width = 32 + number * _ROW, (_WIDTH - _LEFT - 70) * value / most
        colour = "#2d7ff9" if number == len(rows) - 1 else "#9db2c9"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="20" rx="3" fill="{colour}"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{y + 15}">{value:.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
