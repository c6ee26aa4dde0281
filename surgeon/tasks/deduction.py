"""Logical deduction: three to five objects in a row, and clues that fix one order.

Clues are drawn at random among the true ones until a single order is left, then every clue
that the others imply is taken away, so all that remain are needed. Which orders a clue
allows is found by brute force over all permutations, once per clue, and kept as a bit
mask: the orders a set of clues allows are the bitwise and of its masks.

The choices are the objects, so chance is the mean of 1/3, 1/4 and 1/5: 0.26.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from surgeon.tasks.documents import Document, pick, shuffled

MIN_OBJECTS, MAX_OBJECTS = 3, 5
ORDINALS = ("first", "second", "third", "fourth", "fifth")
COUNTS = {3: "Three", 4: "Four", 5: "Five"}

COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "purple", "orange")
NAMES = ("Anna", "David", "Emma", "Frank", "Grace", "Henry", "Julia", "Maria", "Peter", "Simon")
INSTRUMENTS = ("piano", "violin", "flute", "guitar", "trumpet", "harp", "drum", "organ")


@dataclass(frozen=True)
class Clue:
    """A statement about objects by number.

    `kind` is before, directly_before, beside, at or not_at; `one` is an object; `other` is
    the second object, or for at and not_at the position counted from 0.
    """

    kind: str
    one: int
    other: int

    def holds(self, order: Sequence[int]) -> bool:
        """Whether it is true when `order[position]` is the object at a position."""
        one = order.index(self.one)
        if self.kind in ("at", "not_at"):
            return (one == self.other) == (self.kind == "at")
        gap = order.index(self.other) - one
        return {"before": gap > 0, "directly_before": gap == 1, "beside": abs(gap) == 1}[self.kind]


@dataclass(frozen=True)
class Scene:
    """How one row of objects is told; the templates take `a`, `b`, `th`, `many`, `all`."""

    objects: tuple[str, ...]
    noun: str
    opening: str
    question: str
    clues: dict[str, str]


SCENES = (
    Scene(
        COLOURS,
        "the {} book",
        "{many} books stand on a shelf from left to right: {all}.",
        "What is the colour of the book that is {th} from the left?",
        {
            "before": "{a} is somewhere to the left of {b}.",
            "directly_before": "{a} is directly to the left of {b}.",
            "beside": "{a} is right next to {b}.",
            "at": "{a} is {th} from the left.",
            "not_at": "{a} is not {th} from the left.",
        },
    ),
    Scene(
        NAMES,
        "{}",
        "{many} friends ran a race: {all}. No two of them tied.",
        "Who finished {th}?",
        {
            "before": "{a} finished before {b}.",
            "directly_before": "{a} finished directly before {b}.",
            "beside": "{a} finished directly before or directly after {b}.",
            "at": "{a} finished {th}.",
            "not_at": "{a} did not finish {th}.",
        },
    ),
    Scene(
        NAMES,
        "{}",
        "{many} people wait in a queue at a counter: {all}.",
        "Who is {th} in the queue?",
        {
            "before": "{a} is somewhere ahead of {b}.",
            "directly_before": "{a} is directly ahead of {b}.",
            "beside": "{a} is directly ahead of or directly behind {b}.",
            "at": "{a} is {th} in the queue.",
            "not_at": "{a} is not {th} in the queue.",
        },
    ),
    Scene(
        INSTRUMENTS,
        "the {}",
        "{many} instruments are heard one after another: {all}.",
        "Which instrument is heard {th}?",
        {
            "before": "{a} is heard before {b}.",
            "directly_before": "{a} is heard directly before {b}.",
            "beside": "{a} is heard directly before or directly after {b}.",
            "at": "{a} is heard {th}.",
            "not_at": "{a} is not heard {th}.",
        },
    ),
)


@cache
def _masks(n: int) -> dict[Clue, int]:
    """Every clue about `n` objects -> bits of the orders, in `permutations` order, it allows."""
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    clues = [Clue(kind, a, b) for kind in ("before", "directly_before") for a, b in pairs]
    clues += [Clue("beside", a, b) for a, b in pairs]
    clues += [Clue(kind, a, p) for kind in ("at", "not_at") for a in range(n) for p in range(n)]
    orders = list(permutations(range(n)))
    return {clue: sum(clue.holds(o) << bit for bit, o in enumerate(orders)) for clue in clues}


@cache
def _true_clues(n: int) -> tuple[tuple[Clue, ...], ...]:
    """The clues that hold, for each order of `n` objects in `permutations` order."""
    count = len(list(permutations(range(n))))
    return tuple(tuple(c for c, m in _masks(n).items() if m >> i & 1) for i in range(count))


def _needed(rng: random.Random, n: int, order: int, asked: int) -> list[Clue]:
    """A smallest-by-removal set of clues that leaves only `order` (a permutation's number).

    At most one clue names an object's position, and never the position that is asked for.
    """
    masks, left, clues, placed = _masks(n), -1, [], False
    for clue in shuffled(rng, _true_clues(n)[order]):
        if clue.kind == "at" and (placed or clue.other == asked):
            continue
        if left & masks[clue] != left:
            left &= masks[clue]
            clues.append(clue)
            placed = placed or clue.kind == "at"
        if left == 1 << order:
            break
    for clue in list(clues):
        rest = -1
        for other in clues:
            rest &= masks[other] if other is not clue else -1
        if rest == 1 << order:
            clues.remove(clue)
    return clues


def _told(scene: Scene, objects: Sequence[str], clue: Clue) -> str:
    """The clue as a sentence that starts with a capital."""
    noun = scene.noun.format
    placed = clue.kind in ("at", "not_at")
    sentence = scene.clues[clue.kind].format(
        a=noun(objects[clue.one]),
        b="" if placed else noun(objects[clue.other]),
        th=ORDINALS[clue.other] if placed else "",
    )
    return sentence[0].upper() + sentence[1:]


def document(rng: random.Random) -> Document:
    """One row of objects with the question which of them has a given position."""
    n = pick(rng, range(MIN_OBJECTS, MAX_OBJECTS + 1))
    scene = pick(rng, SCENES)
    objects = tuple(shuffled(rng, scene.objects)[:n])
    orders = list(permutations(range(n)))
    order, asked = pick(rng, range(len(orders))), pick(rng, range(n))
    clues = _needed(rng, n, order, asked)
    named = [scene.noun.format(name) for name in objects]
    opening = scene.opening.format(many=COUNTS[n], all=f"{', '.join(named[:-1])} and {named[-1]}")
    told = " ".join(_told(scene, objects, clue) for clue in clues)
    question = scene.question.format(th=ORDINALS[asked])
    text = f"Question: {opening} {told} {question}\nAnswer:"
    return Document(text, objects, orders[order][asked])
