"""What holds for every scorer in the registry, whatever it looks for."""

import math

import numpy as np
import pytest

from surgeon.block import all_blocks
from surgeon.score import SCORERS, Evidence, rank
from surgeon.stats import BlockStats, PlanStats, PromptMeans

DEPTH, PROMPTS, SIZES = 10, 24, (2, 3, 4)
BLOCKS = all_blocks(DEPTH, SIZES)


def evidence(order=range(PROMPTS)):
    """One of everything, with the prompts in the given order."""
    rng = np.random.default_rng(11)
    order = np.asarray(order)
    steps = rng.normal(size=(DEPTH + 1, PROMPTS, 8)) * rng.gamma(2, 1, (DEPTH + 1, 1, 1))
    means = PromptMeans(
        steps.cumsum(axis=0).astype(np.float32), np.full(PROMPTS, 5), rng.random((DEPTH, PROMPTS))
    ).subset(order)
    base = rng.dirichlet(np.full(7, 0.4), PROMPTS)
    own = 0.8 * base + 0.2 * rng.dirichlet(np.full(7, 0.4), (len(BLOCKS), PROMPTS))
    plans = PlanStats(
        DEPTH,
        tuple(BLOCKS),
        -(base * np.log(base)).sum(-1),
        -(own * np.log(own)).sum(-1),
        (base * (np.log(base) - np.log(own))).sum(-1),
        own.argmax(-1) == base.argmax(-1),
        np.einsum("cpv,dpv->pcd", own, own),
    ).subset(order)
    half = np.isin(order, range(PROMPTS // 2))

    def numbers(*names):
        return BlockStats(DEPTH, {name: {b: rng.gamma(2.0) for b in BLOCKS} for name in names})

    return Evidence(
        layers=means.layer_stats(),
        groups={
            "reasoning": means.subset(np.flatnonzero(half)).layer_stats(),
            "general": means.subset(np.flatnonzero(~half)).layer_stats(),
        },
        deltas=np.diff(means.means.astype(np.float64), axis=0).mean(axis=1),
        passes=numbers("contraction", "activity", "compatibility"),
        jacobians=numbers("jacobian", "taylor"),
        plans=plans,
    )


@pytest.mark.parametrize("key", SCORERS)
def test_every_block_is_ranked_once_or_unranked_with_a_reason(key):
    ranking = rank(evidence(), key, SIZES)
    listed = [e.block for e in ranking.entries] + [u.block for u in ranking.unranked]
    assert sorted(listed) == sorted(BLOCKS)
    assert ranking.entries and all(u.reason for u in ranking.unranked)


@pytest.mark.parametrize("key", SCORERS)
def test_ranked_blocks_have_the_same_terms_and_their_sum_is_the_score(key):
    entries = rank(evidence(), key, SIZES).entries
    assert len({tuple(e.terms) for e in entries}) == 1
    for entry in entries:
        assert math.isfinite(entry.score)
        assert entry.score == pytest.approx(sum(entry.terms.values()))
    scores = [e.score for e in entries]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("key", SCORERS)
def test_order_of_the_prompts_does_not_matter(key):
    mixed = np.random.default_rng(0).permutation(PROMPTS)
    one, two = rank(evidence(), key, SIZES), rank(evidence(mixed), key, SIZES)
    scores = {e.block: e.score for e in two.entries}
    assert {e.block for e in one.entries} == set(scores)
    for entry in one.entries:
        assert scores[entry.block] == pytest.approx(entry.score, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("key", SCORERS)
def test_same_evidence_same_ranking(key):
    assert rank(evidence(), key, SIZES) == rank(evidence(), key, SIZES)
