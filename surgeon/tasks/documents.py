"""What a bundled task is: a document, a generator, and splits that share no document."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from surgeon.errors import UnknownName

T = TypeVar("T")

SPLITS = ("select", "confirm", "calibrate")
SPLIT_SIZE = 1000


@dataclass(frozen=True)
class Document:
    """One multiple-choice question.

    `text` is the prompt, `choices` the continuations (each is scored after one space),
    `gold` the index of the right one.
    """

    text: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """A bundled task: `name`, what it asks, and how one document is drawn.

    `calibration` draws the documents of the `calibrate` split where they should differ from
    the others: what is learned from a model's certainty needs prompts of every difficulty.
    """

    name: str
    summary: str
    document: Callable[[random.Random], Document]
    calibration: Callable[[random.Random], Document] | None = None


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Draw one option uniformly.

    Uses `random()` alone: it is the only draw whose sequence Python promises to keep for a
    seed across versions, and the splits must stay the same documents everywhere.
    """
    return options[int(rng.random() * len(options))]


def shuffled(rng: random.Random, options: Sequence[T]) -> list[T]:
    """The options in a uniformly drawn order, from `random()` alone (see `pick`)."""
    return sorted(options, key=lambda _: rng.random())


def chance_level(documents: Sequence[Document]) -> float:
    """Expected accuracy of guessing: the mean of one over the number of choices."""
    return sum(1 / len(document.choices) for document in documents) / len(documents)


@cache
def documents(task: Task, split: str) -> tuple[Document, ...]:
    """The 1,000 documents of one split: `select`, `confirm` or `calibrate`.

    One seeded stream of documents with distinct texts is cut into the splits, so no text
    occurs twice, within a split or across them.

    Raises:
        UnknownName: no such split.
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    start = SPLITS.index(split) * SPLIT_SIZE
    rng = random.Random(f"surgeon/{task.name}")
    seen: dict[str, Document] = {}
    while len(seen) < start + SPLIT_SIZE:
        calibrating = len(seen) >= SPLITS.index("calibrate") * SPLIT_SIZE
        draw = task.calibration if calibrating and task.calibration else task.document
        document = draw(rng)
        seen.setdefault(document.text, document)
    return tuple(seen.values())[start:]
