"""The block to duplicate, out of the measured effects of all of them."""

import math
from collections.abc import Sequence

from surgeon.paired import Conclusion, Verdict
from surgeon.score import Ranking
from surgeon.selection import Selection, Tried, conclude
from surgeon.sweeping.result import Effect, SweepResult


def selection_from(swept: SweepResult, rankings: Sequence[Ranking], min_gain: float) -> Selection:
    """Every measured block with its comparison, and the best if it gained enough.

    Args:
        swept: a sweep of blocks that are run twice.
        rankings: of a probe; they say who proposed a block and decide nothing.
        min_gain: difference in score below which nothing has won.
    """
    origins = _origins(rankings)
    tried = [
        Tried(
            block=effect.block,
            origin=origins.get(str(effect.block), "sweep"),
            verdict=_verdict(swept, effect),
        )
        for effect in swept.effects
        if effect.block is not None
    ]
    return conclude(tried, mode="swept", task=", ".join(swept.tasks), min_gain=min_gain)


def _origins(rankings: Sequence[Ranking]) -> dict[str, str]:
    """Which scorers had a block first."""
    found: dict[str, str] = {}
    for ranking in rankings:
        if ranking.best is not None:
            name, block = f"{ranking.scorer} #1", str(ranking.best.block)
            found[block] = f"{found[block]}, {name}" if block in found else name
    return found


def _verdict(swept: SweepResult, effect: Effect) -> Verdict:
    low, high = effect.interval
    conclusion: Conclusion = "undecided"
    if low > 0:
        conclusion = "improved"
    elif high < 0:
        conclusion = "worse"
    elif -swept.margin < low and high < swept.margin:
        conclusion = "equivalent"
    count = len(swept.effects)
    return Verdict(
        verdict=conclusion,
        n=effect.n,
        base=swept.base,
        candidate=effect.score,
        difference=effect.difference,
        interval=effect.interval,
        level=1 - (1 - swept.level) / count,
        method="betting confidence sequence, looked at every 64 documents",
        p=math.nan,
        e=math.nan,
        wins=effect.wins,
        losses=effect.losses,
        ties=effect.n - effect.wins - effect.losses,
        margin=swept.margin,
        candidates=count,
        split=swept.split,
        task=", ".join(swept.tasks),
    )
