"""Betting sequences against products written out, and against what theory promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.errors import UsageError
from surgeon.sequential import BETS, BettingSequence, log_capital, lower_bound, obrien_fleming

ternary = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60)
bounded = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3)), min_size=4)


def capital_by_hand(differences, mean):
    """Average over bets of the product over documents, as the formula stands."""
    total = 0.0
    for bet in BETS:
        product = 1.0
        for value in differences:
            product *= 1 + bet * (value - mean) / (1 + mean)
        total += product
    return total / len(BETS)


def draw(generator, runs, n, difference, discordance):
    """Ternary differences (runs, n) with the given mean and share of non-zero ones."""
    u = generator.random((runs, n))
    win, loss = (discordance + difference) / 2, (discordance - difference) / 2
    return (u < win).astype(float) - ((u >= win) & (u < win + loss))


@given(ternary, st.floats(-0.9, 0.9))
def test_capital_is_the_product_of_the_formula(differences, mean):
    values, counts = np.unique(differences, return_counts=True)
    got = log_capital(values, counts[None, :].astype(float), np.array([mean]))[0]
    assert got == pytest.approx(math.log(capital_by_hand(differences, mean)), abs=1e-9)


@given(st.one_of(ternary, bounded))
def test_bounds_are_where_the_capital_crosses(differences):
    values, counts = np.unique(differences, return_counts=True)
    low = lower_bound(values, counts[None, :].astype(float), 0.05)[0]
    if low == -1.0:
        assert capital_by_hand(differences, -1 + 1e-9) < 20
    else:
        assert capital_by_hand(differences, low) >= 20 * (1 - 1e-6)
        assert capital_by_hand(differences, min(1.0, low + 1e-6)) < 20
    assert low <= np.mean(differences)


@given(ternary)
def test_chunks_do_not_matter(differences):
    whole, parts = BettingSequence(), BettingSequence()
    whole.update(differences)
    for value in differences:
        parts.update([value])
    assert (whole.lower, whole.upper, whole.n) == (parts.lower, parts.upper, parts.n)
    assert whole.log_most == pytest.approx(parts.log_most)
    assert [entry[0] for entry in whole.trace] == list(range(1, len(differences) + 1))


@given(ternary)
def test_swapping_the_models_mirrors_everything(differences):
    one, other = BettingSequence(), BettingSequence()
    one.update(differences)
    other.update([-value for value in differences])
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))
    assert one.e_value == pytest.approx(other.e_value)


def test_p_reaches_alpha_exactly_when_zero_leaves_the_interval():
    generator = np.random.default_rng(0)
    seen = set()
    for row in draw(generator, 60, 150, 0.08, 0.2):
        sequence = BettingSequence(0.05)
        sequence.update(row)
        left = sequence.lower > 0 or sequence.upper < 0
        assert left == (sequence.p_value <= 0.05)
        seen.add(left)
    assert seen == {True, False}


def test_at_the_null_the_expected_e_value_is_at_most_one():
    generator = np.random.default_rng(1)
    values = np.array([-1.0, 0.0, 1.0])
    rows = draw(generator, 20_000, 40, 0.0, 0.2)
    counts = np.stack([(rows == value).sum(1) for value in values], axis=1).astype(float)
    e = np.exp(log_capital(values, counts, np.zeros(len(rows))))
    assert e.mean() == pytest.approx(1.0, abs=4 * e.std() / math.sqrt(len(e)))


def test_the_running_interval_covers_at_every_look():
    generator = np.random.default_rng(2)
    misses = 0
    for row in draw(generator, 300, 250, 0.04, 0.2):
        sequence = BettingSequence(0.05)
        sequence.update(row)
        misses += not sequence.lower <= 0.04 <= sequence.upper
    assert misses / 300 <= 0.05


def test_continuous_differences_are_covered_too():
    generator = np.random.default_rng(3)
    misses = 0
    for _ in range(100):
        sequence = BettingSequence(0.05)
        for _ in range(5):
            sequence.update(np.clip(generator.normal(0.1, 0.3, 40), -1, 1))
        misses += not sequence.lower <= 0.1 <= sequence.upper
    assert misses / 100 <= 0.05


@pytest.mark.parametrize(("margin", "n"), [(0.05, 125), (0.03, 210), (0.02, 316), (0.01, 636)])
def test_documents_that_equivalence_needs_without_a_single_flip(margin, n):
    sequence = BettingSequence(0.05)
    sequence.update(np.zeros(n + 5))
    inside = next(look for look, _, low, high in sequence.trace if -margin < low and high < margin)
    assert inside == pytest.approx(n, abs=5)


def test_documents_to_exclude_is_the_smallest_number_that_does():
    sequence = BettingSequence(0.05)
    sequence.update([1.0] * 6 + [-1.0] * 3 + [0.0] * 41)
    total = sequence.documents_to_exclude(0.0, upper=False)
    counts = sequence.counts / sequence.n

    def capital(n):
        return log_capital(sequence.values, counts[None, :] * n, np.zeros(1))[0]

    assert capital(total) >= math.log(40) > capital(total - 1)
    assert sequence.documents_to_exclude(0.0, upper=True) is None


def test_obrien_fleming_gives_the_published_constants():
    # Jennison and Turnbull (2000), table 2.3, alpha 0.05: C_B(K).
    for looks, constant in ((1, 1.960), (2, 1.977), (5, 2.040), (10, 2.087)):
        critical = obrien_fleming(looks, 0.05)
        assert critical[-1] == pytest.approx(constant, abs=5e-4)
        assert critical[0] == pytest.approx(constant * math.sqrt(looks), abs=5e-3)


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r"outside \[-1, 1\]"):
        BettingSequence().update([0.0, 1.5])
    with pytest.raises(UsageError, match="outside"):
        BettingSequence().update([float("nan")])
    with pytest.raises(UsageError, match="alpha is 2"):
        BettingSequence(2)
    with pytest.raises(UsageError, match="0 looks"):
        obrien_fleming(0)
