"""Sweeps made by hand, for tests of what shows them."""

import math
import random

from surgeon.block import Block
from surgeon.paired import Verdict
from surgeon.sweeping.moves import Candidate, Repeat, grid
from surgeon.sweeping.result import (
    BeamStep,
    Effect,
    Prediction,
    RaceSummary,
    SweepCost,
    SweepResult,
)

PLANTED = Block(4, 8)


def verdict(**changes):
    values = {
        "verdict": "improved", "n": 400, "base": 0.5, "candidate": 0.62, "difference": 0.12,
        "interval": (0.05, 0.19), "level": 0.95, "method": "betting confidence sequence",
        "p": 1e-4, "e": 1e4, "wins": 60, "losses": 12, "ties": 328, "margin": 0.02,
    }  # fmt: skip
    return Verdict(**values | changes)


def effect(candidate, depth, difference, label=None, n=500, **changes):
    """An effect with intervals as wide as `n` documents make them."""
    wide = 1.5 / math.sqrt(n) if n else math.nan
    gold = 6 * difference
    values = {
        "candidate": candidate, "label": label or str(candidate), "plan": candidate.plan(depth),
        "added": candidate.added, "n": n, "score": 0.5 + difference, "difference": difference,
        "interval": (difference - wide, difference + wide), "gold_difference": gold,
        "gold_interval": (gold - 3 * wide, gold + 3 * wide), "wins": 40, "losses": 20,
    }  # fmt: skip
    return Effect(**values | changes)


def true_gain(move, seed=0):
    """A planted block that helps, the layers around it less, early layers ruinous."""
    block, noise = move.block, random.Random(f"{seed} {move}").gauss(0, 0.01)
    gain = 0.14 - 0.05 * block.distance(PLANTED)
    ruin = -0.45 * math.exp(-block.start / 1.2) - 0.01 * len(block)
    return max(gain, -0.02) + ruin + noise - 0.03 * (move.times - 2) - 0.02 * move.each


def with_front(effects):
    """The same with the Pareto front of gain against added layers marked."""

    def beaten(one):
        return any(
            (other.difference >= one.difference and other.added < one.added)
            or (other.difference > one.difference and other.added == one.added)
            for other in effects
        )

    return [each.model_copy(update={"pareto": not beaten(each)}) for each in effects]


def prediction(scorer, predicted, gain, spearman, **changes):
    off = predicted.distance(PLANTED)
    values = {
        "scorer": scorer, "blocks": 27, "unranked": 0, "predicted": predicted,
        "predicted_difference": gain, "best": PLANTED, "best_difference": 0.11, "distance": off,
        "spearman": spearman, "spearman_interval": (spearman - 0.2, min(1, spearman + 0.15)),
        "kendall": 0.7 * spearman, "hit": off == 0, "hit_share": 0.8 if off == 0 else 0.1,
        "within_two": off <= 2, "within_two_share": max(0.05, 0.95 - 0.2 * off),
        "regret": 0.11 - gain, "regret_interval": (max(0, 0.08 - gain), 0.15 - gain),
        "chance_hit": 1 / 27, "chance_within_two": 0.3, "chance_regret": 0.16, "level": 0.95,
    }  # fmt: skip
    return Prediction(**values | changes)


def predictions():
    return (
        prediction("consensus", Block(4, 8), 0.11, 0.81),
        prediction("decisiveness", Block(4, 8), 0.11, 0.74),
        prediction("boundary", Block(4, 8), 0.11, 0.5),
        prediction("stability", Block(5, 8), 0.06, 0.42),
        prediction("equilibrium", Block(5, 9), 0.04, 0.3),
        prediction("anomaly", Block(7, 10), -0.05, -0.11),
        prediction("composite", Block(6, 9), 0.01, 0.1),
    )


def made(
    depth=12,
    sizes=(3, 4, 5),
    times=(2,),
    each=False,
    race=True,
    predicted=True,
    extra=(),
    **changes,
):
    """A plausible sweep of a model with a planted block."""
    effects = [effect(c, depth, true_gain(c.moves[0])) for c in grid(depth, sizes, times, each)]
    effects += [effect(candidate, depth, gain) for candidate, gain in extra]
    effects.sort(key=lambda e: -e.difference)
    if race:
        tail = effects[-len(effects) // 2 :]
        dropped = [
            e.model_copy(update={"n": 120, "dropped": f"worse than {effects[0].label}"})
            for e in tail
        ]
        effects = effects[: len(effects) - len(tail)] + dropped
    effects = with_front(effects)
    values = {
        "model": "models/demo", "depth": depth, "tasks": ("cups", "arithmetic"),
        "split": "select", "sizes": sizes, "times": times, "seed": 0, "device": "cpu",
        "dtype": "float32", "documents": 500, "planned": 500, "base": 0.5, "base_gold": -1.234,
        "level": 0.95, "margin": 0.02, "effects": tuple(effects), "winner": effects[0].label,
        "reason": "largest difference of all candidates", "stopped": "all documents",
        "race": RaceSummary(
            spent=5_600, full=14_000, survivors=(effects[0].label, effects[1].label),
            settled=True, stopped="settled",
            guarantee="within 0.02 of the best of all with probability at least 95%",
        ) if race else None,
        "predictions": predictions() if predicted else (),
        "cost": SweepCost(
            evaluations=5_600, reused=400, layer_forwards=41_000, layer_forwards_alone=110_000,
            layer_tokens=2_000_000, layer_tokens_alone=5_400_000, seconds=71.3, workers=2,
        ),
        "inputs": "ab" * 32, "ledger": "sweep.jsonl", "notes": ("float32 on a processor",),
    }  # fmt: skip
    return SweepResult(**values | changes)


def composed():
    """Two blocks at once, as a beam finds them."""
    pair = Candidate(moves=(Repeat(block=PLANTED), Repeat(block=Block(9, 12))))
    result = made(extra=[(pair, 0.19)])
    steps = (
        BeamStep(candidate=result.effect("4:8").candidate, label="4:8",
                 plan=result.effect("4:8").plan, difference=0.11, gain=0.11, measured=27,
                 confirmed=verdict()),
        BeamStep(candidate=pair, label=str(pair), plan=pair.plan(12), difference=0.19, gain=0.08,
                 measured=12, confirmed=verdict(verdict="undecided", interval=(-0.01, 0.09))),
    )  # fmt: skip
    return result.model_copy(update={"beam": steps})
