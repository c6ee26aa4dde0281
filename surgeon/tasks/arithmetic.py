"""Arithmetic in words: a number goes through two to four steps; what is it at the end?

The wrong choices come from mistakes that people make: a step forgotten, an operation
turned round, a group counted once or its two numbers added instead of multiplied, and, to
fill up, a slip of a unit or a carry. All choices of a document have the same number of
digits, so none is the beginning of another, and the right one is the smallest, second,
third or largest equally often, so the size of a number does not give it away. Four
choices; chance is 1/4.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.tasks.documents import Document, pick, shuffled

CHOICES = 4
MIN_STEPS, MAX_STEPS = 2, 4
HIGHEST = 400  # no intermediate result is above it
SLIPS = (1, 10, 2, 9, 11)


@dataclass(frozen=True)
class Step:
    """One change of the running number.

    `kind` is add, remove, groups (`a` groups of `b` more), each (`a` times `b` less), times
    or share (`a` equal parts); `b` is 0 where the kind has one number.
    """

    kind: str
    a: int
    b: int = 0

    def results(self, value: int) -> tuple[int, ...]:
        """The right result from `value`, then the wrong ones a hasty reader may reach."""
        a, b = self.a, self.b
        return {
            "add": (value + a, value - a, value),
            "remove": (value - a, value + a, value),
            "groups": (value + a * b, value + a + b, value + b, value),
            "each": (value - a * b, value - a - b, value - b, value),
            "times": (value * a, value + a, value),
            "share": (value // a, value - a, value),
        }[self.kind]

    def possible(self, value: int) -> bool:
        """Whether it leaves a whole number that is above zero and not too high."""
        whole = self.kind != "share" or value % self.a == 0
        return whole and 0 < self.results(value)[0] <= HIGHEST


KINDS = ("add", "remove", "groups", "each", "times", "share")

BARE = {
    "start": "Start with {n}.",
    "add": "Add {a}.",
    "remove": "Subtract {a}.",
    "groups": "Add {a} times {b}.",
    "each": "Subtract {a} times {b}.",
    "times": "Multiply the result by {a}.",
    "share": "Divide the result by {a}.",
    "ask": "What is the result?",
    "ask share": "What is the result?",
}

STORIES: tuple[dict[str, str], ...] = (
    {
        "start": "A shop has {n} lamps.",
        "add": "It receives {a} more lamps.",
        "remove": "It sells {a} lamps.",
        "groups": "A van brings {a} boxes of {b} lamps.",
        "each": "Then {a} customers buy {b} lamps each.",
        "times": "The owner then orders until there are {a} times as many lamps as before.",
        "share": "The lamps are placed equally on {a} shelves.",
        "ask": "How many lamps does the shop have now?",
        "ask share": "How many lamps are on each shelf?",
    },
    {
        "start": "A library has {n} atlases.",
        "add": "It is given {a} more atlases.",
        "remove": "It gives away {a} atlases.",
        "groups": "A school sends {a} crates of {b} atlases.",
        "each": "Then {a} readers borrow {b} atlases each.",
        "times": "The librarian then buys until there are {a} times as many atlases as before.",
        "share": "The atlases are divided equally among {a} rooms.",
        "ask": "How many atlases does the library have now?",
        "ask share": "How many atlases are in each room?",
    },
    {
        "start": "A farmer has {n} eggs.",
        "add": "She collects {a} more eggs.",
        "remove": "She breaks {a} eggs.",
        "groups": "A neighbour brings {a} baskets of {b} eggs.",
        "each": "Then {a} bakers take {b} eggs each.",
        "times": "By the end of the month there are {a} times as many eggs as before.",
        "share": "The eggs are packed equally into {a} cartons.",
        "ask": "How many eggs does the farmer have now?",
        "ask share": "How many eggs are in each carton?",
    },
    {
        "start": "A museum has {n} coins.",
        "add": "It acquires {a} more coins.",
        "remove": "It loses {a} coins.",
        "groups": "A collector donates {a} trays of {b} coins.",
        "each": "Then {a} towns claim {b} coins each.",
        "times": "A large find means that there are {a} times as many coins as before.",
        "share": "The coins are shown equally in {a} cases.",
        "ask": "How many coins does the museum have now?",
        "ask share": "How many coins are in each case?",
    },
)


def _step(rng: random.Random, last: bool, bare: bool) -> Step:
    """A random step; a story shares out only at its end."""
    kind = pick(rng, KINDS if last or bare else KINDS[:-1])
    if kind in ("add", "remove"):
        return Step(kind, pick(rng, range(6, 60)))
    if kind in ("groups", "each"):
        return Step(kind, pick(rng, range(2, 7)), pick(rng, range(3, 13)))
    return Step(kind, pick(rng, range(2, 5 if kind == "times" else 8)))


def _chain(rng: random.Random, bare: bool) -> tuple[int, list[Step], int]:
    """A start, possible steps of at least two kinds, and the result."""
    start = value = pick(rng, range(12, 90))
    count, steps = pick(rng, range(MIN_STEPS, MAX_STEPS + 1)), list[Step]()
    while len(steps) < count:
        step = _step(rng, len(steps) == count - 1, bare)
        if step.possible(value) and (not steps or step.kind != steps[-1].kind):
            value = step.results(value)[0]
            steps.append(step)
    return start, steps, value


def _mistakes(start: int, steps: Sequence[Step]) -> set[int]:
    """Results with exactly one step gone wrong and the others done right."""
    found, value = set[int](), start
    for i, step in enumerate(steps):
        right, *wrong = step.results(value)
        for result in wrong:
            for later in steps[i + 1 :]:
                result = later.results(result)[0] if later.possible(result) else 0
            found.add(result)
        value = right
    return found


def _wrong_choices(rng: random.Random, gold: int, mistakes: set[int]) -> list[int] | None:
    """Three wrong numbers as long as `gold`, or None where that many do not exist.

    How many of them are below it is drawn first, so its rank is uniform.
    """
    below = pick(rng, range(CHOICES))
    chosen: list[int] = []
    for sign, count in ((-1, below), (1, CHOICES - 1 - below)):
        real = [n for n in sorted(mistakes) if (n - gold) * sign > 0]
        slips = [gold + sign * slip for slip in shuffled(rng, SLIPS)]
        ranked = dict.fromkeys(shuffled(rng, real) + slips)
        chosen += [n for n in ranked if n > 0 and len(str(n)) == len(str(gold))][:count]
    return chosen if len(chosen) == CHOICES - 1 else None


def document(rng: random.Random) -> Document:
    """One chain of steps, bare or as a story, with four numbers to choose from."""
    wrong, gold = None, 0
    while wrong is None:
        words = pick(rng, (BARE, *STORIES))
        start, steps, gold = _chain(rng, words is BARE)
        if gold >= 10:
            wrong = _wrong_choices(rng, gold, _mistakes(start, steps))
    choices = [str(n) for n in shuffled(rng, [gold, *wrong])]
    told = [words["start"].format(n=start)]
    told += [words[step.kind].format(a=step.a, b=step.b) for step in steps]
    ask = words["ask share" if steps[-1].kind == "share" else "ask"]
    text = f"Question: {' '.join(told)} {ask}\nAnswer:"
    return Document(text, tuple(choices), choices.index(str(gold)))
