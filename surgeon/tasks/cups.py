"""The cup game: follow one ball through a chain of shuffles.

A ball lies under one of ten cups, `a` to `j`. Each colour names one fixed shuffle of the
cups. A document gives the first cup and a chain of colours and asks for the last cup:

    cup d: red blue blue gold ->  h

The shuffles are fixed and are stated nowhere in the documents, so only a model that was
trained on the game knows them: this is the task of the demo models (`surgeon/demo`), and
it says nothing about any other model. Solving a chain takes one step of composition per
colour, which is what a layer block that runs twice can be made to supply.
"""

import random
from collections.abc import Sequence

from surgeon.tasks.documents import Document, pick

CUPS = "abcdefghij"

SHUFFLES = {
    "red": "jadebfcgih",
    "blue": "eafjdbhicg",
    "green": "dbfhgcaeij",
    "gold": "bhaeidcfgj",
    "black": "ebjchaigdf",
    "white": "ebafgcdijh",
}
"""Shuffle name -> where the ball under cup a, b, .. j goes."""

MIN_STEPS, MAX_STEPS = 7, 8


def follow(cup: str, shuffles: Sequence[str]) -> str:
    """The cup that holds the ball after the named shuffles, in order."""
    for name in shuffles:
        cup = SHUFFLES[name][CUPS.index(cup)]
    return cup


def prompt(cup: str, shuffles: Sequence[str]) -> str:
    """The question as text; the answer continues it as a space and one letter."""
    return f"cup {cup}: {' '.join(shuffles)} ->"


def document(rng: random.Random) -> Document:
    """One chain of 7 or 8 shuffles with the ten cups as choices."""
    return _chain(rng, MIN_STEPS)


def any_length(rng: random.Random) -> Document:
    """One chain of 1 to 8 shuffles, for calibration."""
    return _chain(rng, 1)


def _chain(rng: random.Random, shortest: int) -> Document:
    steps = pick(rng, range(shortest, MAX_STEPS + 1))
    cup = pick(rng, CUPS)
    shuffles = [pick(rng, list(SHUFFLES)) for _ in range(steps)]
    return Document(prompt(cup, shuffles), tuple(CUPS), CUPS.index(follow(cup, shuffles)))
