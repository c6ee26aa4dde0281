"""Racing and running intervals: against slow twins, and by simulation."""

import math

import numpy as np
import pytest

from surgeon.errors import UsageError
from surgeon.sequential import BETS, BettingSequence
from surgeon.sweeping.effects import Differences
from surgeon.sweeping.race import BEHIND, FUTILE, Race


def draw(rng, means, n):
    """Right and wrong answers of the base (first) and the candidates; they share luck."""
    luck = rng.random(n)
    own = rng.random((len(means), n))
    mixed = np.where(rng.random((len(means), n)) < 0.7, luck, own)
    return (mixed < np.array(means)[:, None]).astype(float)


def run(scores, margin=0.05, alpha=0.05, chunk=25, weights=None):
    base, rest = scores[0], scores[1:]
    race = Race([4] * len(rest), alpha=alpha, margin=margin, weights=weights)
    for start in range(0, len(base), chunk):
        part = slice(start, start + chunk)
        race.add(base[part], rest[race.live, part])
        if not race.live:
            break
    return race


def slow_log_capital(differences):
    """Capital against `mean <= 0`, bet by bet and document by document."""
    total = 0.0
    for bet in BETS:
        capital = 1.0
        for difference in differences:
            capital *= 1 + bet * difference
        total += capital / len(BETS)
    return math.log(total)


def test_evidence_equals_capital_counted_document_by_document():
    rng = np.random.default_rng(0)
    scores = draw(rng, [0.5, 0.5, 0.7, 0.4], 60)
    weights = [1.0, 2.0, 5.0]
    race = Race([3, 4, 5], alpha=1e-12, margin=0.05, weights=weights)
    race.add(scores[0], scores[1:])
    for k in range(3):
        others = [j for j in range(3) if j != k]
        shares = [weights[j] / sum(weights[i] for i in others) for j in others]
        parts = [math.exp(slow_log_capital(scores[1 + j] - scores[1 + k])) for j in others]
        want = math.log(sum(share * part for share, part in zip(shares, parts, strict=True)))
        assert race._evidence_behind()[k] == pytest.approx(want, rel=1e-9)
    gap = 0.05
    close = slow_log_capital((scores[2] - scores[1] + gap) / (1 - gap))
    assert race._evidence_close(1)[0] == pytest.approx(close + math.log(2 / 7), rel=1e-9)


def test_a_clear_winner_is_found_and_the_losers_are_dropped():
    scores = draw(np.random.default_rng(1), [0.5, 0.5, 0.85, 0.45, 0.5], 800)
    race = run(scores)
    leader = race.leader()
    assert leader is not None and leader.at == 1 and leader.settled
    assert race.live == [1]
    assert all(race.dropped[k] in (BEHIND, FUTILE) for k in (0, 2, 3))


def test_without_a_gain_everything_is_dropped_as_futile():
    scores = draw(np.random.default_rng(2), [0.9, 0.9, 0.9, 0.7], 3000)
    race = run(scores)
    assert race.live == [] and race.leader() is None
    assert set(race.dropped) <= {BEHIND, FUTILE}


def test_the_best_is_hardly_ever_dropped():
    """The guarantee, with the hardest case: near ties, looked at after every chunk."""
    lost = 0
    for seed in range(200):
        scores = draw(np.random.default_rng(seed), [0.5, 0.60, 0.59, 0.58, 0.57, 0.5], 400)
        lost += 0 not in run(scores, alpha=0.3).live
    assert lost <= 0.2 * 200  # two of three parts of alpha, with room for chance


def test_weights_on_the_best_make_a_race_shorter_and_wrong_ones_do_not_break_it():
    spent = {}
    for name, weights in {
        "equal": None,
        "right": [20, 1, 1, 1, 1],
        "wrong": [1, 1, 1, 1, 20],
    }.items():
        total = 0
        for seed in range(20):
            scores = draw(np.random.default_rng(seed), [0.4, 0.8, 0.6, 0.6, 0.6, 0.6], 300)
            race = Race([4] * 5, alpha=0.05, margin=0.02, weights=weights)
            for start in range(0, 300, 10):
                total += 10 * len(race.live)
                race.add(scores[0][start : start + 10], scores[1:][race.live, start : start + 10])
            assert 0 in race.live
        spent[name] = total
    assert spent["right"] < spent["equal"] < spent["wrong"]


