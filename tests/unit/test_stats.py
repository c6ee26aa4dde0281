"""Layer and plan statistics against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from surgeon.block import Block
from surgeon.errors import UsageError
from surgeon.stats import STATISTICS, LayerStats, PlanStats, PromptMeans, effective_rank


def means_of(*depths):
    """(N + 1, P, D) float32 from nested lists."""
    return np.array(depths, dtype=np.float32)


def two_layers():
    # prompt 0: (3,4) -> (0,4) -> (0,8); prompt 1: (1,0) -> (1,1) -> (2,2)
    return PromptMeans(
        means_of([[3, 4], [1, 0]], [[0, 4], [1, 1]], [[0, 8], [2, 2]]), np.array([5, 7])
    )


def test_statistics_by_hand():
    stats = two_layers().layer_stats()
    assert (stats.depth, stats.prompts, stats.tokens) == (2, 2, 12)
    root = math.sqrt(2)
    # changes: |(-3,0)| = 3 and |(0,1)| = 1; then |(0,4)| = 4 and |(1,1)| = root 2
    assert stats.row("representation_change") == pytest.approx([2.0, (4 + root) / 2])
    # cosines: 16 / (5 * 4) and 1 / root 2; then 1 and 1
    assert stats.row("self_similarity") == pytest.approx([(0.8 + 1 / root) / 2, 1.0])
    # growth: 4/5 and root 2; then 2 and 2
    assert stats.row("norm_growth") == pytest.approx([(0.8 + root) / 2, 2.0])
    # outputs (0,4), (1,1): variances 1/4 and 9/4; outputs (0,8), (2,2): 1 and 9
    assert stats.row("cross_example_variance") == pytest.approx([1.25, 5.0])
    assert stats.row("forward_similarity")[0] == pytest.approx(1.0)
    assert math.isnan(stats.row("forward_similarity")[1])


def test_what_was_not_measured_is_nan_and_says_why():
    stats = two_layers().layer_stats()
    assert np.isnan(stats.row("representation_rank")).all()
    assert stats.why_missing("representation_rank").endswith("at least 5 prompts, got 2")
    assert np.isnan(stats.row("attention_entropy")).all()
    assert "not asked for" in stats.why_missing("attention_entropy")
    data = json.loads(stats.to_json())
    assert data["schema"] == "surgeon.layerstats/1"
    assert data["values"]["representation_rank"] == [None, None]
    assert LayerStats.from_dict(data).to_dict() == stats.to_dict()


def test_zero_input_is_left_out_of_growth_only():
    zero = PromptMeans(means_of([[0, 0], [1, 0]], [[3, 4], [2, 0]]), np.array([1, 1]))
    stats = zero.layer_stats()
    assert stats.row("norm_growth") == pytest.approx([2.0])
    assert stats.row("representation_change") == pytest.approx([3.0])
    silent = PromptMeans(means_of([[0, 0]], [[3, 4]]), np.array([1])).layer_stats()
    assert np.isnan(silent.row("norm_growth")).all()
    assert "norm_growth" in silent.missing


def test_forward_similarity_of_the_first_prompt_differs_from_the_mean():
    turn = means_of([[1, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 0], [0, 1]])
    stats = PromptMeans(turn, np.array([1, 1])).layer_stats()
    assert stats.row("forward_similarity")[0] == pytest.approx(0.5)
    assert stats.row("forward_similarity_first")[0] == pytest.approx(1.0)


def test_effective_rank_by_hand():
    assert effective_rank(np.eye(5)) == pytest.approx(5.0)
    assert effective_rank(np.ones((5, 3))) == pytest.approx(1.0)
    # singular values 3 and 1: shares 3/4 and 1/4
    two = np.zeros((5, 2))
    two[0, 0], two[1, 1] = 3.0, 1.0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(two) == pytest.approx(math.exp(entropy))
    assert effective_rank(np.zeros((5, 2))) == pytest.approx(1.0)
    assert math.isnan(effective_rank(np.eye(4)))


def test_rank_looks_at_the_first_fifty_prompts():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, 60, 80)).astype(np.float32)
    whole = PromptMeans(means, np.ones(60, dtype=np.int64))
    first = whole.subset(range(50))
    assert whole.layer_stats().row("representation_rank") == pytest.approx(
        first.layer_stats().row("representation_rank")
    )


def test_subset_is_the_statistics_of_those_prompts():
    rng = np.random.default_rng(1)
    means = rng.normal(size=(4, 9, 6)).astype(np.float32)
    entropy = rng.random((3, 9))
    whole = PromptMeans(means, np.arange(1, 10), entropy)
    part = whole.subset([8, 2, 2, 5, 0, 1])
    direct = PromptMeans(
        means[:, [8, 2, 2, 5, 0, 1]], np.array([9, 3, 3, 6, 1, 2]), entropy[:, [8, 2, 2, 5, 0, 1]]
    )
    assert part.layer_stats().to_dict() == direct.layer_stats().to_dict()
    assert part.layer_stats().tokens == 24


def test_order_of_prompts_does_not_matter():
    rng = np.random.default_rng(2)
    means = rng.normal(size=(4, 9, 6)).astype(np.float32)
    whole = PromptMeans(means, np.arange(1, 10))
    mixed = whole.subset(rng.permutation(9))
    for name in set(STATISTICS) - {"forward_similarity_first", "attention_entropy"}:
        np.testing.assert_allclose(
            mixed.layer_stats().row(name), whole.layer_stats().row(name), rtol=1e-12
        )


def test_layer_stats_refuses_rows_of_another_depth():
    with pytest.raises(UsageError, match="1 numbers for 2 layers"):
        LayerStats.from_dict(
            {
                "schema": "surgeon.layerstats/1", "depth": 2, "prompts": 1, "tokens": 1,
                "values": {"norm_growth": [1.0]},
            }
        )  # fmt: skip


def test_plan_stats_refuses_shapes_that_do_not_fit():
    with pytest.raises(UsageError, match=r"`gram` has shape \(2, 1, 2\)"):
        PlanStats(
            4, (Block(0, 2),), np.zeros(2), np.zeros((1, 2)), np.zeros((1, 2)),
            np.zeros((1, 2), dtype=bool), np.zeros((2, 1, 2)),
        )  # fmt: skip
