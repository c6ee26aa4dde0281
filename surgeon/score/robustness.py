"""How far to trust a ranking: the same scoring over other draws of the same prompts.

Statistics are kept per prompt, so nothing is run again. For random subsets of 10, 20, ..
prompts, for bootstrap resamples of all of them, and for each language, the blocks are
ranked anew. What is reported is how often each block comes first, how far the winner moves
from the winner over all prompts, and the spread of that winner's score.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from surgeon.block import Block
from surgeon.record import Measured, Record
from surgeon.score.base import Evidence, Ranking, Scorer, rank_with

SUBSETS = (10, 20)
DRAWS = 100
LEVEL = 0.95

Resample = Callable[[Sequence[int]], Evidence]
"""The evidence of some of the prompts, by index; repeats are allowed."""


class Draws(Record):
    """What repeated scoring over one kind of draw gave.

    Args:
        name: such as `10 random`, `bootstrap` or `hi`.
        prompts: prompts in each draw.
        draws: how many draws; `unranked` of them ranked no block.
        first: block -> how often it came first, most often first.
        distance: mean distance, in layers, of each draw's winner from the overall winner.
        within_2: share of draws whose winner is within 2 layers of it.
        low: lower end of the middle 95 % of the overall winner's score over the draws.
        high: upper end.
    """

    name: str
    prompts: int
    draws: int
    unranked: int
    first: dict[str, int]
    distance: Measured
    within_2: Measured
    low: Measured
    high: Measured


class Robustness(Record):
    """How one scorer's winner over all prompts fares over other draws of prompts."""

    SCHEMA: ClassVar[str] = "surgeon.robustness/1"

    scorer: str
    winner: Block | None
    score: Measured
    rows: tuple[Draws, ...]


def robustness(
    resample: Resample,
    prompts: int,
    scorers: Sequence[Scorer],
    sizes: Sequence[int],
    *,
    compat: str | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    subsets: Sequence[int] = SUBSETS,
    draws: int = DRAWS,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> list[Robustness]:
    """Score again over random subsets, bootstrap resamples and named groups of prompts.

    Args:
        resample: gives the evidence of a draw.
        prompts: how many prompts there are.
        scorers: what to rank with; each sees the same draws.
        sizes: block sizes in layers.
        compat: as in `rank_with`.
        groups: name -> prompt indices, for example by language.
        subsets: sizes of the random subsets; those of `prompts` or more are left out.
        draws: draws per kind.
        seed: of the draws.
        report: progress callback `(done, total)` in draws.
    """
    rng = np.random.default_rng(seed)
    plan: dict[str, list[list[int]]] = {}
    for size in subsets:
        if size < prompts:
            plan[f"{size} random"] = [
                rng.choice(prompts, size, replace=False).tolist() for _ in range(draws)
            ]
    plan["bootstrap"] = [rng.integers(prompts, size=prompts).tolist() for _ in range(draws)]
    for name, members in (groups or {}).items():
        plan[name] = [list(members)]
    whole = resample(range(prompts))
    full = [rank_with(whole, scorer, sizes, compat) for scorer in scorers]
    found: dict[str, list[list[Ranking]]] = {name: [] for name in plan}
    total, done = sum(map(len, plan.values())), 0
    for name, chosen in plan.items():
        for members in chosen:
            evidence = resample(members)
            found[name].append([rank_with(evidence, s, sizes, compat) for s in scorers])
            done += 1
            if report:
                report(done, total)
    return [
        _summary(overall, {name: [each[at] for each in found[name]] for name in plan}, plan)
        for at, overall in enumerate(full)
    ]


def _summary(
    overall: Ranking,
    found: Mapping[str, Sequence[Ranking]],
    plan: Mapping[str, Sequence[Sequence[int]]],
) -> Robustness:
    best = overall.best
    return Robustness(
        scorer=overall.scorer,
        winner=best.block if best else None,
        score=best.score if best else float("nan"),
        rows=tuple(
            _draws(name, len(plan[name][0]), rankings, overall) for name, rankings in found.items()
        ),
    )


def _draws(name: str, prompts: int, rankings: Sequence[Ranking], full: Ranking) -> Draws:
    winners = [ranking.best.block for ranking in rankings if ranking.best]
    first = Counter(str(block) for block in winners)
    distances, scores = [], []
    if full.best:
        winner = full.best.block
        distances = [block.distance(winner) for block in winners]
        scores = [e.score for r in rankings for e in r.entries if e.block == winner]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(scores, [tail, 1 - tail]) if scores else (np.nan, np.nan)
    return Draws(
        name=name,
        prompts=prompts,
        draws=len(rankings),
        unranked=len(rankings) - len(winners),
        first=dict(first.most_common()),
        distance=float(np.mean(distances)) if distances else float("nan"),
        within_2=float(np.mean([d <= 2 for d in distances])) if distances else float("nan"),
        low=float(low),
        high=float(high),
    )
