"""Two models compared document by document, and the verdict that follows.

D_i = candidate score - base score on document i. Pairing removes what the two models find
equally hard: for two versions of one model it needs 2 to 8 times fewer documents than a
comparison of two means.

Three plans, chosen before the first document is seen:

    sequential   a confidence sequence that may be looked at after every document
                 (`sequential.py`); the default
    fixed        McNemar's mid-p test and the Bonett-Price interval at a number of
                 documents fixed in advance; only there are these valid
    obf          O'Brien-Fleming looks at a number of documents fixed in advance
"""

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from surgeon.errors import UsageError
from surgeon.fixed import (
    bonett_price,
    bootstrap,
    documents_for_margin,
    documents_for_power,
    mcnemar,
    sign_flip,
)
from surgeon.record import Measured, Record
from surgeon.sequential import BettingSequence, obrien_fleming

Array = NDArray[np.float64]
Conclusion = Literal["improved", "worse", "equivalent", "undecided"]
Plan = Literal["sequential", "fixed", "obf"]


class Verdict(Record):
    """What a paired comparison came to.

    `interval` is for `difference` = `candidate` - `base`, in units of the score, at
    confidence `level` (already corrected for the number of `candidates`). `equivalent`
    means that the interval lies within +-`margin`. `p` is anytime-valid where the method is
    sequential, and NaN for O'Brien-Fleming looks; `e` is NaN for all but the sequential.
    `docs_needed` is how many more documents a decision would likely need if wins and losses
    go on as so far; None where that is unknown or more than a million.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/check.json").read_text()
        >>> result = surgeon.CheckResult.from_dict(json.loads(text))
        >>> verdict = result.verdict
        >>> verdict.verdict, verdict.n == verdict.wins + verdict.losses + verdict.ties
        ('improved', True)
        >>> low, high = verdict.interval
        >>> low < verdict.difference < high
        True
    """

    SCHEMA = "surgeon.verdict/1"

    verdict: Conclusion
    n: int
    base: Measured
    candidate: Measured
    difference: Measured
    interval: tuple[Measured, Measured]
    level: float
    method: str
    p: Measured
    e: Measured
    wins: int
    losses: int
    ties: int
    margin: float
    candidates: int = 1
    split: str | None = None
    task: str | None = None
    docs_needed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def not_worse(self) -> bool:
        """Whether a loss of `margin` or more is ruled out and no smaller one is shown."""
        return self.verdict != "worse" and self.interval[0] > -self.margin

    @property
    def discordance(self) -> float:
        """Share of documents on which the two scores differ; NaN for no documents."""
        return (self.wins + self.losses) / self.n if self.n else math.nan


