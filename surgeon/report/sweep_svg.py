"""Inline figures of a sweep's page: heat maps and the Pareto front.

Colours come from the page's CSS, so that they follow a light or dark theme: a square is a
middle colour with so much of the better or worse colour over it as its difference is of
the scale's end, which is the blend that the PNG's colour map makes.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from surgeon.block import Block
from surgeon.report import svg
from surgeon.report.sweep_map import (
    WORDS,
    BlockMap,
    Mark,
    Quantity,
    short,
    signed,
    spread,
    value_of,
)
from surgeon.sweeping.result import Effect

SIDE, LEFT, TOP, BOTTOM, RIGHT = 20, 36, 6, 38, 6
STRONG = 0.55
"""From this share of the full colour on, text on it takes the colour of the page."""

SHAPES = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "triangle": "M0 -4.6L4.4 3.4H-4.4z",
    "diamond": "M0 -4.8L4.2 0L0 4.8L-4.2 0z",
    "down": "M0 4.6L4.4 -3.4H-4.4z",
    "plus": "M-1.5 -4.4h3v2.9h2.9v3h-2.9v2.9h-3v-2.9h-2.9v-3h2.9z",
    "cross": "M-4.2 -2.2L-2.2 -4.2L0 -2L2.2 -4.2L4.2 -2.2L2 0L4.2 2.2L2.2 4.2L0 2L-2.2 4.2"
    "L-4.2 2.2L-2 0z",
    "star": "M0 -5L1.3 -1.6L4.8 -1.5L2 .6L3 4.1L0 2.1L-3 4.1L-2 .6L-4.8 -1.5L-1.3 -1.6z",
    "right": "M4.6 0L-3.4 4.4V-4.4z",
}
"""Outlines around 0, 0 in a square of side 10; the same shapes as in the PNG."""


class HeatMap:
    """One map as SVG: first layer across, end of the block up.

    Args:
        block_map: what to draw.
        quantity: which difference.
        reach: the difference that has the full colour.
        rows: the number of each block's effect in the page's table.
        predicted: marks to draw, if these blocks are what scorers predict.
    """

    def __init__(
        self,
        block_map: BlockMap,
        quantity: Quantity,
        reach: float,
        rows: Mapping[Block, int],
        predicted: Sequence[Mark],
    ) -> None:
        self.map, self.quantity, self.reach = block_map, quantity, reach
        self.rows, self.predicted = rows, predicted
        # A map of many blocks is drawn smaller, so its axis needs larger letters.
        self.letters = 8 if block_map.roomy else 13
        self.width = LEFT + SIDE * len(block_map.starts) + RIGHT
        self.height = TOP + SIDE * len(block_map.stops) + BOTTOM

    def draw(self) -> str:
        """The whole figure."""
        title = f"{self.map.title}: {WORDS[self.quantity][0]} by first layer and end of the block"
        head = (
            f'<svg class="heat" viewBox="0 0 {self.width} {self.height}" role="group" '
            f'aria-label="{escape(title)}" style="--columns:{len(self.map.starts)};'
            f'--letters:{self.letters}px">'
        )
        drawn = [b for b, e in self.map.effects.items() if math.isfinite(self._value(e))]
        blank = sorted({*self.map.gaps, *self.map.effects} - set(drawn))
        parts = [head, *self._axes()]
        parts.append(f'<path class="middle" d="{"".join(map(self._square, drawn))}"/>')
        if blank:
            parts.append(f'<path class="blank" d="{"".join(map(self._hatch, blank))}"/>')
        parts += [self._cell(block) for block in sorted(self.map.effects)]
        if self.map.roomy:
            parts += [self._number(block) for block in drawn]
        parts += self._signs()
        return "".join([*parts, "</svg>"])

    def _value(self, effect: Effect) -> float:
        return value_of(effect, self.quantity)

    def _corner(self, block: Block) -> tuple[int, int]:
        x = LEFT + SIDE * (block.start - self.map.starts.start)
        return x, TOP + SIDE * (self.map.stops.stop - 1 - block.stop)

    def _square(self, block: Block) -> str:
        x, y = self._corner(block)
        return f"M{x} {y}h{SIDE}v{SIDE}h-{SIDE}z"

    def _hatch(self, block: Block) -> str:
        x, y = self._corner(block)
        half = SIDE // 2
        return (
            f"M{x} {y + half}l{half} -{half}M{x} {y + SIDE}l{SIDE} -{SIDE}"
            f"M{x + half} {y + SIDE}l{half} -{half}"
        )

    def _cell(self, block: Block) -> str:
        effect = self.map.effects[block]
        x, y = self._corner(block)
        value = self._value(effect)
        share = min(1.0, abs(value) / self.reach) if math.isfinite(value) else 0.0
        kind = "better" if value > 0 else "worse"
        said = signed(value) if math.isfinite(value) else "not measured"
        return (
            f'<rect class="cell {kind}" data-row="{self.rows[block]}" data-at="{block}" '
            f'x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill-opacity="{share:.3f}">'
            f"<title>{block} {said}</title></rect>"
        )

    def _number(self, block: Block) -> str:
        value = self._value(self.map.effects[block])
        x, y = self._corner(block)
        strong = " strong" if abs(value) > STRONG * self.reach else ""
        return (
            f'<text class="value{strong}" x="{x + SIDE / 2:g}" y="{y + SIDE - 3.5:g}">'
            f"{signed(value, 2)}</text>"
        )

    def _signs(self) -> list[str]:
        """The best outlined, dropped blocks dotted, predicted blocks marked."""
        parts = []
        for block, effect in self.map.effects.items():
            if effect.dropped and math.isfinite(effect.difference):
                x, y = self._corner(block)
                parts.append(f'<circle class="dropped" cx="{x + SIDE - 3}" cy="{y + 3}" r="1.1"/>')
        if self.map.best:
            x, y = self._corner(self.map.best)
            box = f'x="{x}" y="{y}" width="{SIDE}" height="{SIDE}"'
            parts.append(f'<rect class="halo" {box}/><rect class="best" {box}/>')
        for at, mark in enumerate(self.predicted):
            # A scorer may rank blocks that this sweep did not try.
            if mark.block.start in self.map.starts and mark.block.stop in self.map.stops:
                x, y = self._corner(mark.block)
                low = 3.5 if self.map.roomy else 0
                parts.append(
                    f'<path class="mark" data-mark="{at}" d="{SHAPES[mark.style]}" '
                    f'transform="translate({x + SIDE / 2 - low:g} {y + SIDE / 2 - low:g})"/>'
                )
        return parts

    def _axes(self) -> list[str]:
        starts, stops = self.map.starts, self.map.stops
        step = max(1, math.ceil(max(len(starts), len(stops)) / 18))
        base = TOP + SIDE * len(stops)
        parts = [
            f'<text class="mid" x="{self._corner(Block(at, stops.stop))[0] + SIDE / 2:g}" '
            f'y="{base + self.letters + 2}">{at}</text>'
            for at in starts[::step]
            if at < stops.stop
        ]
        for row, stop in enumerate(stops):
            if row % step == 0:
                y = base - SIDE * (row + 0.5) + 3
                parts.append(f'<text class="end" x="{LEFT - 4}" y="{y:g}">{stop}</text>')
        middle = LEFT + SIDE * len(starts) / 2
        parts.append(
            f'<text class="mid" x="{middle:g}" y="{base + 2 * self.letters + 7}">first layer</text>'
        )
        half = TOP + SIDE * len(stops) / 2
        parts.append(
            f'<text class="mid" x="10" y="{half:g}" transform="rotate(-90 10 {half:g})">'
            "end of the block</text>"
        )
        return parts


def shape(style: str) -> str:
    """One mark by itself, for a legend."""
    return (
        '<svg class="key" viewBox="-6 -6 12 12" aria-hidden="true">'
        f'<path class="mark" d="{SHAPES[style]}"/></svg>'
    )


def pareto(effects: Sequence[Effect], rows: Mapping[str, int], floor: float) -> str:
    """Gain against added layers: the front connected and with intervals, the others pale.

    Args:
        effects: candidates with a difference, front and others.
        rows: the number of each candidate's row, by its label.
        floor: differences below it are drawn there, as arrows.
    """
    best = sorted((e for e in effects if e.pareto), key=lambda e: (e.added, e.difference))
    others = [e for e in effects if not e.pareto]
    ends = [end for e in best for end in e.interval if math.isfinite(end)]
    shown = [0.0, *ends, *(max(e.difference, floor) for e in effects)]
    pad = 0.06 * (max(shown) - min(shown) or 1)
    steps = sorted({e.added for e in effects})
    scale = svg.Scale(
        (steps[0] - 0.6, steps[-1] + 0.9), (min(shown) - pad, max(shown) + 2 * pad), 560, 280
    )
    zero = scale.y(0)
    parts = [
        svg.open_figure(560, 280, "gain against added layers"),
        *scale.axis_y(svg.round_ticks(min(shown), max(shown), 4)),
        *scale.axis_x([float(at) for at in steps[:: math.ceil(len(steps) / 14)]], "added layers"),
        f'<line class="zero" x1="46" x2="550" y1="{zero:.1f}" y2="{zero:.1f}"/>',
    ]
    for x, each in zip(spread(others), others, strict=True):
        at = f"{scale.x(x):.1f} {scale.y(max(each.difference, floor)):.1f}"
        kind = (
            "M-2.6 -2h5.2l-2.6 4.4z"
            if each.difference < floor
            else "M-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0z"
        )
        parts.append(_point("pale", kind, at, each, rows))
    line = " ".join(f"{scale.x(e.added):.1f},{scale.y(e.difference):.1f}" for e in best)
    parts.append(f'<polyline class="front" points="{line}"/>')
    for each in best:
        x, y = scale.x(each.added), scale.y(each.difference)
        top = scale.y(each.interval[1]) if math.isfinite(each.interval[1]) else y
        if all(map(math.isfinite, each.interval)):
            low, high = (scale.y(end) for end in each.interval)
            parts.append(
                f'<line class="front" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            )
        parts.append(_point("lead", SHAPES["circle"], f"{x:.1f} {y:.1f}", each, rows))
        parts.append(
            f'<text class="name" x="{x:.1f}" y="{top - 5:.1f}">'
            f"{escape(short(each.label, 24))}</text>"
        )
    return "".join([*parts, "</svg>"])


def _point(kind: str, path: str, at: str, effect: Effect, rows: Mapping[str, int]) -> str:
    return (
        f'<path class="{kind}" data-row="{rows[effect.label]}" d="{path}" '
        f'transform="translate({at})"><title>{escape(effect.label)} '
        f"{signed(effect.difference)}</title></path>"
    )
