"""Scoring again over draws of prompts."""

import numpy as np
import pytest

from surgeon.block import Block
from surgeon.score import Evidence, get_scorer, rank
from surgeon.score.robustness import Robustness, robustness
from surgeon.stats import PromptMeans

SCORERS = [get_scorer("anomaly"), get_scorer("stability")]


def means(prompts=30, layers=10, seed=0):
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(layers + 1, prompts, 12)) * rng.gamma(2, 1, (layers + 1, 1, 1))
    return PromptMeans(steps.cumsum(axis=0).astype(np.float32), np.full(prompts, 7))


def resample_of(whole):
    return lambda members: Evidence(layers=whole.subset(members).layer_stats())


def test_rows_counts_and_round_trip():
    whole = means()
    found = robustness(resample_of(whole), 30, SCORERS, (3,), draws=20, groups={"hi": range(6, 14)})
    assert [r.scorer for r in found] == ["anomaly", "stability"]
    for each in found:
        full = rank(Evidence(layers=whole.layer_stats()), each.scorer, (3,)).best
        assert (each.winner, each.score) == (full.block, full.score)
        assert [(row.name, row.prompts, row.draws) for row in each.rows] == [
            ("10 random", 10, 20), ("20 random", 20, 20), ("bootstrap", 30, 20), ("hi", 8, 1),
        ]  # fmt: skip
        for row in each.rows:
            assert sum(row.first.values()) + row.unranked == row.draws
            assert row.low <= row.high and 0 <= row.within_2 <= 1
        assert Robustness.from_dict(each.to_dict()) == each


def test_a_group_is_ranked_on_its_own_prompts():
    whole = means(seed=1)
    members = [3, 9, 12, 20, 21, 28]
    (found,) = robustness(
        resample_of(whole), 30, SCORERS[:1], (3,), draws=1, groups={"fr": members}
    )
    own = rank(Evidence(layers=whole.subset(members).layer_stats()), "anomaly", (3,))
    row = found.rows[-1]
    assert row.first == {str(own.best.block): 1}
    assert row.distance == own.best.block.distance(found.winner)
    (score,) = [e.score for e in own.entries if e.block == found.winner]
    assert row.low == row.high == pytest.approx(score)


def test_identical_prompts_never_move_the_winner():
    one = means(prompts=1)
    same = one.subset([0] * 30)
    (found,) = robustness(resample_of(same), 30, SCORERS[:1], (3,), draws=5)
    for row in found.rows:
        assert row.first == {str(found.winner): 5} and row.distance == 0 and row.within_2 == 1


def test_draws_that_rank_nothing_are_counted():
    (found,) = robustness(resample_of(means()), 30, SCORERS[:1], (3,), draws=4, subsets=(3,))
    row = found.rows[0]
    assert (row.name, row.unranked, row.first) == ("3 random", 4, {})
    assert np.isnan(row.distance) and np.isnan(row.low)


def test_seed_decides_the_draws():
    def run(seed):
        return robustness(resample_of(means()), 30, SCORERS[:1], (3,), draws=30, seed=seed)

    assert run(1) == run(1)
    assert run(1)[0].rows[0].low != run(2)[0].rows[0].low


def test_subsets_as_large_as_the_set_are_left_out():
    (found,) = robustness(resample_of(means(prompts=10)), 10, SCORERS[:1], (3,), draws=2)
    assert [row.name for row in found.rows] == ["bootstrap"]
    assert found.winner is None or isinstance(found.winner, Block)
