"""`SweepResult`: what a sweep measured, as it is stored and handed on."""

from typing import ClassVar, Literal

from surgeon.block import Block
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.record import Measured, Record
from surgeon.sweeping.moves import Candidate

Interval = tuple[Measured, Measured]


class Effect(Record):
    """One candidate against the base, on the documents that both were asked.

    `difference` is in units of the score, `gold_difference` in nats of log-likelihood of the
    right answer per document. The intervals of `difference` hold for all candidates together
    and at every moment; those of `gold_difference` hold for all candidates together at the
    number of documents where they stand (see `sweeping/effects.py`). `dropped` says why a
    race stopped measuring it; None if it was measured to the end. `pareto`: it gains, and no
    other candidate gains as much with fewer layers, or more with as many.
    """

    candidate: Candidate
    label: str
    plan: LayerPlan
    added: int
    n: int
    score: Measured
    difference: Measured
    interval: Interval
    gold_difference: Measured
    gold_interval: Interval
    wins: int
    losses: int
    dropped: str | None = None
    pareto: bool = False

    @property
    def block(self) -> Block | None:
        """The block, if it is one block run twice."""
        return self.candidate.block


class RaceSummary(Record):
    """What a race spent and what its answer is worth.

    `spent` and `full` are evaluations of one candidate on one document, the base's
    included. `survivors` were never shown to be worse than another; `settled` says that the
    winner is within `margin` of the best of all with the stated probability. A race also stops
    where the documents left would hardly tell the survivors apart (`undecidable`).
    """

    spent: int
    full: int
    survivors: tuple[str, ...]
    settled: bool
    stopped: str
    guarantee: str


class BeamStep(Record):
    """The best candidate with one more block, out of `measured` of them.

    `gain` is over the step before, on the documents that chose it; `confirmed` is the same
    comparison on held-out documents, of the first step with the base.
    """

    candidate: Candidate
    label: str
    plan: LayerPlan
    difference: Measured
    gain: Measured
    measured: int
    confirmed: Verdict | None = None


class Prediction(Record):
    """One scorer's ranking against the measured differences, over the blocks in both.

    Intervals are bootstrap percentiles over documents, at `level`. `chance_*` is what a
    block drawn at random would get. `hit` and `within_two` are what happened, `*_share` how
    often it happens when the documents are drawn again.
    """

    scorer: str
    blocks: int
    unranked: int
    predicted: Block
    predicted_difference: Measured
    best: Block
    best_difference: Measured
    distance: int
    spearman: Measured
    spearman_interval: Interval
    kendall: Measured
    hit: bool
    hit_share: float
    within_two: bool
    within_two_share: float
    regret: Measured
    regret_interval: Interval
    chance_hit: float
    chance_within_two: float
    chance_regret: Measured
    level: float


class SweepCost(Record):
    """Work done in this call; rows taken from the ledger cost nothing here.

    `layer_tokens` are tokens that went through one layer; `*_alone` is the same with every
    candidate run by itself.
    """

    evaluations: int
    reused: int
    layer_forwards: int
    layer_forwards_alone: int
    layer_tokens: int
    layer_tokens_alone: int
    seconds: float
    workers: int = 1


class SweepResult(Record):
    """The measured effect of every candidate, best first; those a race dropped come last.

    Example:
        >>> import surgeon
        >>> base = surgeon.resolve("demo:planted")
        >>> found = surgeon.sweep(base.path, ["cups"], sizes=[4], documents=16)
        >>> len(found.effects), found.depth
        (9, 12)
    """

    SCHEMA: ClassVar[str] = "surgeon.sweep/1"

    model: str
    depth: int
    tasks: tuple[str, ...]
    split: str
    sizes: tuple[int, ...] | None
    times: tuple[int, ...]
    seed: int
    device: str
    dtype: str
    documents: int
    planned: int
    base: Measured
    base_gold: Measured
    level: float
    margin: float
    effects: tuple[Effect, ...]
    winner: str | None
    reason: str
    stopped: Literal["all documents", "settled", "undecidable", "time"]
    race: RaceSummary | None = None
    beam: tuple[BeamStep, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    cost: SweepCost
    inputs: str
    ledger: str | None = None
    notes: tuple[str, ...] = ()

    def effect(self, label: str) -> Effect:
        """The effect of one candidate by its label."""
        return next(effect for effect in self.effects if effect.label == label)

    @property
    def best(self) -> Effect:
        """The winner, or the candidate with the largest difference if none won."""
        return self.effect(self.winner) if self.winner else self.effects[0]
