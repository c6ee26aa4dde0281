"""What a picture of a sweep shows, before it is drawn: maps of blocks, marks, colours.

The figures (`heatmap.py`) and the page (`sweep_html.py`) draw the same maps in the same
colours. A map holds blocks run in one way (twice, three times, layer by layer); plans of
several blocks have no place on it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from surgeon.block import Block, all_blocks
from surgeon.sweeping.result import Effect, SweepResult

Quantity = Literal["score", "gold"]

BETTER, MIDDLE, WORSE = "#0a5a9c", "#f4f4f2", "#c2410c"
"""Blue and orange of like lightness, told apart with every common kind of colour blindness."""

WORDS: dict[Quantity, tuple[str, str]] = {
    "score": ("difference in score", "score"),
    "gold": ("difference in gold log-likelihood", "nats per document"),
}
"""Each quantity's name and unit."""

ROOMY = 16
"""Up to so many rows and columns, a square has room for its number."""

STYLES = ("circle", "square", "triangle", "diamond", "down", "plus", "cross", "star", "right")


STOPPED = {
    "all documents": "all documents that were planned",
    "settled": "stopped as soon as the answer was settled",
    "undecidable": "stopped where the documents left would hardly tell the rest apart",
    "time": "stopped when the time was up",
}
"""Why a sweep ended, in words."""


@dataclass(frozen=True)
class BlockMap:
    """The blocks of one way of repeating, by block.

    `gaps` are blocks of the sizes asked for without a number; `best` is the measured best:
    the sweep's own where it lies on this map.
    """

    times: int
    each: bool
    effects: Mapping[Block, Effect]
    gaps: tuple[Block, ...]
    best: Block | None

    @property
    def title(self) -> str:
        """What is done to a block: `block run twice`."""
        times = "twice" if self.times == 2 else f"{self.times} times"
        return f"each layer of the block run {times}" if self.each else f"block run {times}"

    @property
    def plain(self) -> bool:
        """Whether the blocks are run twice, which is what scorers predict."""
        return self.times == 2 and not self.each

    @cached_property
    def starts(self) -> range:
        """Columns: first layers."""
        starts = [block.start for block in (*self.effects, *self.gaps)]
        return range(min(starts), max(starts) + 1)

    @cached_property
    def stops(self) -> range:
        """Rows: ends of blocks, half-open."""
        stops = [block.stop for block in (*self.effects, *self.gaps)]
        return range(min(stops), max(stops) + 1)

    @property
    def roomy(self) -> bool:
        """Whether there is room for a number in each square."""
        return max(len(self.starts), len(self.stops)) <= ROOMY


@dataclass(frozen=True)
class Mark:
    """A block that scorers put first, and the shape that stands for it."""

    block: Block
    scorers: tuple[str, ...]
    style: str


def value_of(effect: Effect, quantity: Quantity) -> float:
    """The measured difference; NaN if it was not measured."""
    return effect.difference if quantity == "score" else effect.gold_difference


def block_maps(result: SweepResult) -> list[BlockMap]:
    """A map for each way of repeating a single block, blocks run twice first."""
    groups: dict[tuple[bool, int], dict[Block, Effect]] = {}
    for effect in result.effects:
        if len(effect.candidate.moves) == 1:
            move = effect.candidate.moves[0]
            groups.setdefault((move.each, move.times), {})[move.block] = effect
    return [
        _block_map(result, times, each, effects)
        for (each, times), effects in sorted(groups.items(), key=lambda item: item[0])
    ]


def _block_map(
    result: SweepResult, times: int, each: bool, effects: dict[Block, Effect]
) -> BlockMap:
    measured = {b: e for b, e in effects.items() if math.isfinite(e.difference)}
    sizes = range(1, result.depth + 1) if result.sizes is None else result.sizes
    asked = {b for b in all_blocks(result.depth, sizes) if not (each and len(b) == 1)}
    gaps = tuple(sorted((asked | set(effects)) - set(measured)))
    own = [block for block, effect in measured.items() if effect.label == result.best.label]
    # A dropped candidate's number rests on fewer documents; it leads only if all were dropped.
    rest = sorted(measured, key=lambda b: (bool(effects[b].dropped), -effects[b].difference, b))
    best = next(iter(own + rest), None)
    return BlockMap(times=times, each=each, effects=effects, gaps=gaps, best=best)


def colour_reach(effects: Iterable[Effect], quantity: Quantity) -> float:
    """The difference that has the full colour: positive, the same for gains and losses.

    A few ruined candidates would leave everything else without colour, so the scale ends
    at twice the largest gain, or where three quarters of all differences lie within
    it if that is further. 1 if nothing differs.
    """
    every = [value_of(effect, quantity) for effect in effects]
    values = [value for value in every if math.isfinite(value)]
    sizes = sorted(abs(value) for value in values)
    if not sizes or not sizes[-1]:
        return 1.0
    quarters = sizes[math.ceil(0.75 * len(sizes)) - 1]
    return min(sizes[-1], max(2 * max(values), quarters) or sizes[-1])


def marks(result: SweepResult) -> list[Mark]:
    """The first block of each scorer; scorers that agree share a mark."""
    found: dict[Block, list[str]] = {}
    for prediction in result.predictions:
        found.setdefault(prediction.predicted, []).append(prediction.scorer)
    return [
        Mark(block, tuple(scorers), STYLES[at % len(STYLES)])
        for at, (block, scorers) in enumerate(found.items())
    ]


def front(result: SweepResult) -> list[Effect]:
    """The Pareto front of gain against added layers, fewest layers first."""
    chosen = [e for e in result.effects if e.pareto and math.isfinite(e.difference)]
    return sorted(chosen, key=lambda effect: (effect.added, effect.difference))


def spread(effects: Sequence[Effect]) -> list[float]:
    """Places of candidates with as many added layers side by side, around that number."""
    groups: dict[int, list[int]] = {}
    for at, effect in enumerate(effects):
        groups.setdefault(effect.added, []).append(at)
    places = [0.0] * len(effects)
    for added, members in groups.items():
        ordered = sorted(members, key=lambda at: effects[at].candidate.moves[0].block)
        for rank, at in enumerate(ordered):
            places[at] = added + 0.6 * ((rank + 0.5) / len(ordered) - 0.5)
    return places


def has_front(result: SweepResult) -> bool:
    """Whether there is anything to weigh: more than one number of added layers."""
    return len({e.added for e in result.effects if math.isfinite(e.difference)}) > 1


def measured_line(result: SweepResult) -> str:
    """On what it was measured, and what the base scores."""
    gold = f", {result.base_gold:.3f} nats" if math.isfinite(result.base_gold) else ""
    return (
        f"{', '.join(result.tasks)}, split {result.split}; n {result.documents:,}; "
        f"base {result.base:.3f}{gold}"
    )


def percent(level: float) -> str:
    """A confidence level: `95%`."""
    return f"{100 * level:.4g}%"


def signed(value: float, digits: int = 3, sign: str = "+") -> str:
    """A difference with its sign; a dash where it was not measured."""
    return f"{value:{sign}.{digits}f}" if math.isfinite(value) else "-"


def interval_text(interval: tuple[float, float], digits: int = 3, sign: str = "+") -> str:
    """`-0.010 to +0.050`; a dash where it was not measured."""
    if not any(math.isfinite(end) for end in interval):
        return "-"
    return " to ".join(signed(end, digits, sign) for end in interval)


def short(label: str, most: int = 48) -> str:
    """A label that fits a figure."""
    return label if len(label) <= most else f"{label[: most - 1]}…"
