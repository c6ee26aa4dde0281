"""The simulations, shortened: the promises that the verdicts make."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from surgeon import sequential
from surgeon.fixed import mcnemar
from surgeon.paired import compare

SCRIPT = Path(__file__).parents[2] / "scripts" / "sim_verdict.py"


@pytest.fixture(scope="module")
def sim():
    spec = importlib.util.spec_from_file_location("sim_verdict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_simulated_statistics_are_those_of_the_product(sim):
    generator = np.random.default_rng(0)
    for wins, losses, ties in generator.integers(0, 40, (30, 3)).tolist():
        for mean in (0.0, -0.02, 0.3):
            counts = np.array([[losses, ties, wins]], dtype=float)
            want = sequential.log_capital(np.array([-1.0, 0.0, 1.0]), counts, np.array([mean]))
            assert sim.log_capital(wins, losses, ties, mean) == pytest.approx(want[0])
        assert sim.mid_p(np.array([wins]), np.array([losses]))[0] == pytest.approx(
            mcnemar(wins, losses)
        )


def test_looking_after_every_document_keeps_the_error_rate(sim):
    rows = {(r["discordance"], r["rule"]): r["called different"] for r in sim.type1(quick=True)}
    for discordance in (0.10, 0.25):
        assert rows[discordance, "sequential, every document"] <= 0.05
        # The same test can see an error rate that is too high: the naive rule has it.
        assert rows[discordance, "mid-p, peeking"] > 0.15
        assert rows[discordance, "mid-p, n fixed"] <= 0.075


def test_power_is_that_of_the_table(sim):
    table = {(0.10, 0.20): (155, 168, 276), (0.05, 0.20): (626, 700, 1150)}
    for row in sim.power(quick=True):
        fixed, median, most = table[row["difference"], row["discordance"]]
        assert row["fixed n for 80 %"] == fixed
        assert row["power there"] == pytest.approx(0.81, abs=0.03)
        assert row["sequential median"] == pytest.approx(median, rel=0.2)
        assert row["80 % decided by"] == pytest.approx(most, rel=0.2)


def test_select_then_confirm_undoes_the_winners_curse(sim):
    for row in sim.curse(quick=True):
        assert row["called improved after confirming"] <= 0.05
        assert row["called improved on its own split"] > 0.4
    assert sim.curse(quick=True)[0]["best looks better by"] == pytest.approx(0.143, abs=0.02)


def test_verdicts_of_equal_models_are_rarely_wrong():
    generator = np.random.default_rng(9)
    wrong = 0
    for _ in range(200):
        base = generator.random(400) < 0.6
        candidate = np.where(generator.random(400) < 0.2, generator.random(400) < 0.6, base)
        wrong += compare(base, candidate).verdict in ("improved", "worse")
    assert wrong / 200 <= 0.05
