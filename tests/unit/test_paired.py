"""Verdicts: the tests and intervals against enumeration, and the rules that combine them."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from surgeon.errors import UsageError
from surgeon.fixed import (
    bonett_price,
    bootstrap,
    documents_for_power,
    holm,
    mcnemar,
    sign_flip,
)
from surgeon.paired import Comparison, Verdict, cluster_means, compare


def scores(wins, losses, ties):
    """Base and candidate scores with these counts, shuffled with a fixed seed."""
    pairs = [(0.0, 1.0)] * wins + [(1.0, 0.0)] * losses + [(1.0, 1.0)] * ties
    np.random.default_rng(0).shuffle(pairs)
    return [a for a, _ in pairs], [b for _, b in pairs]


@given(st.integers(0, 12), st.integers(0, 12))
def test_mid_p_by_enumeration(wins, losses):
    pairs = wins + losses
    table = [sum(flips) for flips in product((0, 1), repeat=min(pairs, 12))] if pairs <= 12 else []
    if not table:
        return
    fewer = min(wins, losses)
    below = sum(k < fewer for k in table) / len(table)
    equal = sum(k == fewer for k in table) / len(table)
    want = 1.0 if wins == losses else min(1.0, 2 * (below + equal / 2))
    assert mcnemar(wins, losses) == pytest.approx(want)


def test_mid_p_is_the_exact_p_less_the_observed_outcome():
    exact = binomtest(2, 12).pvalue
    assert mcnemar(10, 2) == pytest.approx(exact - math.comb(12, 2) / 2**12)


def test_bonett_price_by_hand():
    # w 25, l 14, n 187: a = 26/189, b = 15/189.
    a, b = 26 / 189, 15 / 189
    half = 1.959964 * math.sqrt((a + b - (a - b) ** 2) / 189)
    assert bonett_price(25, 14, 187) == pytest.approx((a - b - half, a - b + half), abs=1e-6)


def test_published_runs_get_the_verdicts_they_deserve():
    # Counts of the full public logs; the fixed-n column of the table they are summed in.
    date = compare(*scores(6, 17, 227), plan="fixed")
    assert (date.verdict, round(date.p, 3)) == ("worse", 0.023)
    logic = compare(*scores(28, 31, 191), plan="fixed")
    assert (logic.verdict, round(logic.p, 2)) == ("undecided", 0.70)


def test_fixed_needs_both_the_test_and_the_interval():
    for wins in range(40):
        verdict = compare(*scores(wins, 10, 50), plan="fixed", margin=1e-6)
        clear = verdict.p <= 0.05 and not verdict.interval[0] <= 0 <= verdict.interval[1]
        assert (verdict.verdict in ("improved", "worse")) == clear


def test_sequential_verdicts_and_their_numbers():
    better = compare(*scores(40, 5, 105))
    assert better.verdict == "improved" and better.docs_needed is None
    assert (better.n, better.wins, better.losses, better.ties) == (150, 40, 5, 105)
    assert (
        better.difference
        == pytest.approx(better.candidate - better.base)
        == pytest.approx(35 / 150)
    )
    assert better.interval[0] > 0 and better.p <= 0.05 and better.e >= 20
    assert compare(*scores(5, 40, 105)).verdict == "worse"
    assert compare(*scores(0, 0, 400)).verdict == "equivalent"
    open_ = compare(*scores(8, 4, 88))
    assert open_.verdict == "undecided" and open_.docs_needed > 0


def test_as_many_documents_again_as_asked_for_decide():
    open_ = compare(*scores(8, 4, 88))
    factor = math.ceil((open_.n + open_.docs_needed) / open_.n)
    verdict = compare(*scores(8 * factor, 4 * factor, 88 * factor))
    assert verdict.verdict == "improved"


def test_equal_models_are_equivalent_never_different():
    same = [1.0, 0.0] * 500
    for plan in ("sequential", "fixed", "obf"):
        verdict = compare(same, same, plan=plan)
        assert verdict.verdict == "equivalent" and verdict.wins == verdict.losses == 0


def test_growing_by_chunks_is_the_same_as_all_at_once():
    base, candidate = scores(30, 18, 152)
    grown = Comparison(task="t")
    for start in range(0, 200, 37):
        grown.add(base[start : start + 37], candidate[start : start + 37])
    assert grown.verdict() == compare(base, candidate, task="t")


def test_more_candidates_widen_the_interval():
    one, many = (compare(*scores(24, 6, 70), candidates=n) for n in (1, 20))
    assert many.level == pytest.approx(1 - 0.05 / 20)
    assert many.interval[0] < one.interval[0] and many.interval[1] > one.interval[1]
    assert one.verdict == "improved" and many.verdict == "undecided"


def test_obrien_fleming_stops_at_looks_only():
    base, candidate = scores(60, 20, 120)
    early = compare(base[:79], candidate[:79], plan="obf", planned=200)
    assert "O'Brien-Fleming" in early.method and math.isnan(early.p)
    assert early.verdict != "undecided" or early.docs_needed == 121
    late = compare(base, candidate, plan="obf", planned=200)
    assert late.verdict == "improved" and late.interval[0] > 0


def test_continuous_scores_use_their_scale():
    generator = np.random.default_rng(0)
    base = generator.normal(-2.0, 0.5, 300)
    candidate = base + generator.normal(0.05, 0.05, 300)
    for plan in ("sequential", "fixed"):
        verdict = compare(base, candidate, plan=plan, scale=0.25, margin=0.01)
        assert verdict.verdict == "improved"
        assert 0 < verdict.interval[0] < verdict.difference < verdict.interval[1]
    clipped = compare(base, candidate, scale=0.1)
    assert "were clipped" in clipped.notes[0]


def test_sign_flip_by_enumeration():
    moved = np.array([0.3, 0.5, 0.7, -0.2, 0.4, 0.6, 0.1, 0.9])
    sums = [abs(np.dot(signs, moved)) for signs in product((-1, 1), repeat=len(moved))]
    exact = np.mean(np.array(sums) >= abs(moved.sum()) - 1e-12)
    assert sign_flip(np.concatenate([moved, np.zeros(5)])) == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.zeros(9)) == 1.0


def test_bootstrap_is_near_the_normal_interval():
    values = np.random.default_rng(5).normal(0.1, 1, 400)
    half = 1.96 * values.std() / 20
    assert bootstrap(values) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.02
    )


def test_clusters_are_the_units():
    base, candidate = [0.0] * 40, [1.0, 1.0, 1.0, 0.0] * 10
    labels = [at // 4 for at in range(40)]
    assert cluster_means(np.array(candidate), labels).tolist() == [0.75] * 10
    alone, together = compare(base, candidate), compare(base, candidate, clusters=labels)
    assert together.n == 10 and together.difference == pytest.approx(alone.difference)
    assert "10 clusters of 40 documents" in together.notes


def test_documents_for_power_gives_the_table():
    # Difference 5 points: shares of 10..25 % of documents that differ.
    got = [documents_for_power(0.05, share) for share in (0.10, 0.15, 0.20, 0.25)]
    assert got == [312, 469, 626, 783]
    assert documents_for_power(0.02, 0.2, power=0.9) == 5250
    assert documents_for_power(0.0, 0.2) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_not_worse_needs_the_bound():
    assert compare(*scores(40, 5, 105)).not_worse
    assert compare(*scores(0, 0, 400)).not_worse
    assert not compare(*scores(8, 4, 88)).not_worse
    assert not compare(*scores(5, 40, 105)).not_worse


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_round_trip(wins, losses, ties):
    verdict = compare(*scores(wins, losses, ties), plan="fixed")
    data = verdict.to_dict()
    assert data["schema"] == "surgeon.verdict/1" and data["e"] is None
    assert Verdict.from_dict(data).to_dict() == data


@pytest.mark.parametrize(
    ("base", "candidate", "settings", "words"),
    [
        ([], [], {}, "no documents"),
        ([1.0], [1.0, 0.0], {}, "1 base scores and 2 candidate"),
        ([math.nan], [1.0], {}, "not a finite number"),
        ([1.0], [1.0], {"alpha": 0}, "alpha 0"),
        ([1.0], [1.0], {"margin": -1}, "margin -1"),
        ([1.0], [1.0], {"candidates": 0}, "candidates 0"),
        ([1.0], [1.0], {"clusters": [1, 2]}, "2 cluster labels for 1"),
    ],
)
def test_bad_input_is_refused(base, candidate, settings, words):
    with pytest.raises(UsageError, match=words):
        compare(base, candidate, **settings)
