"""Per-document results, and the rules under which two runs may be compared.

A row is one document scored by one model. Two runs are paired by task and document id, and
only if the hashes of document, prompt and target agree for every pair: a chat template, a
few-shot seed or a dataset revision that drifts between the runs is then an error instead
of a difference between the models.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgeon.errors import SurgeonError

HASHES = ("doc_hash", "prompt_hash", "target_hash")


@dataclass(frozen=True, slots=True)
class Row:
    """One document scored by one model.

    `score` is the task's primary metric, higher is better. `chosen` is the index of the
    best choice, or the extracted answer of a generation. `gold_loglikelihood` is in nats,
    summed over `gold_tokens` tokens of the right answer. `extracted` is false where a
    generation's filter found no answer.
    """

    task: str
    doc_id: int
    doc_hash: str
    prompt_hash: str
    target_hash: str
    score: float
    chosen: int | str
    gold_loglikelihood: float
    gold_tokens: int = 1
    extracted: bool = True

    def __post_init__(self) -> None:
        for name in ("score", "gold_loglikelihood"):
            if not math.isfinite(getattr(self, name)):
                raise SurgeonError(
                    f"{self.task} document {self.doc_id}: {name} is {getattr(self, name)}",
                    hint="a comparison with missing scores has no meaning; check the weights",
                )


@dataclass(frozen=True)
class Rows:
    """The rows of one model, in the order in which the documents were drawn."""

    rows: tuple[Row, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(self.rows + other.rows)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Primary metric per document, float64."""
        return np.array([row.score for row in self.rows], dtype=np.float64)

    @property
    def gold(self) -> NDArray[np.float64]:
        """Log-likelihood of the right answer per document, nats."""
        return np.array([row.gold_loglikelihood for row in self.rows], dtype=np.float64)

    @property
    def mean(self) -> float:
        """Mean score; NaN for no documents."""
        return float(self.scores.mean()) if self.rows else math.nan

    def of(self, task: str) -> "Rows":
        """The rows of one task."""
        return Rows(tuple(row for row in self.rows if row.task == task))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict a row, for JSON lines."""
        return [asdict(row) for row in self.rows]

    def fingerprint(self) -> str:
        """sha256 over the document, prompt and target hashes, in drawn order."""
        digest = sha256()
        for row in self.rows:
            digest.update("|".join((row.task, *(getattr(row, name) for name in HASHES))).encode())
        return digest.hexdigest()


def require_pairs(base: Rows, candidate: Rows) -> None:
    """Raise unless both runs saw the same documents, prompts and targets, in one order.

    Raises:
        SurgeonError: no documents, other documents, or a hash that differs.
    """
    if not len(base):
        raise SurgeonError("there are no documents to compare")
    keys = [[(row.task, row.doc_id) for row in rows] for rows in (base, candidate)]
    if keys[0] != keys[1]:
        unmatched = len(set(keys[0]) ^ set(keys[1]))
        what = f"{unmatched} are in one run only" if unmatched else "their order differs"
        raise SurgeonError(f"the two runs did not see the same documents: {what}")
    for left, right in zip(base, candidate, strict=True):
        for name in HASHES:
            if getattr(left, name) != getattr(right, name):
                raise SurgeonError(
                    f"{left.task} document {left.doc_id}: {name} differs between the runs",
                    hint="compare with one chat template, few-shot setting and data revision",
                )


def require_distinct(task: str, hashes: Sequence[str]) -> None:
    """Raise if a document occurs twice: repeated documents are not independent evidence.

    Raises:
        SurgeonError: a hash occurs more than once.
    """
    twice = {text: count for text, count in Counter(hashes).items() if count > 1}
    if twice:
        extra = sum(twice.values()) - len(twice)
        first = [at for at, text in enumerate(hashes) if text in twice][:2]
        raise SurgeonError(
            f"task `{task}` has {extra} duplicate documents among {len(hashes)}, "
            f"for example {first[0]} and {first[1]}",
            hint="compare with duplicates dropped (`--duplicates drop`), or fix the data",
        )


def flips(left: Rows, right: Rows) -> int:
    """How many documents got another answer or another score."""
    pairs = zip(left, right, strict=True)
    return sum(a.chosen != b.chosen or a.score != b.score for a, b in pairs)


def require_deterministic(first: Rows, second: Rows) -> int:
    """The A/A control: the base scored twice gives one answer for every document.

    Returns:
        The number of documents compared.

    Raises:
        SurgeonError: an answer flipped.
    """
    count = flips(first, second)
    if count:
        raise SurgeonError(
            f"A/A control: {count} of {len(first)} answers of the base flipped when it was "
            "scored twice",
            hint="scoring is not deterministic here; try `--dtype float32` or another device",
        )
    return len(first)


def extraction_failure(rows: Iterable[Row]) -> float:
    """Share of documents whose answer filter found nothing; NaN for no documents."""
    found = [row.extracted for row in rows]
    return 1.0 - sum(found) / len(found) if found else math.nan