def test_equal_candidates_tie_for_the_smaller_and_are_undecidable():
    scores = draw(np.random.default_rng(3), [0.4, 0.8], 300)
    race = Race([5, 3], alpha=0.05, margin=0.02)
    twice = np.vstack([scores[1], scores[1]])
    race.add(scores[0], twice)
    leader = race.leader()
    assert leader is not None and leader.at == 1 and not leader.settled
    assert race.undecidable(20) and not race.undecidable(5000)


@pytest.mark.parametrize(
    "setting", [{"alpha": 0}, {"margin": 0}, {"margin": 1.0}, {"weights": [1, 0]}, {"weights": [1]}]
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(UsageError):
        Race([3, 4], **{"alpha": 0.05, "margin": 0.02, **setting})


def add(differences, who, base, scores):
    zeros = np.zeros_like(scores)
    differences.add(who, base, scores, zeros[0], zeros)


def test_intervals_equal_those_of_one_comparison_looked_at_as_often():
    rng = np.random.default_rng(4)
    scores = draw(rng, [0.5, 0.7, 0.45], 120)
    found = Differences(2, alpha=0.1)
    alone = [BettingSequence(0.1 / 2) for _ in range(2)]
    for start in range(0, 120, 40):
        part = slice(start, start + 40)
        add(found, [0, 1], scores[0, part], scores[1:, part])
    for at, sequence in enumerate(alone):
        # One look at each of the same moments, through the public one-candidate class.
        lows, highs = [], []
        for end in (40, 80, 120):
            fresh = BettingSequence(0.1 / 2)
            from surgeon.sequential import lower_bound

            difference = scores[1 + at, :end] - scores[0, :end]
            values = np.unique(difference)
            counts = np.array([[(difference == value).sum() for value in values]], dtype=float)
            lows.append(lower_bound(values, counts, fresh.alpha / 2)[0])
            highs.append(-lower_bound(-values, counts, fresh.alpha / 2)[0])
        assert found.lower[at] == pytest.approx(max(lows), abs=1e-9)
        assert found.upper[at] == pytest.approx(min(highs), abs=1e-9)
        sequence.update(scores[1 + at] - scores[0])
        assert found.lower[at] <= sequence.lower + 1e-9  # fewer looks never give more


def test_scores_with_many_values_get_a_wider_but_valid_interval():
    rng = np.random.default_rng(5)
    base, scores = rng.random(900), rng.random((1, 900))
    found = Differences(1, alpha=0.05)
    add(found, [0], base, scores)
    exact = BettingSequence(0.05)
    exact.update(scores[0] - base)
    mean = float((scores[0] - base).mean())
    assert found.lower[0] < mean < found.upper[0]
    assert found.upper[0] - found.lower[0] == pytest.approx(exact.upper - exact.lower, abs=0.02)


def test_dropped_candidates_keep_their_numbers():
    rng = np.random.default_rng(6)
    scores = draw(rng, [0.5, 0.7, 0.4], 60)
    found = Differences(2, alpha=0.05)
    add(found, [0, 1], scores[0, :30], scores[1:, :30])
    before = found.mean[1], found.lower[1], found.upper[1]
    add(found, [0], scores[0, 30:], scores[1:2, 30:])
    assert list(found.n) == [60, 30]
    assert (found.mean[1], found.lower[1], found.upper[1]) == before
    assert found.mean[0] == pytest.approx((scores[1] - scores[0]).mean())
    assert found.wins[0] - found.losses[0] == round((scores[1] - scores[0]).sum())


def test_gold_interval_is_students():
    from scipy import stats

    rng = np.random.default_rng(7)
    moved = rng.normal(0.3, 1.0, 50)
    found = Differences(4, alpha=0.05)
    zero = np.zeros((1, 50))
    found.add([2], zero[0], zero, zero[0], moved[None])
    want = stats.t.interval(1 - 0.05 / 4, 49, moved.mean(), stats.sem(moved))
    assert found.gold_interval(2) == pytest.approx(want)
    assert math.isnan(found.gold_interval(0)[0])
