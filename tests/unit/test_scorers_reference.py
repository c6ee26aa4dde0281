"""`compat="circuitprobe"` against the reference program's formulas, written out again.

The twin follows the published definitions layer by layer with plain Python numbers, counts
a term that does not apply as 0, and shares no code with `surgeon.score`.
"""

import math
from statistics import fmean, median, pstdev

import numpy as np
import pytest

from surgeon.errors import UsageError
from surgeon.score import CIRCUITPROBE, SCORERS, Evidence, rank
from surgeon.stats import STATISTICS, LayerStats

SIZES = (3, 4, 5)


def stats_of(depth, seed, **rows):
    rng = np.random.default_rng(seed)
    values = {name: tuple(rng.gamma(2.0, 1.0, depth)) for name in STATISTICS}
    for name in ("self_similarity", "forward_similarity", "forward_similarity_first"):
        values[name] = tuple(rng.uniform(-0.2, 1.0, depth))
    values["forward_similarity"] = (*values["forward_similarity"][:-1], math.nan)
    values["forward_similarity_first"] = (*values["forward_similarity_first"][:-1], math.nan)
    return LayerStats(depth=depth, prompts=50, tokens=900, values=values | rows)


def z(values, s, e):
    return (fmean(values[s:e]) - fmean(values)) / (pstdev(values) + 1e-10)


def twin_anomaly(q, s, e):
    return (
        z(q["representation_change"], s, e)
        - z(q["self_similarity"], s, e)
        + z(q["cross_example_variance"], s, e)
        + z(q["representation_rank"], s, e)
    )


def twin_stability(q, s, e):
    c, v, n = q["representation_change"], q["cross_example_variance"], len(q["norm_growth"])
    score = 0.5 * z(q["representation_rank"], s, e)
    if e < n:
        delta = [abs(c[i + 1] - c[i]) for i in range(n - 1)]
        score += 1.5 * -(fmean(delta[s:e]) - fmean(delta)) / (pstdev(delta) + 1e-10)
    if e < n and s > 0:
        growth = {i: v[i] / max(v[i - 1], 1e-10) for i in range(1, n)}
        middle = median(growth.values())
        away = [abs(g - middle) for g in growth.values()]
        inside = abs(fmean(growth[i] for i in range(s, e)) - middle)
        score += -(inside - fmean(away)) / (pstdev(away) + 1e-10)
    if s > 2:
        before = fmean(c[s - 3 : s])
        if before > 0:
            score += max(0.0, 1 - fmean(c[s:e]) / before)
    return score


def twin_boundary(q, s, e):
    f, n = q["forward_similarity_first"], len(q["norm_growth"])
    score = fmean(f[s : e - 1])
    if s > 0:
        score += (1 - f[s - 1]) / 2
    if e < n:
        score += (1 - f[e - 1]) / 2
    return score


def twin_composite(q, s, e):
    return 0.5 * twin_stability(q, s, e) + 0.5 * twin_anomaly(q, s, e)


def twin_contrastive(r, g):
    def relative(name, i):
        a, b = r[name][i], g[name][i]
        return abs(a - b) / max(abs(a), abs(b), 1e-10)

    contrast = []
    for i in range(len(r["norm_growth"])):
        parts = [
            relative(name, i)
            for name in ("representation_change", "norm_growth", "cross_example_variance")
        ]
        parts.append(abs(r["self_similarity"][i] - g["self_similarity"][i]))
        if r["attention_entropy"][i] > 0 and g["attention_entropy"][i] > 0:
            parts.append(relative("attention_entropy", i))
        contrast.append(fmean(parts))
    return lambda q, s, e: 0.5 * z(contrast, s, e) + 0.5 * twin_anomaly(q, s, e)


TWINS = {
    "anomaly": twin_anomaly,
    "stability": twin_stability,
    "boundary": twin_boundary,
    "composite": twin_composite,
}


def twin_ranking(score, stats):
    q = {name: [0.0 if math.isnan(x) else x for x in row] for name, row in stats.values.items()}
    scores = [
        (f"{s}:{s + k}", score(q, s, s + k)) for k in SIZES for s in range(stats.depth - k + 1)
    ]
    return sorted(scores, key=lambda pair: pair[1], reverse=True)


def assert_same(ranking, expected):
    assert [str(e.block) for e in ranking.entries] == [block for block, _ in expected]
    assert [e.score for e in ranking.entries] == pytest.approx([s for _, s in expected], rel=1e-9)
    assert ranking.unranked == () and ranking.compat == CIRCUITPROBE


@pytest.mark.parametrize("scorer", TWINS)
@pytest.mark.parametrize(("depth", "seed"), [(5, 0), (6, 1), (12, 2), (28, 3), (40, 4)])
def test_compat_reproduces_the_reference(scorer, depth, seed):
    stats = stats_of(depth, seed)
    assert_same(rank(stats, scorer, SIZES, CIRCUITPROBE), twin_ranking(TWINS[scorer], stats))


@pytest.mark.parametrize("missing", ["representation_rank", "attention_entropy"])
def test_compat_counts_what_was_not_measured_as_zero(missing):
    stats = stats_of(12, 5, **{missing: (math.nan,) * 12})
    for scorer, twin in TWINS.items():
        assert_same(rank(stats, scorer, SIZES, CIRCUITPROBE), twin_ranking(twin, stats))


@pytest.mark.parametrize("entropy", [True, False])
def test_compat_contrastive(entropy):
    gone = {} if entropy else {"attention_entropy": (math.nan,) * 14}
    reasoning, general = stats_of(14, 6, **gone), stats_of(14, 7, **gone)
    evidence = Evidence(layers=reasoning, groups={"reasoning": reasoning, "general": general})
    plain = [
        {n: [0.0 if math.isnan(x) else x for x in row] for n, row in s.values.items()}
        for s in (reasoning, general)
    ]
    expected = twin_ranking(twin_contrastive(*plain), reasoning)
    assert_same(rank(evidence, "contrastive", SIZES, CIRCUITPROBE), expected)


def test_default_gives_the_same_scores_where_every_term_is_defined():
    stats = stats_of(20, 8)
    for scorer in ("stability", "anomaly", "composite"):
        reference = {e.block: e.score for e in rank(stats, scorer, SIZES, CIRCUITPROBE).entries}
        ours = rank(stats, scorer, SIZES)
        assert ours.entries
        for entry in ours.entries:
            assert entry.score == pytest.approx(reference[entry.block])
        assert len(ours.entries) + len(ours.unranked) == len(reference)


def test_compat_is_refused_for_scorers_the_reference_does_not_have():
    assert {k for k, s in SCORERS.items() if s.in_reference} == {*TWINS, "contrastive"}
    evidence = Evidence(layers=stats_of(8, 0), deltas=np.eye(8))
    with pytest.raises(UsageError, match="circuitprobe has no scorer `mahalanobis`"):
        rank(evidence, "mahalanobis", SIZES, CIRCUITPROBE)
    with pytest.raises(UsageError, match="unknown compat mode `ovelle`; known: circuitprobe"):
        rank(evidence, "anomaly", SIZES, "ovelle")
