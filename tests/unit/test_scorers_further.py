"""Mahalanobis, equilibrium, jacobian, boundary and contrastive in the default mode."""

import math

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from surgeon.block import Block
from surgeon.score import Evidence, rank
from surgeon.score.mahalanobis import robust_distances, shrinkage
from surgeon.stats import STATISTICS, BlockStats, LayerStats


def test_shrinkage_is_that_of_ledoit_and_wolf():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 40)) * rng.gamma(1.0, 1.0, 40)
    centred = points - points.mean(axis=0)
    expected = ledoit_wolf_shrinkage(centred, assume_centered=True)
    got = shrinkage(centred, centred.T @ centred / 12, 40)
    assert got == pytest.approx(expected, rel=1e-9)
    # The same from coordinates of the span only.
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    inside = left * singular
    assert shrinkage(inside, inside.T @ inside / 12, 40) == pytest.approx(expected, rel=1e-9)


def test_distances_equal_the_full_covariance_formula():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(8, 30))
    points[5] += 40.0
    got = robust_distances(points)
    keep = np.sort(np.argsort(got, kind="stable")[:6])
    assert 5 not in keep and got.argmax() == 5
    sample = points[keep] - points[keep].mean(axis=0)
    covariance = sample.T @ sample / 6
    share = ledoit_wolf_shrinkage(sample, assume_centered=True)
    level = np.trace(covariance) / 30
    full = (1 - share) * covariance + share * level * np.eye(30)
    away = points - points[keep].mean(axis=0)
    expected = np.einsum("nd,nd->n", away @ np.linalg.inv(full), away)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_mahalanobis_puts_the_block_around_the_outlier_first():
    deltas = np.random.default_rng(2).normal(size=(12, 16))
    deltas[7:9] += 30.0
    ranking = rank(Evidence(deltas=deltas), "mahalanobis", (2, 3))
    assert ranking.best.block == Block(7, 9)
    assert ranking.best.score == pytest.approx(0.5, abs=0.05)
    same = rank(Evidence(deltas=np.ones((6, 4))), "mahalanobis", (2,))
    assert {u.reason for u in same.unranked} == {"no layer is an outlier"}


def test_equilibrium_by_hand():
    first, second, third = Block(0, 2), Block(1, 3), Block(2, 4)
    stats = BlockStats(
        5,
        {
            "contraction": {first: 0.5, second: 2.0, third: 0.25},
            "activity": {first: 0.4, second: 0.2, third: 0.1},
            "compatibility": {first: 0.9, second: 1.0, third: 0.8},
        },
    )
    ranking = rank(Evidence(passes=stats), "equilibrium", (2,))
    scores = {str(e.block): e.score for e in ranking.entries}
    # plateau 0.2: the first is above it and not paid, the third is charged log(1/2)
    assert scores == pytest.approx(
        {"0:2": 0.5 + 0.9, "1:3": -1.0 + 1.0, "2:4": 0.75 + math.log(0.5) + 0.8}
    )
    assert [(str(u.block), u.reason) for u in ranking.unranked] == [
        ("3:5", "the block was not run on its own output")
    ]


def test_jacobian_by_hand():
    a, b, c = Block(0, 2), Block(1, 3), Block(2, 4)
    stats = BlockStats(
        4, {"jacobian": {a: 1.0, b: math.e, c: math.e**2}, "taylor": {a: 1.0, b: 1.0, c: 0.0}}
    )
    ranking = rank(Evidence(jacobians=stats), "jacobian", (2,))
    spread = math.sqrt(2 / 3)  # of 0, 1, 2
    assert {str(e.block): e.score for e in ranking.entries} == pytest.approx(
        {"0:2": -1 / spread, "1:3": 0.0}, abs=1e-9
    )
    assert "no effect that a derivative can see" in ranking.unranked[0].reason


def layer_stats(**rows):
    depth = len(next(iter(rows.values())))
    values = dict.fromkeys(STATISTICS, (1.0,) * depth)
    return LayerStats(depth=depth, prompts=9, tokens=9, values=values | rows)


def test_boundary_by_hand_and_only_with_two_edges():
    stats = layer_stats(forward_similarity=(0.5, 0.9, 0.8, 0.1, math.nan))
    ranking = rank(stats, "boundary", (3,))
    (only,) = ranking.entries
    assert str(only.block) == "1:4"
    assert only.terms == pytest.approx({"inside": 0.85, "before": 0.25, "after": 0.45})
    assert {str(u.block) for u in ranking.unranked} == {"0:3", "2:5"}


def test_contrastive_by_hand():
    reasoning = layer_stats(representation_change=(1.0, 1.0, 4.0, 4.0))
    general = layer_stats(representation_change=(1.0, 1.0, 2.0, 2.0))
    evidence = Evidence(layers=reasoning, groups={"reasoning": reasoning, "general": general})
    best = rank(evidence, "contrastive", (2,)).best
    # contrast 0, 0, 0.5/5, 0.5/5 (entropy is measured): z = 1; change z = 1; the rest 0
    assert str(best.block) == "2:4"
    assert best.terms["contrast"] == pytest.approx(0.5, abs=1e-6)
    assert best.score == pytest.approx(1.0, abs=1e-6)
