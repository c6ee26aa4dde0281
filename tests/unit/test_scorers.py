"""Scores against numbers worked out by hand, and what every ranking must hold."""

import math
import re

import numpy as np
import pytest

from surgeon.block import Block, all_blocks
from surgeon.errors import UnknownName, UsageError
from surgeon.score import SCORERS, Evidence, Ranking, rank
from surgeon.stats import STATISTICS, LayerStats, PlanStats


def layer_stats(depth=8, seed=0, **rows):
    rng = np.random.default_rng(seed)
    values = {name: tuple(rng.random(depth) + 0.5) for name in STATISTICS}
    values |= {name: tuple(map(float, row)) for name, row in rows.items()}
    return LayerStats(depth=depth, prompts=10, tokens=100, values=values)


def plan_stats(depth, probabilities, base):
    """Evidence from next-token distributions: {block: (P, V)} and the base's (P, V)."""
    blocks = tuple(probabilities)
    own = np.stack([probabilities[b] for b in blocks])  # (C, P, V)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(own > 0, own * np.log(own), 0).sum(-1)
        base_entropy = -np.where(base > 0, base * np.log(base), 0).sum(-1)
        gap = np.where(base > 0, base * (np.log(base) - np.log(own)), 0).sum(-1)
    return PlanStats(
        depth, blocks, base_entropy, entropy, gap,
        own.argmax(-1) == base.argmax(-1), np.einsum("cpv,dpv->pcd", own, own),
    )  # fmt: skip


def test_anomaly_by_hand():
    stats = layer_stats(
        4,
        representation_change=[1, 1, 3, 3],  # mean 2, std 1
        self_similarity=[0.9, 0.9, 0.5, 0.5],  # mean 0.7, std 0.2
        cross_example_variance=[0, 0, 0, 4],  # mean 1, std root 3
        representation_rank=[2, 2, 2, 2],  # std 0
    )
    best = rank(stats, "anomaly", (2,)).best
    assert best.block == Block(2, 4)
    # z: (3 - 2) / 1; -(0.5 - 0.7) / 0.2; (2 - 1) / root 3; 0
    assert best.terms == pytest.approx(
        {"change": 1.0, "dissimilarity": 1.0, "variance": 1 / math.sqrt(3), "rank": 0.0}
    )
    assert best.score == pytest.approx(2 + 1 / math.sqrt(3))
    assert best.depth_share == 0.75


def test_stability_by_hand():
    stats = layer_stats(
        7,
        representation_change=[4, 4, 4, 2, 2, 2, 8],  # steps 0 0 2 0 0 6
        cross_example_variance=[1, 2, 4, 8, 16, 32, 128],  # growth 2 2 2 2 2 4, median 2
        representation_rank=[1, 1, 1, 3, 3, 1, 1],
    )
    ranking = rank(stats, "stability", (2,))
    (entry,) = [e for e in ranking.entries if e.block == Block(3, 5)]
    steps = np.array([0, 0, 2, 0, 0, 6])
    # A: steps of layers 3 and 4 are 0 and 0; mean 8/6
    assert entry.terms["gradient"] == pytest.approx(1.5 * (8 / 6) / steps.std())
    # B: growth of layers 3 and 4 is 2 and 2: no deviation; |g - 2| = 0 0 0 0 0 2
    away = np.array([0, 0, 0, 0, 0, 2])
    assert entry.terms["growth"] == pytest.approx((1 / 3) / away.std())
    # C: layers 0..2 change by 4, layers 3..4 by 2
    assert entry.terms["drop"] == pytest.approx(0.5)
    ranks = np.array([1, 1, 1, 3, 3, 1, 1])
    assert entry.terms["rank"] == pytest.approx(0.5 * (3 - ranks.mean()) / ranks.std())
    assert entry.score == pytest.approx(sum(entry.terms.values()))


def test_stability_ranks_only_blocks_with_every_term():
    ranking = rank(layer_stats(8), "stability", (3,))
    assert {str(e.block) for e in ranking.entries} == {"3:6", "4:7"}
    why = {str(u.block): u.reason for u in ranking.unranked}
    assert set(why) == {"0:3", "1:4", "2:5", "5:8"}
    assert "starts at layer 0" in why["0:3"] and "fewer than 3 layers" in why["0:3"]
    assert why["2:5"] == "fewer than 3 layers come before the block"
    assert why["5:8"].startswith("the block ends at the last layer")


def test_a_missing_statistic_ranks_nothing_and_says_why():
    stats = layer_stats(8, representation_rank=[math.nan] * 8).model_copy(
        update={"missing": {"representation_rank": "needs at least 5 prompts, got 3"}}
    )
    ranking = rank(stats, "anomaly", (3,))
    assert ranking.entries == () and ranking.best is None
    assert {u.reason for u in ranking.unranked} == {"needs at least 5 prompts, got 3"}


