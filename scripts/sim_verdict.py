#!/usr/bin/env python3
"""Simulations behind the verdicts: error rates, power, and what choosing among many costs.

    python scripts/sim_verdict.py [type1] [power] [curse] [--quick] [--json FILE]

Paired differences are drawn as 1, 0 or -1 with mean `difference` and a share `discordance`
that is not 0. Everything is seeded. The capitals are those of `surgeon.sequential`, summed
over many runs at once; a test holds the two together.
"""

import argparse
import json
import math
import time

import numpy as np
from scipy.stats import binom

from surgeon.fixed import documents_for_power
from surgeon.sequential import BETS

ALPHA = 0.05


def draw(generator, runs, n, difference, discordance):
    """Cumulative wins and losses (runs, n)."""
    win, loss = (discordance + difference) / 2, (discordance - difference) / 2
    u = generator.random((runs, n), dtype=np.float32)
    wins = np.cumsum(u < win, axis=1, dtype=np.int32)
    losses = np.cumsum((u >= win) & (u < win + loss), axis=1, dtype=np.int32)
    return wins, losses


def log_capital(wins, losses, ties, mean=0.0):
    """Log of the mixture capital against `true mean <= mean`, for counts of any shape."""
    win = np.log1p(BETS * (1 - mean) / (1 + mean))
    loss = np.log1p(-BETS)
    tie = np.log1p(-BETS * mean / (1 + mean))
    logs = [
        wins * a + losses * b + (ties * c if mean else 0.0)
        for a, b, c in zip(win, loss, tie, strict=True)
    ]
    most = np.maximum.reduce(logs)
    return most + np.log(sum(np.exp(each - most) for each in logs) / len(BETS))


def first_look(crossed, looks):
    """Documents at the first look that crossed, infinity where none did."""
    return np.where(crossed.any(1), looks[crossed.argmax(1)], np.inf)


def mid_p(wins, losses):
    """McNemar's mid-p, for arrays."""
    pairs, fewer = wins + losses, np.minimum(wins, losses)
    p = 2 * binom.cdf(fewer, pairs, 0.5) - binom.pmf(fewer, pairs, 0.5)
    return np.where(wins == losses, 1.0, np.minimum(1.0, p))


