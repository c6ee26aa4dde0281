"""Consensus: the candidates vote, and each is scored by how well it agrees with the vote.

Needs no labels, in the spirit of Dawid and Skene (1979) and of spectral meta-learners
(Parisi et al., 2014, arXiv 1303.3257): classifiers that are right agree with each other
more than those that are wrong. A candidate is the base with one block run twice.

1. Keep the candidates whose most likely token is the base's on at least 95 % of the half
   of the prompts on which the base is surer.
2. Give them equal weights w, then repeat 8 times: consensus after a prompt = sum_c w_c P_c;
   score of c = mean over the unsure half of <consensus, P_c>, the probability that both
   draw the same token; w = softmax(30 score) over the kept candidates.

<consensus, P_c> = sum_c' w_c' <P_c', P_c>, so the Gram tensor of the distributions is all
it needs. A candidate that is sharp but wrong disagrees with the rest and scores low.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms
from surgeon.score.decisiveness import NOT_A_CANDIDATE
from surgeon.stats import Floats, PlanStats

MIN_AGREEMENT = 0.95
ROUNDS = 8
SHARPNESS = 30.0


def consensus_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Term `agreement`, in 0..1, of each block that keeps what the base knows."""
    plans = evidence.plans
    assert plans is not None
    if plans.unsure.all():
        return [{"agreement": "the base is equally unsure on every prompt"} for _ in blocks]
    kept_share = plans.agreement[:, ~plans.unsure].mean(axis=1)  # (C,)
    scores = vote(plans, kept_share >= MIN_AGREEMENT)
    at = {block: index for index, block in enumerate(plans.candidates)}
    return [
        {"agreement": _term(scores, kept_share, at[block])}
        if block in at
        else {"agreement": NOT_A_CANDIDATE}
        for block in blocks
    ]


def _term(scores: Floats, kept_share: Floats, index: int) -> float | str:
    if kept_share[index] < MIN_AGREEMENT:
        return (
            f"keeps the base's answer on {kept_share[index]:.0%} of its surer half, "
            f"below {MIN_AGREEMENT:.0%}"
        )
    return float(scores[index])


def vote(plans: PlanStats, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    """(C,) agreement of every candidate with the consensus of the kept ones."""
    overlap = plans.gram[plans.unsure].mean(axis=0)  # (C, C)
    scores = np.zeros(len(kept))
    if not kept.any():
        return scores
    weights = kept / kept.sum()
    for _ in range(ROUNDS):
        scores = overlap @ weights
        odds = np.exp(SHARPNESS * (scores - scores[kept].max())) * kept
        weights = odds / odds.sum()
    return scores


CONSENSUS = Scorer(
    key="consensus",
    title="running it twice agrees with what the other candidates agree on",
    reference="label-free score of this project, after Dawid and Skene (1979), arXiv 1303.3257",
    needs="plans",
    circuit="label-free",
    terms=consensus_terms,
)