def test_decisiveness_by_hand():
    base = np.array([[0.5, 0.5], [0.9, 0.1]])  # unsure on prompt 0 only
    sharp, dull = np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    plans = plan_stats(4, {Block(0, 2): dull, Block(1, 3): sharp}, base)
    ranking = rank(plans, "decisiveness", (2,))
    first, second = ranking.entries
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert first.block == Block(1, 3)
    assert first.terms == pytest.approx({"sharpening": math.log(2) - entropy, "damage": 0.0})
    kl = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert second.terms == pytest.approx({"sharpening": 0.0, "damage": -4 * kl})
    assert [str(u.block) for u in ranking.unranked] == ["2:4"]
    assert "not among the candidates" in ranking.unranked[0].reason


def test_decisiveness_needs_prompts_that_differ():
    base = np.array([[0.5, 0.5], [0.5, 0.5]])
    ranking = rank(plan_stats(3, {Block(0, 3): base}, base), "decisiveness", (3,))
    assert "equally unsure" in ranking.unranked[0].reason


def consensus_by_definition(own, base_entropy, kept, rounds=8):
    """Straight from the definition, with the full distributions (C, P, V)."""
    unsure = base_entropy >= np.median(base_entropy)
    weights = kept / kept.sum()
    for _ in range(rounds):
        consensus = np.einsum("c,cpv->pv", weights, own)
        scores = np.einsum("pv,cpv->cp", consensus, own)[:, unsure].mean(1)
        weights = np.exp(30 * scores) * kept
        weights /= weights.sum()
    return scores


def test_consensus_equals_the_definition_with_full_distributions():
    rng = np.random.default_rng(3)
    blocks = all_blocks(6, (3, 4))
    base = rng.dirichlet(np.full(9, 0.3), size=20)
    own = {b: 0.7 * base + 0.3 * rng.dirichlet(np.full(9, 0.3), size=20) for b in blocks}
    own[blocks[1]] = rng.dirichlet(np.full(9, 0.1), size=20)  # sharp, and off on its own
    plans = plan_stats(6, own, base)
    sure = ~plans.unsure
    kept = plans.agreement[:, sure].mean(1) >= 0.95
    assert not kept[1] and kept.sum() >= 2
    expected = consensus_by_definition(np.stack([own[b] for b in blocks]), plans.base_entropy, kept)
    ranking = rank(plans, "consensus", (3, 4))
    got = {e.block: e.score for e in ranking.entries}
    assert got == pytest.approx({b: s for b, s, k in zip(blocks, expected, kept, strict=True) if k})
    (out,) = [u for u in ranking.unranked if u.block == blocks[1]]
    assert "of its surer half, below 95%" in out.reason


def test_consensus_by_hand():
    # Two candidates agree, one is sharp but alone; the base is unsure on prompt 0.
    base = np.array([[0.4, 0.3, 0.3], [0.98, 0.01, 0.01]])
    right, alone = np.array([[0.9, 0.1, 0], base[1]]), np.array([[0, 0, 1.0], base[1]])
    plans = plan_stats(4, {Block(0, 2): right, Block(1, 3): right, Block(2, 4): alone}, base)
    ranking = rank(plans, "consensus", (2,))
    scores = {str(e.block): e.score for e in ranking.entries}
    # The vote converges on the pair: <right, right> = 0.82, <right, alone> = 0.
    assert scores["0:2"] == scores["1:3"] == pytest.approx(0.82, abs=1e-6)
    assert scores["2:4"] == pytest.approx(0.0, abs=1e-6)


def test_unknown_scorer_lists_the_names():
    with pytest.raises(UnknownName, match="unknown scorer `stabilty`; known: anomaly") as info:
        rank(layer_stats(), "stabilty")
    assert info.value.hint == "did you mean `stability`?"


def test_sizes_that_do_not_fit():
    with pytest.raises(UsageError, match=r"no block of 9 layers or more fits: .* 8 layers"):
        rank(layer_stats(8), "anomaly", (9, 10))
    with pytest.raises(UsageError, match="sizes of at least 1"):
        rank(layer_stats(8), "anomaly", (0,))


def test_evidence_that_is_not_there():
    with pytest.raises(UsageError, match="`consensus` needs `plans`, which was not measured"):
        rank(layer_stats(), "consensus")
    with pytest.raises(UsageError, match="the evidence is empty"):
        rank(Evidence(), "anomaly")


@pytest.mark.parametrize("key", SCORERS)
def test_every_scorer_cites_its_source_in_its_module(key):
    scorer = SCORERS[key]
    assert scorer.key == key and scorer.title and scorer.reference
    module = __import__(scorer.terms.__module__, fromlist=["x"])
    sources = re.findall(r"\d{4}\.\d{5}|\(\d{4}\)", scorer.reference)
    assert sources or scorer.reference.startswith("label-free score of this project")
    assert all(source in module.__doc__ for source in sources)


def test_ranking_survives_json_and_finds_blocks():
    ranking = rank(layer_stats(9), "anomaly", (2, 3))
    again = Ranking.from_dict(ranking.to_dict())
    assert again == ranking
    best = ranking.best.block
    assert ranking.position(best) == 1 and ranking.position(Block(0, 9)) is None
    assert all(e.block.distance(best) <= 2 and e.block != best for e in ranking.alternates())
    scores = [e.score for e in ranking.entries]
    assert scores == sorted(scores, reverse=True)