def fewest_to_reject(most, alpha):
    """Smallest |wins - losses| with mid-p <= alpha, per number of discordant pairs."""
    table = np.full(most + 1, most + 1)
    for pairs in range(1, most + 1):
        fewer = np.arange(pairs // 2 + 1)
        rejected = np.flatnonzero(mid_p(pairs - fewer, fewer) <= alpha)
        if len(rejected):
            table[pairs] = pairs - 2 * rejected[-1]
    return table


def type1(quick):
    """How often equal models are called different, looking after every document."""
    generator, rows = np.random.default_rng(1), []
    n, runs, block = (1000, 600, 200) if quick else (3000, 4000, 250)
    table = fewest_to_reject(1400, ALPHA)
    for discordance in (0.10, 0.25):
        found = {"sequential, every document": [], "mid-p, n fixed": [], "mid-p, peeking": []}
        for _ in range(runs // block):
            wins, losses = draw(generator, block, n, 0.0, discordance)
            up, down = log_capital(wins, losses, 0), log_capital(losses, wins, 0)
            crossed = np.maximum(up, down) >= math.log(2 / ALPHA)
            found["sequential, every document"].append(crossed.any(1))
            rejected = np.abs(wins - losses) >= table[np.minimum(wins + losses, 1400)]
            found["mid-p, n fixed"].append(rejected[:, 499])
            found["mid-p, peeking"].append(rejected[:, 9:].any(1))
        for rule, each in found.items():
            values = np.concatenate(each)
            rows.append({"discordance": discordance, "rule": rule, "runs": len(values),
                         "documents": n, "called different": float(values.mean())})  # fmt: skip
    return rows


def power(quick):
    """Documents until `improved`, beside the number a fixed test needs for 80 % power."""
    generator, rows = np.random.default_rng(2), []
    cases = [(0.10, 0.20), (0.05, 0.20)] if quick else [
        (d, psi) for d in (0.10, 0.05, 0.02) for psi in (0.10, 0.15, 0.20, 0.25)
    ]  # fmt: skip
    for difference, discordance in cases:
        n = {0.10: 1500, 0.05: 5000, 0.02: 30000}[difference]
        stride = {0.10: 1, 0.05: 5, 0.02: 50}[difference]
        runs = 200 if quick else {0.10: 3000, 0.05: 2000, 0.02: 800}[difference]
        looks, stops = np.arange(stride, n + 1, stride), []
        for _ in range(runs // 100):
            wins, losses = draw(generator, 100, n, difference, discordance)
            up = log_capital(wins[:, looks - 1], losses[:, looks - 1], 0)
            stops.append(first_look(up >= math.log(2 / ALPHA), looks))
        stop = np.sort(np.concatenate(stops))
        fixed = documents_for_power(difference, discordance)
        wins = generator.binomial(fixed, (discordance + difference) / 2, 20000)
        rest = (discordance - difference) / 2 / (1 - (discordance + difference) / 2)
        losses = generator.binomial(fixed - wins, rest)
        rows.append({
            "difference": difference, "discordance": discordance, "runs": len(stop),
            "fixed n for 80 %": fixed,
            "power there": float(((mid_p(wins, losses) <= ALPHA) & (wins > losses)).mean()),
            "sequential median": float(stop[len(stop) // 2]),
            "80 % decided by": float(stop[int(0.8 * len(stop))]),
            "sequential mean": float(np.minimum(stop, n).mean()),
        })  # fmt: skip
    return rows


def curse(quick):
    """Fifty equal candidates: what the best looks like, and what a fresh split says of it."""
    generator, rows = np.random.default_rng(3), []
    candidates, discordance = 50, 0.20
    runs = 300 if quick else 2000
    for n in (50, 200, 500):
        confirm = 1000
        p = discordance / 2
        wins = generator.binomial(n, p, (runs, candidates))
        losses = generator.binomial(n - wins, p / (1 - p))
        best = (wins - losses).argmax(1)
        at = np.arange(runs), best
        apparent = (wins[at] - losses[at]) / n
        naive = (mid_p(wins[at], losses[at]) <= ALPHA) & (wins[at] > losses[at])
        # The winner is as good as the base; fresh documents, looked at one by one.
        improved = []
        for start in range(0, runs, 100):
            won, lost = draw(generator, min(100, runs - start), confirm, 0.0, discordance)
            improved.append((log_capital(won, lost, 0) >= math.log(2 / ALPHA)).any(1))
        rows.append({
            "select documents": n, "candidates": candidates, "runs": runs,
            "best looks better by": float(apparent.mean()),
            "called improved on its own split": float(naive.mean()),
            "called improved after confirming": float(np.concatenate(improved).mean()),
        })  # fmt: skip
    return rows


def show(rows):
    """One aligned line a row."""
    heads = list(rows[0])
    cells = [[f"{r[h]:.3f}" if isinstance(r[h], float) and r[h] < 10 else
              f"{r[h]:.0f}" if isinstance(r[h], float) else str(r[h]) for h in heads]
             for r in rows]  # fmt: skip
    widths = [max(len(x[i]) for x in [heads, *cells]) for i in range(len(heads))]
    for line in [heads, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def main():
    parts = {"type1": type1, "power": power, "curse": curse}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--json", help="also write the rows here")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"unknown part {min(unknown)}; known: {', '.join(parts)}")
    found = {}
    for name in asked.parts or parts:
        started = time.monotonic()
        found[name] = parts[name](asked.quick)
        print(f"\n{name}: {parts[name].__doc__.splitlines()[0]}")
        show(found[name])
        print(f"({time.monotonic() - started:.0f} s)")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
