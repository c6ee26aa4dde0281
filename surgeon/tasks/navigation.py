"""Navigation: does a walk of four to six legs end where it started?

A walk is told in one of three ways: with compass directions, with sideways and backward
steps at a fixed heading, or with turns. Half of the walks return. A walk that does not
return is one that does, with the lengths of two of its legs exchanged: the two kinds have
the same words and the same numbers, and only their order decides. So no count of words or
steps, even or odd, gives the answer away. Chance is 1/2.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.tasks.documents import Document, pick

CHOICES = ("Yes", "No")
MIN_LEGS, MAX_LEGS = 4, 6
LONGEST = 9

NORTH, EAST, SOUTH, WEST = range(4)
TURNS = {EAST: "Turn right.", SOUTH: "Turn around.", WEST: "Turn left."}
"""Change of heading in quarter turns, clockwise -> how it is told."""

COMPASS = ("north", "east", "south", "west")
SIDES = ("forward", "to the right", "backward", "to the left")


@dataclass(frozen=True)
class Leg:
    """Some steps in one direction: `heading` is NORTH, EAST, SOUTH or WEST."""

    heading: int
    steps: int


def _headings(rng: random.Random) -> list[int]:
    """A heading for each leg; no two legs in a row have the same one."""
    headings = [pick(rng, (NORTH, EAST, SOUTH, WEST))]
    for _ in range(pick(rng, range(MIN_LEGS, MAX_LEGS + 1)) - 1):
        headings.append((headings[-1] + pick(rng, tuple(TURNS))) % 4)
    return headings


def _round_trip(rng: random.Random) -> list[Leg] | None:
    """A walk that returns, or None where the drawn headings or lengths cannot close."""
    headings = _headings(rng)
    if any(((heading + 2) % 4) not in headings for heading in headings):
        return None
    steps = [pick(rng, range(1, LONGEST + 1)) for _ in headings]
    for ahead, back in ((NORTH, SOUTH), (EAST, WEST)):
        surplus = sum(n for n, h in zip(steps, headings, strict=True) if h == ahead)
        surplus -= sum(n for n, h in zip(steps, headings, strict=True) if h == back)
        if surplus:
            short = back if surplus > 0 else ahead
            leg = pick(rng, [i for i, heading in enumerate(headings) if heading == short])
            steps[leg] += abs(surplus)
            if steps[leg] > LONGEST:
                return None
    return [Leg(heading, n) for heading, n in zip(headings, steps, strict=True)]


def _exchanges(legs: Sequence[Leg]) -> list[tuple[int, int]]:
    """Pairs of legs whose lengths can be exchanged so that the walk no longer returns.

    Exchanging lengths a and b of legs along u and v moves the end by (b - a)(u - v), which
    is zero only if the lengths or the directions are equal.
    """
    return [
        (i, j)
        for j in range(len(legs))
        for i in range(j)
        if legs[i].steps != legs[j].steps and legs[i].heading != legs[j].heading
    ]


def _told(legs: Sequence[Leg], manner: str) -> str:
    """The walk as instructions; `manner` is compass, sides or turns."""
    facing, parts = NORTH, []
    for leg in legs:
        steps = f"{leg.steps} step{'s' if leg.steps > 1 else ''}"
        if manner == "compass":
            parts.append(f"Walk {steps} {COMPASS[leg.heading]}.")
        elif manner == "sides":
            parts.append(f"Take {steps} {SIDES[leg.heading]}.")
        else:
            if leg.heading != facing:
                parts.append(TURNS[(leg.heading - facing) % 4])
            parts.append(f"Take {steps}.")
            facing = leg.heading
    return " ".join(parts)


OPENINGS = {
    "compass": "You stand in an open field.",
    "sides": "You stand in an open field and always face the same way.",
    "turns": "You stand in an open field.",
}


def document(rng: random.Random) -> Document:
    """One walk with the question whether it ends at its start."""
    legs: list[Leg] | None = None
    while legs is None or not _exchanges(legs):
        legs = _round_trip(rng)
    gold = pick(rng, range(len(CHOICES)))
    if CHOICES[gold] == "No":
        i, j = pick(rng, _exchanges(legs))
        first, second = legs[i], legs[j]
        legs[i], legs[j] = Leg(first.heading, second.steps), Leg(second.heading, first.steps)
    manner = pick(rng, tuple(OPENINGS))
    text = (
        f"Question: {OPENINGS[manner]} {_told(legs, manner)} "
        "Are you back at the point where you started?\nAnswer:"
    )
    return Document(text, CHOICES, gold)
