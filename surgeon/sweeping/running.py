"""A sweep under way: what is measured so far, and what it says."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from surgeon.block import Block
from surgeon.evals.stream import Drawn, chunks
from surgeon.sweeping.beam import confirm, confirmed_until, search
from surgeon.sweeping.effects import Differences
from surgeon.sweeping.measure import Measurements
from surgeon.sweeping.moves import Candidate
from surgeon.sweeping.race import Race
from surgeon.sweeping.result import BeamStep, Effect, RaceSummary

Array = NDArray[np.float64]
Stopped = Literal["all documents", "settled", "undecidable", "time"]


@dataclass(frozen=True, eq=False)
class _Family:
    """Candidates whose intervals hold together."""

    candidates: list[Candidate]
    differences: Differences
    dropped: list[str | None]

    @property
    def best(self) -> int:
        """The largest mean difference that is left; of equal ones the one that adds least."""
        left = [at for at, why in enumerate(self.dropped) if why is None]
        mean = self.differences.mean
        return min(left, key=lambda at: (-mean[at], self.candidates[at].added, at))


class SweepRun:
    """The documents seen so far and what they say about each candidate.

    Args:
        measurements: where rows come from.
        candidates: what to measure besides the base.
        stream: the documents in the order they are looked at.
        held_out: documents for the confirmation of compositions.
        alpha: error probability of the intervals of each family of candidates.
        margin: differences smaller than this do not matter.
        scale: the largest difference in score that should count.
        deadline: by `time.monotonic`, when to stop.
        report: progress callback `(stage, done, total)`.
        watch: called with a line about the best so far.
    """

    def __init__(
        self,
        measurements: Measurements,
        candidates: Sequence[Candidate],
        stream: Sequence[Drawn],
        held_out: Sequence[Drawn],
        *,
        alpha: float,
        margin: float,
        scale: float,
        deadline: float,
        report: Callable[[str, int, int], None],
        watch: Callable[[str], None],
    ):
        self.measurements, self.stream, self.held_out = measurements, stream, held_out
        self.alpha, self.margin, self.scale, self.deadline = alpha, margin, scale, deadline
        self.report, self.watch = report, watch
        self.stopped: Stopped = "all documents"
        self.documents = 0
        self.families = [self._family(candidates)]

    def _family(self, candidates: Sequence[Candidate]) -> _Family:
        differences = Differences(len(candidates), self.alpha, self.scale)
        return _Family(list(candidates), differences, [None] * len(candidates))

    def measure(self) -> None:
        """Every candidate on every document."""
        self.documents = self._fill(self.families[0])

    def _fill(self, family: _Family) -> int:
        """Measure a family on the stream; returns the number of documents it got."""
        everyone = list(range(len(family.candidates)))
        stage = f"measure {len(everyone)} plans"
        taken = 0

        def seen(done: int, total: int) -> bool:
            nonlocal taken
            if done > taken:
                self._take(family, everyone, self.stream[taken:done])
            taken = done
            self._tell(family, stage, done, total)
            return done > 0 and self._late()

        self.measurements.finish(family.candidates, self.stream, seen)
        if taken < len(self.stream):
            self.stopped = "time"
        return taken

    def _late(self) -> bool:
        return time.monotonic() > self.deadline

    def _take(self, family: _Family, who: Sequence[int], documents: Sequence[Drawn]) -> Array:
        """Take in measured documents; returns the scores of `who` (L, n)."""
        some = [family.candidates[at] for at in who]
        scores = np.array([self.measurements.scores(each, documents) for each in some])
        gold = np.array([self.measurements.gold(each, documents) for each in some])
        base = Candidate()
        family.differences.add(
            who,
            self.measurements.scores(base, documents),
            scores,
            self.measurements.gold(base, documents),
            gold,
        )
        return scores

    def _tell(self, family: _Family, stage: str, done: int, total: int) -> None:
        self.report(stage, done, total)
        if done and any(why is None for why in family.dropped):
            at, found = family.best, family.differences
            self.watch(
                f"best so far {family.candidates[at]}: {found.mean[at]:+.3f} "
                f"({found.lower[at]:+.3f} to {found.upper[at]:+.3f}) on {done} documents"
            )

    def race(self, alpha: float, weights: Sequence[float]) -> RaceSummary:
        """Measure candidates until only what could be the best is left."""
        family = self.families[0]
        race = Race(
            [each.added for each in family.candidates],
            alpha=alpha,
            margin=self.margin,
            scale=self.scale,
            weights=weights,
        )
        spent, count = 0, len(family.candidates)
        self.report(f"race of {count} plans", 0, len(self.stream))
        for chunk in chunks(self.stream, first=16, growth=8):
            live = list(race.live)
            some = [family.candidates[at] for at in live]
            done = self.measurements.finish(
                some, chunk, lambda done, total: done > 0 and self._late()
            )
            part = chunk[:done]
            scores = self._take(family, live, part)
            race.add(self.measurements.scores(Candidate(), part), scores)
            family.dropped[:] = race.dropped
            spent += (len(live) + 1) * len(part)
            self.documents += len(part)
            self._tell(family, f"race of {count} plans", self.documents, len(self.stream))
            leader = race.leader()
            if leader is None or (leader.settled and self._decided(leader.at)):
                self.stopped = "settled"
                break
            left = len(self.stream) - self.documents
            if left and race.undecidable(left) and self._decided(leader.at):
                self.stopped = "undecidable"
                break
            if len(part) < len(chunk):
                self.stopped = "time"
                break
        self.report(f"race of {count} plans", self.documents, self.documents)
        leader = race.leader()
        settled = leader is None or leader.settled
        return RaceSummary(
            spent=spent,
            full=(count + 1) * len(self.stream),
            survivors=tuple(str(family.candidates[at]) for at in race.live),
            settled=settled,
            stopped=self.stopped,
            guarantee=self._guarantee(alpha, settled),
        )

    def _decided(self, at: int) -> bool:
        """Whether it is clear if a candidate beats the base."""
        found = self.families[0].differences
        return bool(found.lower[at] > 0 or found.upper[at] < self.margin)

    def _guarantee(self, alpha: float, settled: bool) -> str:
        kept = f"the best candidate, if it beats the base by {self.margin:g}, was dropped"
        if not settled:
            return f"with probability at most {2 * alpha / 3:.3g} {kept}; the rest is not settled"
        return (
            f"with probability at most {alpha:.3g} {kept}, or is better than the winner by "
            f"{self.margin:g} or more"
        )

    def compose(self, width: int, blocks: int, alpha: float, split: str) -> list[BeamStep]:
        """Put several blocks together, and confirm each step on held-out documents."""
        first = self.families[0]
        singles = {
            candidate: float(mean)
            for candidate, mean, why in zip(
                first.candidates, first.differences.mean, first.dropped, strict=True
            )
            if why is None
        }
        if not singles:
            return []

        def measured(made: Sequence[Candidate]) -> dict[Candidate, float]:
            family = self._family(made)
            self._fill(family)
            self.families.append(family)
            return dict(zip(made, family.differences.mean.tolist(), strict=True))

        depth = self.measurements.depth
        steps = search(singles, measured, width=width, blocks=blocks, depth=depth)
        if not self.held_out:
            return steps
        return confirm(
            steps,
            self.measurements,
            self.held_out,
            alpha=alpha,
            margin=self.margin,
            scale=self.scale,
            split=f"{split}, held out",
        )

    def winner(self, steps: Sequence[BeamStep]) -> tuple[str | None, str]:
        """The label of what was shown to gain, and why."""
        family = self.families[0]
        if not self.documents:
            return None, "no document was measured"
        if steps:
            step = confirmed_until(steps)
            if step is None:
                return None, "no step of the composition was confirmed on held-out documents"
            return step.label, "confirmed on held-out documents, step by step"
        if all(family.dropped):
            return None, "no candidate can beat the base by the margin"
        at, found = family.best, family.differences
        text = f"{family.candidates[at]} changed the score by {found.mean[at]:+.3f}"
        if found.lower[at] > 0:
            return str(family.candidates[at]), f"{text}, shown to be a gain"
        return None, f"the best, {text}, which is not shown to be a gain"

    @property
    def base(self) -> float:
        """Mean score of the base."""
        return self._base(self.measurements.scores)

    @property
    def base_gold(self) -> float:
        """Mean log-likelihood of the right answer under the base, nats."""
        return self._base(self.measurements.gold)

    def _base(self, column: Callable[[Candidate, Sequence[Drawn]], Array]) -> float:
        if not self.documents:
            return float("nan")
        return float(column(Candidate(), self.stream[: self.documents]).mean())

    def block_differences(self) -> dict[Block, Array]:
        """Differences per document of every block that was run twice (n,)."""
        seen = self.stream[: self.documents]
        base = self.measurements.scores(Candidate(), seen)
        return {
            candidate.block: self.measurements.scores(candidate, seen) - base
            for candidate in self.families[0].candidates
            if candidate.block is not None
        }

    def effects(self) -> tuple[Effect, ...]:
        """Every candidate, best first, those that a race dropped last."""
        found = [
            self._effect(family, at)
            for family in self.families
            for at in range(len(family.candidates))
        ]
        found.sort(key=lambda e: (e.dropped is not None, not e.n, -e.difference, e.added))
        return tuple(
            effect.model_copy(
                update={
                    # The base gains nothing and adds nothing: it stands on the front too.
                    "pareto": effect.difference > 0
                    and not any(_dominates(other, effect) for other in found)
                }
            )
            for effect in found
        )

    def _effect(self, family: _Family, at: int) -> Effect:
        candidate, found = family.candidates[at], family.differences
        return Effect(
            candidate=candidate,
            label=str(candidate),
            plan=candidate.plan(self.measurements.depth),
            added=candidate.added,
            n=int(found.n[at]),
            score=float(found.mean_score[at]),
            difference=float(found.mean[at]),
            interval=(float(found.lower[at]), float(found.upper[at])),
            gold_difference=float(found.gold_mean[at]),
            gold_interval=found.gold_interval(at),
            wins=int(found.wins[at]),
            losses=int(found.losses[at]),
            dropped=family.dropped[at],
        )


def _dominates(one: Effect, other: Effect) -> bool:
    """Whether one gains at least as much with at most as many layers, and is not its equal."""
    if one.difference >= other.difference and one.added <= other.added:
        return one.difference > other.difference or one.added < other.added
    return False