class Comparison:
    """A paired comparison that grows document by document.

    Args:
        alpha: error probability of the verdict, over all candidates.
        margin: differences smaller than this do not matter; in units of the score.
        plan: how many documents there may be was decided: `sequential` (never), `fixed`
            (exactly the ones that will be added), `obf` (`looks` looks at up to `planned`).
        candidates: how many candidates are being compared; alpha is divided by it, which
            for e-values is exact under any dependence.
        scale: the largest difference that should count, for scores that are not in 0..1;
            larger ones are clipped.
        looks: number of looks, for `obf`.
        planned: number of documents at the last look, for `obf`.
        split: name of the split, for the record.
        task: name of the task, for the record.

    Raises:
        UsageError: a setting out of range.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        margin: float = 0.02,
        plan: Plan = "sequential",
        candidates: int = 1,
        scale: float = 1.0,
        looks: int = 5,
        planned: int | None = None,
        split: str | None = None,
        task: str | None = None,
    ):
        if not (0 < alpha < 1 and margin > 0 and candidates >= 1 and scale > 0):
            raise UsageError(
                f"alpha {alpha}, margin {margin}, candidates {candidates}, scale {scale}: "
                "expected alpha in 0..1, a positive margin and scale, at least one candidate"
            )
        if plan == "obf" and not planned:
            raise UsageError("plan obf needs the number of documents of its last look")
        self.alpha, self.margin, self.scale = alpha / candidates, margin, scale
        self.plan, self.candidates, self.looks, self.planned = plan, candidates, looks, planned
        self.split, self.task = split, task
        self.base: Array = np.zeros(0)
        self.candidate: Array = np.zeros(0)
        self.sequence = BettingSequence(self.alpha)

    def __len__(self) -> int:
        return len(self.base)

    def add(self, base: Sequence[float] | Array, candidate: Sequence[float] | Array) -> None:
        """Take in the scores of the next documents, in the order they were drawn.

        Raises:
            UsageError: lists of different lengths, or a score that is not a number.
        """
        left, right = np.asarray(base, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
        if len(left) != len(right):
            raise UsageError(f"{len(left)} base scores and {len(right)} candidate scores")
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise UsageError("a score is not a finite number")
        self.base = np.concatenate([self.base, left])
        self.candidate = np.concatenate([self.candidate, right])
        if self.plan == "sequential":
            self.sequence.update(np.clip((right - left) / self.scale, -1, 1))

    def verdict(self, notes: Sequence[str] = ()) -> Verdict:
        """The verdict on the documents so far.

        Raises:
            UsageError: no documents.
        """
        if not len(self):
            raise UsageError("there are no documents to compare")
        raw = self.candidate - self.base
        wins, losses = int((raw > 0).sum()), int((raw < 0).sum())
        clipped = int((np.abs(raw) > self.scale).sum())
        more = [f"{clipped} differences beyond {self.scale:g} were clipped"] if clipped else []
        found = self._found(np.clip(raw / self.scale, -1, 1))
        return Verdict(
            verdict=found.verdict,
            n=len(raw),
            base=float(self.base.mean()),
            candidate=float(self.candidate.mean()),
            difference=float(raw.mean()),
            interval=(found.low * self.scale, found.high * self.scale),
            level=1 - self.alpha,
            method=found.method,
            p=found.p,
            e=found.e,
            wins=wins,
            losses=losses,
            ties=len(raw) - wins - losses,
            margin=self.margin,
            candidates=self.candidates,
            split=self.split,
            task=self.task,
            docs_needed=found.needed,
            notes=(*notes, *more, *found.notes),
        )

    def _found(self, differences: Array) -> "_Found":
        margin = self.margin / self.scale
        if self.plan == "sequential":
            return _sequential(self.sequence, margin)
        if self.plan == "fixed":
            return _fixed(differences, self.alpha, margin)
        assert self.planned is not None
        return _group_sequential(differences, self.alpha, margin, self.looks, self.planned)


def compare(
    base: Sequence[float],
    candidate: Sequence[float],
    *,
    alpha: float = 0.05,
    margin: float = 0.02,
    plan: Plan = "sequential",
    candidates: int = 1,
    scale: float = 1.0,
    clusters: Sequence[Hashable] | None = None,
    looks: int = 5,
    planned: int | None = None,
    split: str | None = None,
    task: str | None = None,
) -> Verdict:
    """Compare two lists of scores of the same documents.

    Args:
        base: score per document, in the order in which documents were drawn.
        candidate: likewise.
        alpha: see `Comparison`, as for all that are not listed here.
        margin: differences smaller than this do not matter.
        plan: `sequential`, `fixed` or `obf`.
        candidates: how many candidates are being compared.
        scale: the largest difference that should count.
        clusters: documents with one label share a passage or template; scores are averaged
            within a cluster first, and the clusters are the units.
        looks: number of looks, for `obf`.
        planned: documents at the last look, for `obf`; all of these if None.
        split: name of the split, for the record.
        task: name of the task, for the record.

    Raises:
        UsageError: lists of different lengths, no documents, scores that are not numbers,
            or settings out of range.
    """
    notes = []
    left, right = np.asarray(base, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if clusters is not None:
        left, right = cluster_means(left, clusters), cluster_means(right, clusters)
        notes.append(f"{len(left)} clusters of {len(base)} documents")
    comparison = Comparison(
        alpha=alpha, margin=margin, plan=plan, candidates=candidates, scale=scale, looks=looks,
        planned=planned or len(left), split=split, task=task,
    )  # fmt: skip
    comparison.add(left, right)
    return comparison.verdict(notes)


class _Found:
    """A verdict in units of `scale`, before it is written up."""

    def __init__(self, low: float, high: float, margin: float, p: float, alpha: float, method: str):
        self.low, self.high, self.p, self.method = low, high, p, method
        self.e = math.nan
        self.needed: int | None = None
        self.notes: list[str] = []
        self.verdict: Conclusion = "undecided"
        if low > high:
            self.notes.append(
                "the running intervals do not meet: documents are not in random order"
            )
        elif low > 0 and p <= alpha:
            self.verdict = "improved"
        elif high < 0 and p <= alpha:
            self.verdict = "worse"
        elif -margin < low and high < margin:
            self.verdict = "equivalent"


def _sequential(sequence: BettingSequence, margin: float) -> _Found:
    found = _Found(
        sequence.lower, sequence.upper, margin, sequence.p_value, sequence.alpha,
        "betting confidence sequence",
    )  # fmt: skip
    found.e = sequence.e_value
    if found.verdict == "undecided":
        ways = [
            sequence.documents_to_exclude(0.0, upper=False),
            sequence.documents_to_exclude(0.0, upper=True),
            _later(
                sequence.documents_to_exclude(-margin, upper=False),
                sequence.documents_to_exclude(margin, upper=True),
            ),
        ]
        found.needed = _more(ways, sequence.n)
    return found


def _later(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else max(first, second)


def _more(totals: Sequence[int | None], n: int) -> int | None:
    """More documents until the nearest decision; at least one, as none is there yet."""
    known = [total for total in totals if total is not None]
    return max(1, min(known) - n) if known else None


def _fixed(differences: Array, alpha: float, margin: float) -> _Found:
    n = len(differences)
    if np.isin(differences, (-1.0, 0.0, 1.0)).all():
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        low, high = bonett_price(wins, losses, n, alpha)
        p, method = mcnemar(wins, losses), "McNemar mid-p, Bonett-Price interval"
    else:
        low, high = bootstrap(differences, alpha)
        p, method = sign_flip(differences), "sign-flip test, bootstrap interval"
    found = _Found(low, high, margin, p, alpha, method)
    if found.verdict == "undecided":
        delta, square = float(differences.mean()), float((differences**2).mean())
        equal = documents_for_margin(delta, square, alpha, margin)
        found.needed = _more([documents_for_power(delta, square, alpha=alpha), equal], n)
    return found


def _group_sequential(
    differences: Array, alpha: float, margin: float, looks: int, planned: int
) -> _Found:
    """Repeated looks at fixed times; the interval is the intersection of repeated intervals.

    Reference for the intervals: Jennison and Turnbull, JRSS-B 51 (1989).
    """
    critical = obrien_fleming(looks, alpha)
    ends = obf_ends(looks, planned)
    low, high, p = -1.0, 1.0, 1.0
    for end, bound in zip(ends, critical, strict=True):
        if end > len(differences):
            break
        part = differences[:end]
        mean, square = float(part.mean()), float((part**2).mean())
        z = mean * math.sqrt(end / square) if square else 0.0
        half = float(bound) * math.sqrt(max(square - mean**2, 1 / end) / end)
        low, high = max(low, mean - half), min(high, mean + half)
        if abs(z) >= bound:
            p = alpha
            break
    found = _Found(low, high, margin, p, alpha, f"O'Brien-Fleming, {looks} looks")
    found.p = math.nan  # a boundary was crossed or not; that is no p-value
    if found.verdict == "undecided" and planned > len(differences):
        found.needed = planned - len(differences)
    return found


def obf_ends(looks: int, planned: int) -> list[int]:
    """Numbers of documents at which the O'Brien-Fleming plan looks."""
    return [math.ceil(planned * look / looks) for look in range(1, looks + 1)]


def cluster_means(scores: Array, clusters: Sequence[Hashable]) -> Array:
    """Mean score per cluster, in order of first appearance.

    Raises:
        UsageError: not one label per document.
    """
    if len(clusters) != len(scores):
        raise UsageError(f"{len(clusters)} cluster labels for {len(scores)} documents")
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(clusters, scores.tolist(), strict=True):
        groups.setdefault(label, []).append(value)
    return np.array([sum(group) / len(group) for group in groups.values()])
