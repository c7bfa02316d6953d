"""Draw docs/gcra.svg: what one limit admits over time, computed by the limiter's own arithmetic.

Run `python -m docs.gcra` after changing it; a test compares the file with what this draws.
"""

from __future__ import annotations

from pathlib import Path

from limits.local import LocalBuckets
from limits.policy import US_PER_S, Limit

TARGET = Path(__file__).with_name("gcra.svg")
LIMIT = Limit("tokens.mint", 30, 60 * US_PER_S, 5)
# Seconds at which a user asks: a burst of eight, single requests, a pause, another burst.
ASKED = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 4.0, 6.0, 7.0, 8.5, 18.0, 18.2, 18.4, 18.6, 18.8, 19.0, 19.2]
END_S = 24
WIDTH, LEFT, TOP, UNIT = 760, 50, 40, 28


def draw() -> str:
    """Return the picture as SVG text."""
    clock = [0]
    buckets = LocalBuckets(lambda: clock[0])
    asked = []
    for at in ASKED:
        clock[0] = round(at * US_PER_S)
        asked.append((at, buckets.take("a user", LIMIT) is None))
    lines = [(tick / 10, _left(asked, tick / 10)) for tick in range(END_S * 10 + 1)]
    return _svg(lines, asked)


def _left(asked: list[tuple[float, bool]], at: float) -> float:
    """Return the units left at a moment, in fractions: they refill steadily, not in steps."""
    left, last = float(LIMIT.burst), 0.0
    for when, allowed in asked:
        if when > at:
            break
        left = min(LIMIT.burst, left + (when - last) * US_PER_S / LIMIT.emission_us) - allowed
        last = when
    return min(LIMIT.burst, left + (at - last) * US_PER_S / LIMIT.emission_us)


def _svg(lines: list[tuple[float, float]], asked: list[tuple[float, bool]]) -> str:
    scale = (WIDTH - LEFT - 20) / END_S
    bottom = TOP + LIMIT.burst * UNIT

    def x(at: float) -> str:
        return f"{LEFT + at * scale:.1f}"

    def y(units: float) -> str:
        return f"{bottom - units * UNIT:.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 60}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>A limit of 30 per minute with a burst of 5: units left, and what was admitted</title>",
        f'<rect width="{WIDTH}" height="{bottom + 60}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">30/min, burst 5: one unit back every 2 s, never more than 5</text>',
    ]
    for units in range(LIMIT.burst + 1):
        out.append(f'<line x1="{LEFT}" x2="{x(END_S)}" y1="{y(units)}" y2="{y(units)}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{float(y(units)) + 4:.1f}" text-anchor="end" fill="#555">{units}</text>')
    points = " ".join(f"{x(at)},{y(left)}" for at, left in lines)
    out.append(f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="2"/>')
    for at, allowed in asked:
        colour, sign = ("#15803d", "admitted") if allowed else ("#b91c1c", "denied")
        out.append(
            f'<circle cx="{x(at)}" cy="{bottom + 16}" r="3.5" fill="{colour}"><title>{at} s {sign}</title></circle>'
        )
    for second in range(0, END_S + 1, 4):
        out.append(f'<text x="{x(second)}" y="{bottom + 38}" text-anchor="middle" fill="#555">{second} s</text>')
    out.append(f'<text x="{LEFT}" y="{bottom + 54}" fill="#15803d">● admitted</text>')
    out.append(f'<text x="{LEFT + 90}" y="{bottom + 54}" fill="#b91c1c">● denied, costs nothing</text>')
    out.append(f'<text x="{LEFT + 270}" y="{bottom + 54}" fill="#2563eb">— units left</text>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(draw())
