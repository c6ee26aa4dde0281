"""Rankings against measured differences, beside scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from surgeon.block import Block, all_blocks
from surgeon.errors import UsageError
from surgeon.score.base import BlockScore, Ranking, Unranked
from surgeon.sweeping.prediction import predictions

BLOCKS = all_blocks(8, [2, 3])


def ranking(scores, name="stability", unranked=()):
    entries = sorted(scores.items(), key=lambda item: -item[1])
    return Ranking(
        scorer=name,
        circuit="stability",
        depth=8,
        entries=tuple(
            BlockScore(block=b, score=s, terms={"t": s}, depth_share=0.5) for b, s in entries
        ),
        unranked=tuple(Unranked(block=b, reason="edge") for b in unranked),
    )


def measured(means, n=400, seed=0):
    rng = np.random.default_rng(seed)
    return {b: np.where(rng.random(n) < abs(m), np.sign(m), 0.0) for b, m in means.items()}


def truth():
    return {block: 0.3 - 0.05 * block.distance(Block(3, 5)) for block in BLOCKS}


def test_a_perfect_ranking():
    rows = measured(truth())
    means = {block: float(values.mean()) for block, values in rows.items()}
    (found,) = predictions([ranking(means)], rows)
    assert found.spearman == pytest.approx(1.0) and found.kendall == pytest.approx(1.0)
    assert found.hit and found.within_two and found.distance == 0 and found.regret == 0
    assert found.hit_share > 0.3 and found.within_two_share >= found.hit_share
    assert found.regret_interval[0] == 0
    assert found.chance_hit == pytest.approx(1 / len(BLOCKS))
    best = found.best
    near = [block for block in BLOCKS if block.distance(best) <= 2]
    assert found.chance_within_two == pytest.approx(len(near) / len(BLOCKS))
    assert found.chance_regret == pytest.approx(max(means.values()) - np.mean(list(means.values())))


def test_any_ranking_has_scipys_correlations():
    rng = np.random.default_rng(1)
    rows = measured(truth())
    scores = {block: float(rng.integers(0, 5)) for block in BLOCKS}  # with ties
    (found,) = predictions([ranking(scores)], rows)
    own = [scores[block] for block in BLOCKS]
    means = [rows[block].mean() for block in BLOCKS]
    assert found.spearman == pytest.approx(stats.spearmanr(own, means).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(own, means).statistic)
    low, high = found.spearman_interval
    assert low <= found.spearman <= high
    predicted = found.predicted
    assert found.regret == pytest.approx(max(means) - rows[predicted].mean())


def test_a_scorer_that_could_not_rank_the_best_missed_it():
    rows = measured(truth())
    means = {block: float(values.mean()) for block, values in rows.items()}
    best = max(means, key=means.get)
    rest = {block: mean for block, mean in means.items() if block != best}
    (found,) = predictions([ranking(rest, unranked=[best])], rows)
    assert found.best == best and not found.hit and found.regret > 0
    assert (found.blocks, found.unranked) == (len(BLOCKS) - 1, 1)


def test_the_interval_of_a_noisy_measurement_is_wide_and_that_of_a_good_one_narrow():
    scores = truth()
    widths = []
    for n in (30, 3000):
        (found,) = predictions([ranking(scores)], measured(truth(), n))
        widths.append(found.spearman_interval[1] - found.spearman_interval[0])
    assert widths[1] < widths[0] / 3


def test_blocks_that_were_not_measured_cannot_be_predicted():
    with pytest.raises(UsageError, match="none of the measured blocks"):
        predictions([ranking({Block(0, 7): 1.0})], measured(truth()))


def test_nothing_measured_moves():
    rows = {block: np.zeros(50) for block in BLOCKS}
    (found,) = predictions([ranking(truth())], rows)
    assert np.isnan(found.spearman) and np.isnan(found.spearman_interval[0])
    assert found.regret == 0
