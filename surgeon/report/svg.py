"""Figures of the report as inline SVG: no script, no network, colours from the page's CSS.

Numbers are drawn where they were measured; a NaN leaves a gap.
"""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 30


def interval_bar(low: float, high: float, at: float, span: float, kind: str) -> str:
    """One row of a forest plot over -span..span: an interval, its estimate and zero.

    Holds no text and may be stretched to any width.
    """
    if not all(math.isfinite(value) for value in (low, high, at)):
        return ""

    def x(value: float) -> float:
        return 100 * (min(max(value, -span), span) + span) / (2 * span)

    return (
        '<svg class="bar" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="zero" x1="50" x2="50" y1="0" y2="20"/>'
        f'<line class="range {escape(kind)}" x1="{x(low):.2f}" x2="{x(high):.2f}" y1="10" y2="10"/>'
        f'<line class="point {escape(kind)}" x1="{x(at):.2f}" x2="{x(at):.2f}" y1="4" y2="16"/>'
        "</svg>"
    )


def layer_line(values: Sequence[float], block: tuple[int, int] | None, title: str) -> str:
    """One statistic over the layers, the duplicated block shaded."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    scale = Scale((-0.5, len(values) - 0.5), (low - pad, high + pad), 320, 130)
    parts = [open_figure(320, 130, title)]
    if block:
        parts.append(scale.band_x(block[0] - 0.5, block[1] - 0.5, "block"))
    parts += scale.axis_y(round_ticks(low, high, 3))
    step = max(1, math.ceil(len(values) / 12))
    parts += scale.axis_x([float(at) for at in range(0, len(values), step)])
    for run in _runs(values):
        points = " ".join(f"{scale.x(at):.1f},{scale.y(values[at]):.1f}" for at in run)
        parts.append(f'<polyline class="line" points="{points}"/>')
        parts += [
            f'<circle class="dot" cx="{scale.x(at):.1f}" cy="{scale.y(values[at]):.1f}" r="2.2">'
            f"<title>layer {at}: {values[at]:.4g}</title></circle>"
            for at in run
        ]
    return "".join([*parts, "</svg>"])


def running_interval(
    trace: Sequence[tuple[int, float, float, float]], margin: float, kind: str
) -> str:
    """Difference and its confidence sequence against the documents seen."""
    seen = [point for point in trace if all(math.isfinite(value) for value in point)]
    if len(seen) < 2:
        return ""
    # The first intervals cover everything that is possible; what matters comes later.
    late = seen[len(seen) // 4 :]
    reach = max(2 * margin, *(max(abs(low), abs(high)) for _, _, low, high in late))
    bound = min(1.0, reach * 1.1)
    scale = Scale((float(seen[0][0]), float(seen[-1][0])), (-bound, bound), WIDTH, HEIGHT)
    upper = [f"{scale.x(n):.1f},{scale.y(high):.1f}" for n, _, _, high in seen]
    lower = [f"{scale.x(n):.1f},{scale.y(low):.1f}" for n, _, low, _ in reversed(seen)]
    mean = " ".join(f"{scale.x(n):.1f},{scale.y(value):.1f}" for n, value, _, _ in seen)
    zero = scale.y(0)
    parts = [
        open_figure(WIDTH, HEIGHT, "difference so far with its interval"),
        scale.band_y(-margin, margin, "margin"),
        *scale.axis_y(round_ticks(-bound, bound, 5)),
        *scale.axis_x(round_ticks(seen[0][0], seen[-1][0], 5), "documents"),
        f'<polygon class="area {escape(kind)}" points="{" ".join(upper + lower)}"/>',
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
        f'<polyline class="line {escape(kind)}" points="{mean}"/>',
        "</svg>",
    ]
    return "".join(parts)


class Scale:
    """Data to pixels, and the axes that say so."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], width: int, height: int
    ) -> None:
        self._x, self._y, self.width, self.height = x, y, width, height

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self._x
        return LEFT + (self.width - LEFT - RIGHT) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        """Pixels from the top; values beyond the axis lie on its end."""
        low, high = self._y
        value = min(max(value, low), high)
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * (value - low) / (high - low)

    def band_x(self, start: float, stop: float, kind: str) -> str:
        """A band from top to bottom."""
        left, right = self.x(start), self.x(stop)
        return (
            f'<rect class="{kind}" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
            f'height="{self.height - TOP - BOTTOM}"/>'
        )

    def band_y(self, low: float, high: float, kind: str) -> str:
        """A band from left to right."""
        top, bottom = self.y(high), self.y(low)
        return (
            f'<rect class="{kind}" x="{LEFT}" y="{top:.1f}" '
            f'width="{self.width - LEFT - RIGHT}" height="{bottom - top:.1f}"/>'
        )

    def axis_y(self, ticks: Sequence[float]) -> list[str]:
        """Grid lines with their numbers."""
        right = self.width - RIGHT
        parts = []
        for tick in ticks:
            at = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            )
            parts.append(f'<text x="{LEFT - 5}" y="{at + 3:.1f}" class="end">{tick:.4g}</text>')
        return parts

    def axis_x(self, ticks: Sequence[float], label: str = "") -> list[str]:
        """Numbers below, and what they are."""
        base = self.height - BOTTOM
        parts = [
            f'<text x="{self.x(tick):.1f}" y="{base + 13}" class="mid">{tick:.4g}</text>'
            for tick in ticks
        ]
        if label:
            parts.append(
                f'<text x="{(LEFT + self.width - RIGHT) / 2}" y="{self.height - 3}" class="mid">'
                f"{escape(label)}</text>"
            )
        return parts


def open_figure(width: int, height: int, title: str) -> str:
    """The opening tag of a figure, to be closed with `</svg>`."""
    return (
        f'<svg class="figure" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title>"
    )


def _runs(values: Sequence[float]) -> list[list[int]]:
    """Indices of finite values, cut at the gaps."""
    runs: list[list[int]] = [[]]
    for at, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(at)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in `low`..`high`: the coarsest step that gives at least `count`."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.ceil(math.log10(span))
    for step in (power * m for m in (1, 0.5, 0.25, 0.2, 0.1, 0.05, 0.025, 0.02, 0.01)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= count:
            return [round(k * step, 12) for k in range(first, last + 1)]
    return [low, high]
